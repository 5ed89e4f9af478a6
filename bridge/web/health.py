"""Health checks: `/healthz` and `/readyz`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.clock import uptime
from bridge.store.connection_status import connection_statuses
from bridge.store.database import Database
from bridge.store.pauses import ConnectionStatus
from bridge.store.queries import QueueStats, queue_stats
from bridge.store.write_health import check_write
from bridge.web.shared_call import SharedCall

STATS_MAX_AGE: Final = 5.0
"""Seconds for which the queue statistics are cached; counting the whole store is expensive."""


class CachedStats:
    """Queue statistics and connections, read on demand and at most every `STATS_MAX_AGE` seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read_at = -STATS_MAX_AGE
        self._stats: tuple[QueueStats, list[ConnectionStatus]] | None = None

    def get(self) -> tuple[QueueStats, list[ConnectionStatus]]:
        """Return the queue statistics and the connections. Raise StoreUnavailable."""
        if self._stats is None or uptime() - self._read_at >= STATS_MAX_AGE:
            self._stats = queue_stats(self._database), connection_statuses(self._database)
            self._read_at = uptime()
        return self._stats


def writability(database: Database) -> Callable[[], Awaitable[bool]]:
    """Return a function that says whether a write has succeeded within the last second; if none has, it writes."""
    health = database.write_health
    write = SharedCall(partial(check_write, database))

    async def is_writable() -> bool:
        outcome = health.current()
        if outcome is not None:
            return outcome
        try:
            await write()
        except Exception:  # already counted and logged
            return False
        return True

    return is_writable


def health_routes(
    is_writable: Callable[[], Awaitable[bool]],
    *,
    stopping: Callable[[], bool],
    is_alive: Callable[[], bool] = lambda: True,
) -> list[Route]:
    """Return the routes, which need no token. `is_alive` is False if a thread that the process needs has ended."""

    async def healthz(_: Request) -> Response:
        """Report that the process responds and its threads run. A container manager restarts it otherwise."""
        if not is_alive():
            return JSONResponse({"status": "a thread has ended"}, 503)
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        """Report whether the database is writable and the service is not stopping."""
        if stopping():
            return JSONResponse({"status": "stopping"}, 503)
        if not await is_writable():
            return JSONResponse({"status": "no database"}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
