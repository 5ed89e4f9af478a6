"""`/metrics`: gauges of the database and the workers, and their absence while the database is unavailable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from bridge.clock import Clock
from bridge.errors import StoreUnavailable
from bridge.store.connections import register_accounts
from bridge.store.database import Database
from bridge.store.workers import deregister, record_heartbeat
from bridge.telemetry import Metrics
from bridge.web.app import create_app
from bridge.web.rejection_log import RejectionLog
from bridge.web.webhook import Receiver, ReceiverSettings
from tests.asgi_server import serving
from tests.integration.engine import Engine

DATABASE_METRICS = (
    "bridge_deliveries", "bridge_events_unrouted", "bridge_oldest_due_delivery_age_seconds", "bridge_connection_paused",
    "bridge_workers_alive",
)  # fmt: skip


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    """Return the URL of a server without a worker, like `bridge serve --no-worker`."""
    register_accounts(database, {"desk": "a"})
    metrics = Metrics()
    receiver = Receiver(
        database, ReceiverSettings((b"secret",)), metrics, RejectionLog(metrics), database.clock
    )
    with serving(create_app(database, receiver, metrics, require_admin=lambda routes: routes)) as url:
        yield url


def scrape(url: str) -> dict[str, float]:
    response = httpx.get(f"{url}/metrics", timeout=20)
    assert response.status_code == 200
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def exported_database_metrics(url: str) -> set[str]:
    """Return the gauges of the database that are exported, with or without a value."""
    text = httpx.get(f"{url}/metrics", timeout=20).text
    return {name for name in DATABASE_METRICS if name in text}


def test_database_metrics_are_absent_while_database_is_unavailable(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine(database).deliver("send")
    assert scrape(url)["bridge_database_up"] == 1
    assert exported_database_metrics(url) == set(DATABASE_METRICS)

    def unavailable() -> Any:
        raise StoreUnavailable("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(database, "read", unavailable)
        values = scrape(url)
        assert (values["bridge_database_up"], values["bridge_rules_last_reload_successful"]) == (0, 1)
        assert exported_database_metrics(url) == set()
    values = scrape(url)
    assert (values["bridge_database_up"], values['bridge_deliveries{state="pending"}']) == (1, 1)
    assert exported_database_metrics(url) == set(DATABASE_METRICS)


def test_workers_alive_counts_heartbeats_within_a_minute(url: str, database: Database, clock: Clock) -> None:
    assert scrape(url)["bridge_workers_alive"] == 0
    record_heartbeat(database, "one", "1.0")
    record_heartbeat(database, "two", "1.0")
    assert scrape(url)["bridge_workers_alive"] == 2
    clock.advance(seconds=50)
    record_heartbeat(database, "two", "1.0")
    clock.advance(seconds=11)
    assert scrape(url)["bridge_workers_alive"] == 1, "worker `one` stopped sending heartbeats"
    deregister(database, "two")
    assert scrape(url)["bridge_workers_alive"] == 0


@pytest.mark.postgres
def test_workers_alive_uses_database_clock(postgres_url: str) -> None:
    from bridge.store.migrate import upgrade
    from bridge.store.workers import count_alive_workers

    class FastClock(Clock):
        def now(self) -> datetime:
            return super().now() + timedelta(hours=2)

    database = Database(postgres_url, FastClock())
    upgrade(database)
    record_heartbeat(database, "one", "1.0")
    assert count_alive_workers(database) == 1
    database.close()
