"""The bench: what it fills a database with, and when a figure fails a run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from bench import claims
from bench.databases import BridgeDatabase, Sqlite
from bench.rows import row
from bench.stored_events import fill, signed_events
from bridge.signing import read_event
from bridge.store.database import Database
from bridge.store.schema import deliveries
from tests.integration.engine import Engine
from tests.sqlite import create_sqlite


def test_filled_database_is_as_a_service_leaves_it(tmp_path: Path) -> None:
    url = create_sqlite(tmp_path / "bridge.db")
    database = Database(url)
    engine = Engine(database)
    events = [
        engine.event(
            metadata={
                "contactPhone": f"+1212555{number:04d}",
                "contactEmail": f"caller{number}@example.com",
            }
        )
        for number in range(4)
    ]
    for name, event in zip(("send", "record", "post"), events, strict=False):
        engine.deliver(name, event)
    engine.run_due()
    later = engine.deliver("post", events[3], run_at=database.clock.now().replace(year=2100))
    database.close()
    stored = BridgeDatabase(url)
    stored.change("UPDATE events SET routed_at = received_at")
    # With the page of its root: an index that is created again has full pages, unlike one of a service.
    indexes = stored.rows("SELECT name, rootpage, sql FROM sqlite_master ORDER BY name")

    storage = fill(url, 400, days=1)

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as conn:
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert storage.events == 400
    assert stored.rows("SELECT name, rootpage, sql FROM sqlite_master ORDER BY name") == indexes
    assert stored.rows("SELECT state, count(*) FROM deliveries GROUP BY state ORDER BY state") == [
        ("pending", 100),
        ("succeeded", 300),
    ]
    assert stored.row("SELECT count(DISTINCT run_at) FROM deliveries WHERE state = 'pending'") == (1,)
    assert stored.row("SELECT count(DISTINCT phone) FROM events") == (104,)
    assert stored.row(
        "SELECT count(*) FROM idempotency_keys k JOIN deliveries d ON d.id = k.completed_by"
        " WHERE d.idempotency_key = k.key AND d.external_id IS k.external_id"
    ) == (300,)
    assert stored.row("SELECT count(*) FROM attempts") == (300,)
    assert stored.row("SELECT sum(total) FROM hourly_counts WHERE kind = 'event'")[0] > 300
    assert stored.row(f"SELECT count(*) FROM deliveries WHERE id = '{later}'") == (1,)


def test_due_deliveries_of_the_bench_were_created_in_the_order_in_which_they_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "DUE", 200)
    with claims._due(Sqlite(tmp_path), 0, keyed=False) as stages, stages.database.read() as conn:
        created = conn.execute(select(deliveries.c.created_at).order_by(deliveries.c.run_at)).scalars().all()
    assert created == sorted(set(created))


def test_people_of_the_events_have_names() -> None:
    bodies = [line.split(" ", 2)[2].encode() for line in signed_events()]
    events = [read_event(body, datetime.now(UTC)) for body in bodies]
    assert {field for event in events for field in event.unreadable_fields} == set()
    assert len({event.contact.name for event in events}) > 200


@pytest.mark.parametrize(
    ("value", "passed", "advisory"), [(0.6, True, True), (0.4, False, True), (0.2, False, False)]
)
def test_missed_target_is_shown_and_a_figure_below_its_floor_fails(
    value: float, passed: bool, advisory: bool
) -> None:
    figure = row("events stored/s", [value], [1.0], at_least=0.5, floor=0.3)
    assert (figure.passed, figure.advisory) == (passed, advisory)
    slow = row("p99, ms", [1 / value], [1.0], at_most=2.0, floor=1 / 0.3)
    assert (slow.passed, slow.advisory) == (passed, advisory)
