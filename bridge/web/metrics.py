"""`/metrics`: the metrics of this process, of its worker process and of the database, in Prometheus' text format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.store.gauges import Gauges, database_size, read_gauges
from bridge.telemetry.metrics import OPEN_STATES, DatabaseMetrics, Metrics
from bridge.web.shared_call import SharedCall

SIZE_MAX_AGE: Final = 60.0
"""Seconds for which the size of a PostgreSQL database is cached."""
MetricsOfWorker = Callable[[], Awaitable[bytes]]
"""The metrics of the worker, in Prometheus' text format; nothing if it does not respond."""


_Endpoint = Callable[[Request], Awaitable[Response]]
_SHARED_PORT: Final = (
    "several processes share this port, and each has its own metrics: scrape the BRIDGE_METRICS_PORT of each"
)


class RulesStatus(Protocol):
    """The rules file of this process."""

    loaded_at: datetime
    load_error: str | None

    @property
    def current(self) -> Any:
        """The active rules."""
        ...


def metrics_routes(
    database: Database,
    metrics: Metrics,
    *,
    rules: RulesStatus | None,
    is_writable: Callable[[], Awaitable[bool]],
    worker_metrics: MetricsOfWorker | None,
    receives: bool = True,
    shared_port: int | None = None,
) -> list[Route]:
    """Return the routes of the metrics. `receives` is False for a process that does not receive events.

    They refuse requests on the `shared_port`, which any of several processes receives, each with counters of its own.
    """
    _register_sizes(database, metrics)
    reader = _DatabaseReader(database, metrics.database)
    read_database = SharedCall(reader.read)
    read_disk = SharedCall(partial(_read_disk, metrics.database, database.file))

    async def prometheus(_: Request) -> Response:
        """Return all metrics in Prometheus' text format, without those of a database that is unavailable."""
        from_database = b""
        with suppress(StoreUnavailable):
            await read_disk()
            from_database = await read_database() if await is_writable() else b""
        process = metrics.process
        process.database_up.set(1 if from_database else 0)
        if rules is not None:
            process.set_rules(rules.current.hash, rules.loaded_at.timestamp(), rules.load_error)
        from_worker = await worker_metrics() if worker_metrics else b""
        process.worker_up.set(1 if from_worker else 0)
        from_web = generate_latest(metrics.web.registry) if receives else b""
        content = generate_latest(process.registry) + from_web + from_database + from_worker
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    async def webhooks(_: Request) -> Response:
        """Return the counters of the webhook as one JSON object."""
        return JSONResponse(webhook_stats(metrics))

    endpoints = {"/metrics": prometheus} | ({"/metrics/webhooks": webhooks} if receives else {})
    return [Route(path, _refuse_on(shared_port, endpoint)) for path, endpoint in endpoints.items()]


def _refuse_on(shared_port: int | None, endpoint: _Endpoint) -> _Endpoint:
    async def checked(request: Request) -> Response:
        if request.scope["server"][1] == shared_port:
            return JSONResponse({"error": _SHARED_PORT}, 421)
        return await endpoint(request)

    return endpoint if shared_port is None else checked


def _register_sizes(database: Database, metrics: Metrics) -> None:
    gauges = metrics.database
    if database.file is None:
        gauges.registry.register(gauges.database_bytes)
    else:
        for gauge in (gauges.database_bytes, gauges.wal_bytes, gauges.disk_free, gauges.disk_size):
            metrics.process.registry.register(gauge)


class _DatabaseReader:
    """Reads the gauges of the database."""

    def __init__(self, database: Database, metrics: DatabaseMetrics) -> None:
        self._database = database
        self._metrics = metrics
        self._size_read_at: float | None = None

    def read(self) -> bytes:
        """Return the metrics of the database in Prometheus' text format. Raise StoreUnavailable."""
        self._set(read_gauges(self._database, OPEN_STATES))
        is_size_old = self._size_read_at is None or uptime() - self._size_read_at >= SIZE_MAX_AGE
        if self._database.file is None and is_size_old:
            self._metrics.database_bytes.set(database_size(self._database))
            self._size_read_at = uptime()
        return generate_latest(self._metrics.registry)

    def _set(self, gauges: Gauges) -> None:
        metrics, now = self._metrics, self._database.clock.now()
        for state, count in gauges.open_deliveries.items():
            metrics.deliveries.labels(state).set(count)
        metrics.unrouted.set(gauges.unrouted)
        metrics.oldest_unrouted.set(_age(gauges.oldest_unrouted, now))
        metrics.last_event_at.set(gauges.last_event_at.timestamp() if gauges.last_event_at else 0)
        metrics.workers.set(gauges.workers)
        for backlog in gauges.backlogs:
            is_paused, age = backlog.pause is not None, _age(backlog.oldest, now)
            metrics.paused.labels(backlog.connection).set(int(is_paused))
            metrics.due.labels(backlog.connection).set(0 if is_paused else backlog.due)
            metrics.oldest_due.labels(backlog.connection).set(0 if is_paused else age)
            metrics.paused_due.labels(backlog.connection).set(backlog.due if is_paused else 0)
            metrics.oldest_paused.labels(backlog.connection).set(age if is_paused else 0)


def _age(instant: datetime | None, now: datetime) -> float:
    return max(0.0, (now - instant).total_seconds()) if instant else 0.0


def _read_disk(metrics: DatabaseMetrics, file: Path | None) -> None:
    """Set the gauges of the SQLite file and its disk."""
    if file is None:
        return
    path = file.resolve()
    usage = shutil.disk_usage(path.parent)
    metrics.disk_free.set(usage.free)
    metrics.disk_size.set(usage.total)
    metrics.database_bytes.set(_size(path))
    metrics.wal_bytes.set(_size(path.with_name(path.name + "-wal")))


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def webhook_stats(metrics: Metrics) -> dict[str, Any]:
    """Return the counters of the webhook since the service started."""
    by_status = {
        sample.labels["status"]: int(sample.value)
        for family in metrics.web.webhook_requests.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    return {
        "received": sum(by_status.values()),
        "stored": by_status["200"],
        "duplicates": by_status["duplicate"] + by_status["conflict"],
        "rejected": sum(count for status, count in by_status.items() if status.startswith("4")),
        "unavailable": by_status["503"],
        "by_status": {status: count for status, count in by_status.items() if count},
    }
