"""Health checks and metrics: `/healthz`, `/readyz`, `/metrics` and `/metrics/webhooks`."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.store.connections import connection_statuses
from bridge.store.database import Database
from bridge.store.pauses import ConnectionStatus
from bridge.store.queries import QueueStats, queue_stats
from bridge.store.workers import count_alive_workers
from bridge.store.write_health import check_write
from bridge.telemetry import Metrics
from bridge.web.store_errors import StoreErrorReport

T = TypeVar("T")

CHECK_LIMIT: Final = 2.0
"""Seconds within which the database must write and read for a probe."""
STATS_MAX_AGE = 5.0
"""Seconds for which the queue statistics are cached; counting the whole store is expensive."""
WorkerMetrics = Callable[[], Awaitable[bytes]]
"""The metrics of a worker in another process, in Prometheus' text format."""


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


def health_routes(
    database: Database,
    metrics: Metrics,
    *,
    worker_metrics: WorkerMetrics | None,
    rules_load_error: Callable[[], str | None],
    stopping: Callable[[], bool],
) -> tuple[list[Route], list[Route]]:
    """Return the public routes (`/healthz`, `/readyz`) and the routes that need the admin token (`/metrics...`)."""
    health = database.write_health
    health.on_error = StoreErrorReport(metrics)
    write = SharedCall(partial(check_write, database))
    read_metrics = SharedCall(partial(_database_metrics, metrics, database, CachedStats(database)))
    read_disk = SharedCall(partial(_read_disk, metrics, database))
    if worker_metrics:
        metrics.registry.register(metrics.worker_up)
    if database.file is not None:
        metrics.registry.register(metrics.disk_free)

    async def is_writable() -> bool:
        """Return whether a write has succeeded within the last second. If there was none, write a row."""
        outcome = health.current()
        if outcome is not None:
            return outcome
        try:
            await write()
        except Exception:  # already counted and logged
            return False
        return True

    async def healthz(_: Request) -> Response:
        """Report that the process responds."""
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        """Report whether events can be stored: the database is writable and the service is not stopping."""
        if stopping():
            return JSONResponse({"status": "stopping"}, 503)
        if not await is_writable():
            return JSONResponse({"status": "no database"}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    async def prometheus(_: Request) -> Response:
        """Return all metrics in Prometheus' text format, without those of a database that is unavailable."""
        from_database = b""
        with suppress(StoreUnavailable):
            await read_disk()
            from_database = await read_metrics() if await is_writable() else b""
        metrics.database_up.set(1 if from_database else 0)
        metrics.rules_reload_ok.set(0 if rules_load_error() else 1)
        from_worker = await worker_metrics() if worker_metrics else generate_latest(metrics.worker_registry)
        if worker_metrics:
            metrics.worker_up.set(1 if from_worker else 0)
        content = generate_latest(metrics.registry) + from_database + from_worker
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    async def webhooks(_: Request) -> Response:
        """Return the counters of the webhook as one JSON object."""
        return JSONResponse(webhook_stats(metrics))

    return (
        [Route("/healthz", healthz), Route("/readyz", readyz)],
        [Route("/metrics", prometheus), Route("/metrics/webhooks", webhooks)],
    )


def _read_disk(metrics: Metrics, database: Database) -> None:
    """Set the gauge of the disk of the SQLite file."""
    if database.file is not None:
        metrics.disk_free.set(shutil.disk_usage(database.file.resolve().parent).free)


def _database_metrics(metrics: Metrics, database: Database, cached_stats: CachedStats) -> bytes:
    """Return the metrics that are read from the database, in Prometheus' text format. Raise StoreUnavailable."""
    stats, connections = cached_stats.get()
    metrics.workers.set(count_alive_workers(database))
    now = database.clock.now()
    for state, count in stats.deliveries.items():
        metrics.deliveries.labels(state).set(count)
    metrics.unrouted.set(stats.unrouted)
    age = (now - stats.oldest_due).total_seconds() if stats.oldest_due else 0.0
    metrics.oldest_due.set(max(0.0, age))
    for status in connections:
        metrics.paused.labels(status.name).set(int(status.pause is not None))
    return generate_latest(metrics.db_registry)


def webhook_stats(metrics: Metrics) -> dict[str, Any]:
    """Return the counters of the webhook since the service started."""
    by_status = {
        sample.labels["status"]: int(sample.value)
        for family in metrics.webhook_requests.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    return {
        "received": sum(by_status.values()),
        "stored": by_status.get("200", 0),
        "duplicates": by_status.get("duplicate", 0) + by_status.get("conflict", 0),
        "rejected": sum(count for status, count in by_status.items() if status.startswith("4")),
        "unavailable": by_status.get("503", 0),
        "by_status": by_status,
    }
