"""Metrics of a worker, as they are exported."""

from __future__ import annotations

from prometheus_client.exposition import generate_latest

from bridge.telemetry.metrics import Metrics
from bridge.worker.account import Accounts


def export_metrics(metrics: Metrics, accounts: Accounts) -> bytes:
    """Return the worker's metrics in Prometheus' text format, with every series of every open account."""
    for name in accounts.all():
        metrics.worker.add_connection(name)
    return generate_latest(metrics.worker.registry)
