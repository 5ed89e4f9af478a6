"""The queries of the overview and of the connections: their plans, and the counts per hour."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from bridge.clock import Clock
from bridge.errors import PermanentError
from bridge.store import history_upkeep, hourly_counts, schema
from bridge.store.activity import SPANS, CountCache, read_activity
from bridge.store.connection_history import read_attempts, read_connections, read_pauses
from bridge.store.database import Database
from bridge.store.held_deliveries import held_deliveries
from bridge.store.history_upkeep import update_history
from bridge.store.hourly_counts import HOUR, count_hours, hours_to_count
from bridge.store.overview import read_tasks, read_vitals
from tests.integration.engine import Engine, raising
from tests.integration.query_plans import query_plans


def other(number: int) -> dict[str, str]:
    return {"contactPhone": f"+1212555{5000 + number}"}


def test_no_query_reads_a_whole_table(sqlite_url: str) -> None:
    database = Database(sqlite_url, Clock())
    engine = Engine(database)
    engine.deliver("post")
    engine.run_due()
    steps = query_plans(database)
    update_history(database)
    now, cache = database.clock.now(), CountCache()
    for span in SPANS.values():
        read_activity(database, cache, span)
    read_vitals(database, timedelta(hours=3))
    read_tasks(database)
    pauses = read_pauses(database, now - timedelta(days=30))
    starts = SPANS["24h"].starts(now)
    read_connections(database, starts, HOUR, pauses)
    read_attempts(database, starts, HOUR, "desk")
    held_deliveries(database, connection="desk")
    assert steps
    large = re.compile(r"SCAN (events|deliveries|attempts|hourly_counts|connection_stats)\b")
    allowed = "INDEX events_received"  # its first or last entries
    assert [step for step in steps if large.match(step) and allowed not in step] == []
    assert not [step for step in steps if "deliveries_connection" in step]
    database.close()


def test_waiting_deliveries_are_found_by_their_index(sqlite_url: str) -> None:
    database = Database(sqlite_url, Clock())
    steps = query_plans(database)
    read_connections(database, SPANS["24h"].starts(database.clock.now()), HOUR, [], "desk")
    held_deliveries(database, connection="desk")
    of_deliveries = {step for step in steps if " deliveries " in step and "(state=?)" not in step}
    assert of_deliveries
    assert all("deliveries_due" in step for step in of_deliveries), of_deliveries
    database.close()


def test_hours_are_counted_once_and_agree_with_the_rows(engine: Engine) -> None:
    database = engine.database
    database.clock.advance(minutes=-database.clock.now().minute)

    for number in range(6):
        engine.provider.before = raising(PermanentError("no such number")) if number == 5 else None
        engine.deliver("post", engine.event(metadata=other(number)))
        engine.run_due()
        database.clock.advance(minutes=40)
    live = read_activity(database, CountCache(), SPANS["1h"])
    assert live.totals.events == 1
    database.clock.advance(hours=1)
    now = database.clock.now()
    with database.read() as conn:
        assert hours_to_count(conn, now - timedelta(days=1), now) > 0
    while count_hours(database, 2):
        pass
    assert count_hours(database) == 0
    day = read_activity(database, CountCache(), SPANS["24h"])
    assert (day.totals.events, day.totals.succeeded, day.totals.failed) == (6, 5, 1)
    assert day.uncounted_hours == 0
    assert day.rules["test"].fired == 6
    assert sum(sum(values) for values in day.results.values()) == 6
    assert max(day.events["call.busy"]) == 2, "there were two in most hours"


@pytest.mark.parametrize("span", ["24h", "30d"])
def test_cache_of_counts_follows_new_hours_and_new_events(engine: Engine, span: str) -> None:
    database, cache = engine.database, CountCache()
    for number in range(4):
        engine.event(metadata=other(number))
        assert read_activity(database, cache, SPANS[span]).totals.events == number + 1
        database.clock.advance(minutes=45)
        update_history(database)


def test_hours_are_counted_again_if_the_clock_was_set_back(engine: Engine) -> None:
    """A clock that was wrong and is corrected: hours that were counted as over come a second time."""
    database = engine.database
    engine.event(metadata=other(1))
    database.clock.advance(hours=5)
    update_history(database)
    database.clock.advance(hours=-5)
    update_history(database)
    engine.event(metadata=other(2))
    assert read_activity(database, CountCache(), SPANS["24h"]).totals.events == 2
    database.clock.advance(hours=5)
    for _ in range(2):  # two workers
        while update_history(database):
            pass
    assert read_activity(database, CountCache(), SPANS["24h"]).totals.events == 2


def test_old_history_is_deleted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    age, database = timedelta(days=2), engine.database
    monkeypatch.setattr(hourly_counts, "HISTORY_AGE", age)
    monkeypatch.setattr(history_upkeep, "HISTORY_AGE", age)
    engine.deliver("post")
    engine.run_due()
    database.clock.advance(hours=2)
    update_history(database)
    database.clock.advance(seconds=age.total_seconds())
    while update_history(database):
        pass
    engine.event(metadata=other(1))
    database.clock.advance(hours=2)
    update_history(database)
    with database.read() as conn:
        stats = conn.execute(select(func.count()).select_from(schema.connection_stats)).scalar_one()
        oldest = conn.execute(select(func.min(schema.hourly_counts.c.started_at))).scalar_one()
    assert stats == 0
    assert oldest >= database.clock.now() - age - HOUR


@pytest.mark.parametrize(
    ("span", "zone", "first", "last"),
    [
        ("24h", "UTC", "2026-03-01T16:00", "2026-03-02T15:00"),
        ("7d", "UTC", "2026-02-23T18:00", "2026-03-02T12:00"),
        ("30d", "Europe/Berlin", "2026-01-31T23:00", "2026-03-01T23:00"),
        ("30d", "Asia/Kolkata", "2026-01-31T18:00", "2026-03-01T18:00"),
        ("1h", "UTC", "2026-03-02T14:21", "2026-03-02T15:20"),
    ],
)
def test_slots_start_in_the_zone_of_the_reader(span: str, zone: str, first: str, last: str) -> None:
    now = datetime(2026, 3, 2, 15, 20, 30, tzinfo=UTC)
    starts = SPANS[span].starts(now, ZoneInfo(zone))
    assert [f"{start:%Y-%m-%dT%H:%M}" for start in (starts[0], starts[-1])] == [first, last]
    assert len(starts) == SPANS[span].slots
