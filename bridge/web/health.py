"""Is it alive, can it work, and how is it going: `/healthz`, `/readyz`, `/metrics`, `/metrics/webhooks`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.store.connections import all_connections
from bridge.store.database import Database
from bridge.store.queries import Counts, counts
from bridge.store.workers import alive
from bridge.telemetry import Metrics

COUNT_EVERY = 5.0
"""Seconds for which counts of the whole store are good; counting is the one thing here that costs."""
WorkerMetrics = Callable[[], Awaitable[bytes]]
"""The metrics of a worker in another process, in Prometheus' text format."""


class Counted:
    """The store's counts, taken only when somebody asks, and at most every few seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._taken_at = -COUNT_EVERY
        self._found: tuple[Counts, list[dict[str, Any]]] | None = None

    def take(self) -> tuple[Counts, list[dict[str, Any]]]:
        """The counts and the connections; raises StoreUnavailable."""
        if self._found is None or uptime() - self._taken_at >= COUNT_EVERY:
            self._found = counts(self._database), all_connections(self._database)
            self._taken_at = uptime()
        return self._found


def health_routes(
    database: Database,
    metrics: Metrics,
    *,
    worker_metrics: WorkerMetrics | None,
    rules_trouble: Callable[[], str | None],
    stopping: Callable[[], bool],
) -> tuple[list[Route], list[Route]]:
    """The routes for everybody (`/healthz`, `/readyz`), and those for who holds the admin token (`/metrics...`)."""
    counted = Counted(database)
    if worker_metrics:
        metrics.registry.register(metrics.worker_up)

    async def healthz(_: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        """Events can be stored: the database can be written, and the service is not on its way out."""
        if stopping():
            return JSONResponse({"status": "stopping"}, 503)
        try:
            await asyncio.to_thread(_touch, database)
        except StoreUnavailable:
            return JSONResponse({"status": "no database"}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    async def prometheus(_: Request) -> Response:
        """Everything in Prometheus' text format."""
        try:
            stored = await asyncio.to_thread(_stored, metrics, database, counted)
        except StoreUnavailable:
            stored = b""
        metrics.database_up.set(1 if stored else 0)
        metrics.rules_ok.set(0 if rules_trouble() else 1)
        work = await worker_metrics() if worker_metrics else generate_latest(metrics.work)
        if worker_metrics:
            metrics.worker_up.set(1 if work else 0)
        return Response(generate_latest(metrics.registry) + stored + work, media_type=CONTENT_TYPE_LATEST)

    async def webhooks(_: Request) -> Response:
        """Requests by answer: received, verified, processed and failed, as one JSON object."""
        return JSONResponse(webhook_counts(metrics))

    return (
        [Route("/healthz", healthz), Route("/readyz", readyz)],
        [Route("/metrics", prometheus), Route("/metrics/webhooks", webhooks)],
    )


def _touch(database: Database) -> None:
    """Prove that a transaction that writes can begin."""
    with database.write():
        pass


def _stored(metrics: Metrics, database: Database, counted: Counted) -> bytes:
    """What the database tells, in Prometheus' text format; raises StoreUnavailable."""
    found, connections = counted.take()
    metrics.workers.set(alive(database))
    now = database.clock.now()
    for state, number in found.deliveries.items():
        metrics.deliveries.labels(state).set(number)
    metrics.unrouted.set(found.unrouted)
    waits = (now - found.oldest_due).total_seconds() if found.oldest_due else 0.0
    metrics.oldest_due.set(max(0.0, waits))
    for row in connections:
        paused = row["paused_until"] is not None and row["paused_until"] > now
        metrics.paused.labels(row["name"]).set(int(paused or row["pause_cause"] == "circuit"))
    return generate_latest(metrics.stored)


def webhook_counts(metrics: Metrics) -> dict[str, Any]:
    """The webhook's counters since start, by answer."""
    answers = {
        sample.labels["answer"]: int(sample.value)
        for family in metrics.receipts.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    duplicates = answers.get("duplicate", 0) + answers.get("conflict", 0)
    stored = answers.get("200", 0)
    received = sum(answers.values())
    return {
        "received": received,
        "stored": stored,
        "duplicates": duplicates,
        "rejected": sum(count for answer, count in answers.items() if answer.startswith("4")),
        "unavailable": answers.get("503", 0),
        "answers": answers,
    }
