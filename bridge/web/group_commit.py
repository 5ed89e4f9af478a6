"""Group commit: stores concurrent events in one transaction, and gives up if the database does not respond."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bridge.clock import uptime
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, IngestResult, store_events
from bridge.telemetry.metrics import WebMetrics

MAX_GROUP_SIZE: Final = 256
"""Events per transaction."""
MAX_QUEUED_EVENTS: Final = 4096
"""Events that may wait for a transaction. Further ones are answered with 503, and Heppu sends them again."""
MAX_WAIT: Final = 9.0
"""Seconds that an event waits to be stored. Heppu waits 30 seconds for a response."""


@dataclass(slots=True)
class _Waiting:
    event: IncomingEvent
    result: asyncio.Future[IngestResult]
    since: float


class GroupCommit:
    """Collects events and stores them in groups, one transaction at a time, on a dedicated thread.

    If a transaction takes too long, its events and those that wait for it are `unavailable`, as is every event that
    arrives before it ends. They may be stored anyway: then Heppu's retry is a duplicate.
    """

    def __init__(self, database: Database, metrics: WebMetrics) -> None:
        self._database = database
        self._seconds = metrics.store_seconds
        self._queue: deque[_Waiting] = deque()
        metrics.queued_events.set_function(lambda: len(self._queue))
        self._task: asyncio.Task[None] | None = None
        self._is_overdue = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bridge-ingest")

    async def store(self, event: IncomingEvent) -> IngestResult:
        """Store one event. Return when it is on disk, or cannot be stored."""
        if self._is_overdue or len(self._queue) >= MAX_QUEUED_EVENTS:
            return "unavailable"
        loop = asyncio.get_running_loop()
        waiting = _Waiting(event, loop.create_future(), loop.time())
        self._queue.append(waiting)
        if self._task is None:
            self._task = loop.create_task(self._commit(loop))
        return await waiting.result

    async def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._queue:
            group = [self._queue.popleft() for _ in range(min(MAX_GROUP_SIZE, len(self._queue)))]
            timer = loop.call_at(group[0].since + MAX_WAIT, self._give_up, group)
            events = [waiting.event for waiting in group]
            started_at = uptime()
            results = await loop.run_in_executor(self._thread, store_events, self._database, events)
            self._seconds.observe(uptime() - started_at)
            timer.cancel()
            self._is_overdue = False
            for waiting, result in zip(group, results, strict=True):
                _resolve(waiting, result)
        self._task = None

    def _give_up(self, group: list[_Waiting]) -> None:
        """Answer the events of an overdue transaction, and those that wait for it."""
        self._is_overdue = True
        for waiting in (*group, *self._queue):
            _resolve(waiting, "unavailable")

    def close(self) -> None:
        """End the thread. The queue must be empty."""
        self._thread.shutdown(wait=True)


def _resolve(waiting: _Waiting, result: IngestResult) -> None:
    if not waiting.result.done():  # the sender may have disconnected
        waiting.result.set_result(result)
