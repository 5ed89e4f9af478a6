"""`/metrics`: what it tells of the database and of the workers, and what it leaves out when nobody can know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from bridge.clock import Clock
from bridge.errors import StoreUnavailable
from bridge.store.connections import register
from bridge.store.database import Database
from bridge.store.workers import beat, leave
from bridge.telemetry import Metrics
from bridge.web.app import create_app
from bridge.web.webhook import Receiver, ReceiverSettings
from tests.asgi_server import serving
from tests.integration.engine import Engine

FROM_THE_DATABASE = (
    "bridge_deliveries", "bridge_events_unrouted", "bridge_oldest_due_delivery_age_seconds", "bridge_connection_paused",
    "bridge_workers_alive",
)  # fmt: skip


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    """A server without a worker, as `bridge serve --no-worker` is one."""
    register(database, {"desk": "a"})
    metrics = Metrics()
    receiver = Receiver(database, ReceiverSettings((b"secret",)), metrics, database.clock)
    with serving(create_app(database, receiver, metrics, guard=lambda routes: routes)) as url:
        yield url


def scraped(url: str) -> dict[str, float]:
    answer = httpx.get(f"{url}/metrics", timeout=20)
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def told_of(url: str) -> set[str]:
    """The gauges of the database that are there, with or without a value."""
    text = httpx.get(f"{url}/metrics", timeout=20).text
    return {name for name in FROM_THE_DATABASE if name in text}


def test_while_the_database_is_away_nothing_is_told_of_it(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine(database).deliver("send")
    assert scraped(url)["bridge_database_up"] == 1
    assert told_of(url) == set(FROM_THE_DATABASE)

    def broken() -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(database, "read", broken)
        found = scraped(url)
        assert (found["bridge_database_up"], found["bridge_rules_last_reload_successful"]) == (0, 1)
        assert told_of(url) == set()
    found = scraped(url)
    assert (found["bridge_database_up"], found['bridge_deliveries{state="pending"}']) == (1, 1)
    assert told_of(url) == set(FROM_THE_DATABASE)


def test_workers_are_counted_that_were_seen_within_a_minute(
    url: str, database: Database, clock: Clock
) -> None:
    assert scraped(url)["bridge_workers_alive"] == 0
    beat(database, "one", "1.0")
    beat(database, "two", "1.0")
    assert scraped(url)["bridge_workers_alive"] == 2
    clock.advance(seconds=50)
    beat(database, "two", "1.0")
    clock.advance(seconds=11)
    assert scraped(url)["bridge_workers_alive"] == 1, "the one has died"
    leave(database, "two")
    assert scraped(url)["bridge_workers_alive"] == 0


@pytest.mark.postgres
def test_workers_are_counted_by_the_clock_of_the_database(postgres_url: str) -> None:
    from bridge.store.migrate import upgrade
    from bridge.store.workers import alive

    class Wrong(Clock):
        def now(self) -> datetime:
            return super().now() + timedelta(hours=2)

    database = Database(postgres_url, Wrong())
    upgrade(database)
    beat(database, "one", "1.0")
    assert alive(database) == 1
    database.close()
