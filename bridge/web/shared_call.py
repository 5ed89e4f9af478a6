"""Shared calls: a blocking function that several requests need at the same time runs once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from bridge.errors import StoreUnavailable

T = TypeVar("T")

CHECK_LIMIT: Final = 2.0
"""Seconds within which the database must write and read for a probe."""


class SharedCall(Generic[T]):
    """A blocking function that runs once at a time, in its own thread, however many requests wait for its result."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bridge-probe")
        self._running: asyncio.Future[T] | None = None
        self._started_at = 0.0

    async def __call__(self) -> T:
        """Return the result of the running call, or of a new one. Raise StoreUnavailable if it takes too long."""
        loop = asyncio.get_running_loop()
        if self._running is None or self._running.done():
            self._running = loop.run_in_executor(self._thread, self._function)
            self._running.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._started_at = loop.time()
        running = self._running
        done, _ = await asyncio.wait({running}, timeout=self._started_at + CHECK_LIMIT - loop.time())
        if not done:
            raise StoreUnavailable(f"no response within {CHECK_LIMIT:.0f} s", kind="timeout")
        return running.result()
