"""What pauses a connection, and for how long."""

from __future__ import annotations

import itertools
import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from bridge.clock import uptime
from bridge.errors import AuthenticationError, RateLimited
from bridge.store.connections import all_connections, locked, pause_values, register
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.results import finish
from bridge.store.schema import connections
from tests.integration.engine import Engine

NUMBERS = itertools.count(3000)


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def stranger() -> dict[str, str]:
    return {"contactPhone": f"+1212557{next(NUMBERS)}"}


def too_fast() -> None:
    raise RateLimited("429")


def left(engine: Engine) -> timedelta:
    """How long the connection is still paused."""
    [row] = all_connections(engine.database)
    until: Any = row["paused_until"]
    return until - engine.database.clock.now()


def test_a_partner_that_says_429_for_ever_is_asked_less_and_less_often(engine: Engine) -> None:
    engine.deliver("post")
    engine.partner.before = too_fast
    engine.run_for(minutes=30)
    assert 8 < len(engine.partner.calls) <= 16
    assert left(engine) <= timedelta(minutes=5)


def test_after_an_answer_a_429_pauses_for_a_second_again(engine: Engine) -> None:
    engine.partner.before = too_fast
    engine.deliver("post")
    engine.run_for(minutes=2)
    assert left(engine) > timedelta(seconds=10)
    engine.database.clock.advance(minutes=5)
    engine.partner.before = None
    engine.lookup_delay()
    engine.partner.before = too_fast
    engine.deliver("post")
    engine.step()
    assert left(engine) <= timedelta(seconds=1)


def test_calls_under_way_that_meet_a_429_make_the_pause_no_longer(engine: Engine) -> None:
    for _ in range(4):
        engine.deliver("post", engine.event(metadata=stranger()))
    for call in engine.claim():
        finish(engine.database, engine.conclude(call, [RateLimited("429")]))
    assert left(engine) <= timedelta(seconds=1)


def test_attempts_that_waited_too_long_for_their_thread_open_no_circuit(engine: Engine) -> None:
    for _ in range(8):
        engine.deliver("post", engine.event(metadata=stranger()))
    engine.slots = 8
    ended = [
        item
        for call in engine.claim()
        for item in engine.conclude(call, engine.attempts.run(engine.connection, call, uptime()))
    ]
    finish(engine.database, ended)
    assert [row["pause_cause"] for row in all_connections(engine.database)] == [None]
    engine.lookup_delay()
    assert engine.states() == {"succeeded": 8}


def test_a_probe_that_waited_too_long_for_its_thread_does_not_close_the_circuit(engine: Engine) -> None:
    engine.deliver("post")
    with engine.database.write() as connection:
        row = {"name": "desk", "failures": 0, "successes": 0, "alert_due": False}
        now = engine.database.clock.now()
        connection.execute(connections.insert(), [row | pause_values("circuit", now, "down")])
    [probe] = engine.claim()
    finish(engine.database, engine.conclude(probe, engine.attempts.run(engine.connection, probe, uptime())))
    [paused] = all_connections(engine.database)
    assert paused["pause_cause"] == "circuit"
    engine.run_for(minutes=1)
    assert engine.states() == {"succeeded": 1}


@pytest.mark.postgres
def test_who_waited_for_the_budget_does_not_fill_it_by_an_older_clock(postgres_url: str) -> None:
    """The clock is read after the lock: or the time that one waited for the other would be credited twice."""
    database = Database(postgres_url)
    upgrade(database)
    read_at: list[datetime] = []
    now = database.now
    database.now = lambda connection: read_at.append(now(connection)) or read_at[-1]  # type: ignore[method-assign,func-returns-value]
    engine = Engine(database, per_second=10.0)
    with database.write() as connection:
        locked(database, connection, "desk")
    claiming = threading.Thread(target=engine.claim)
    with database.write() as connection:
        locked(database, connection, "desk")
        claiming.start()
        time.sleep(1.0)
        let_go = now(connection)
    claiming.join()
    assert read_at[-1] >= let_go
    database.close()


def refused(engine: Engine, settings: str) -> None:
    """An attempt with these settings meets a 401."""
    engine.deliver("post", idempotency_key=f"post {next(NUMBERS)}")
    [call] = engine.claim()
    finish(engine.database, engine.conclude(call, [AuthenticationError("401")]), lambda _: settings)


def test_a_mended_secret_ends_the_pause_that_an_older_process_made_meanwhile(engine: Engine) -> None:
    """A rolling restart: the first has the new secret already when the second, with the old one, meets the 401."""
    register(engine.database, {"desk": "new"})
    refused(engine, "old")
    assert all_connections(engine.database)[0]["pause_cause"] == "auth"
    register(engine.database, {"desk": "new"})
    assert all_connections(engine.database)[0]["pause_cause"] is None


def test_a_secret_that_is_not_mended_ends_no_pause(engine: Engine) -> None:
    register(engine.database, {"desk": "old"})
    refused(engine, "old")
    register(engine.database, {"desk": "old"})
    assert all_connections(engine.database)[0]["pause_cause"] == "auth"


def test_a_pause_and_its_end_are_in_the_log_with_what_to_do(engine: Engine) -> None:
    with structlog.testing.capture_logs() as logs:
        refused(engine, "old")
        register(engine.database, {"desk": "new"})
    assert [(entry["event"], entry["connection"]) for entry in logs] == [
        ("connection paused", "desk"), ("connection goes on", "desk"),
    ]  # fmt: skip
    assert "mend the account's variables and restart" in logs[0]["advice"]
    with structlog.testing.capture_logs() as logs:
        with engine.database.write() as connection:
            values = pause_values("circuit", engine.database.clock.now(), "down")
            connection.execute(connections.update().values(values))
        engine.lookup_delay()
    assert [entry["event"] for entry in logs] == ["connection goes on"]
