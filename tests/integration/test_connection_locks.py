"""Locks of connections on PostgreSQL: workers read the clock when they have the lock, and never wait in a circle."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from bridge.clock import Clock
from bridge.connector import Success
from bridge.connector.deadline import Quota
from bridge.errors import TransientError
from bridge.store.claim import Capacity, claim
from bridge.store.connections import lock_connection
from bridge.store.database import Database
from bridge.store.results import record_results
from tests.integration.engine import Engine


@pytest.mark.postgres
@pytest.mark.parametrize("change", [{"extra_requests": 1}, {"quota": Quota(1, 2)}])
def test_connections_that_results_change_are_locked_in_one_order(
    postgres_url: str, clock: Clock, change: dict[str, Any]
) -> None:
    engine = Engine(Database(postgres_url, clock))
    results = []
    for connection, outcome in (("first", Success()), ("second", TransientError("503"))):
        engine.deliver("post", connection=connection)
        capacity = Capacity(connection, 1, lambda _: 1, per_second=10)
        [call] = claim(engine.database, capacity, engine.policy_config, "one").calls
        results += engine.classify_result(call, [outcome])
    results[0] = replace(results[0], **change)
    recorder = threading.Thread(target=record_results, args=(engine.database, results), daemon=True)
    with engine.database.write() as conn:
        lock_connection(engine.database, conn, "first")
        recorder.start()
        while recorder.is_alive() and not _is_any_waiting(engine.database):
            time.sleep(0.01)
        lock_connection(engine.database, conn, "second")  # a deadlock, if the recorder had locked it before
    recorder.join(20)
    assert engine.states() == {"succeeded": 1, "retrying": 1}
    engine.database.close()


@pytest.mark.postgres
def test_budget_is_not_refilled_for_time_spent_waiting_for_the_lock(postgres_url: str) -> None:
    """The clock is read after the lock; otherwise the waiting time would be credited twice."""
    engine = Engine(Database(postgres_url), per_second=10.0)
    engine.deliver("post")
    with engine.database.write() as conn:
        lock_connection(engine.database, conn, "desk")  # its row exists from now on
    claimed: list[Any] = []
    claiming = threading.Thread(target=lambda: claimed.extend(engine.claim()), daemon=True)
    with engine.database.write() as conn:
        lock_connection(engine.database, conn, "desk")
        claiming.start()
        while claiming.is_alive() and not _is_any_waiting(engine.database):
            time.sleep(0.01)
        released_at = engine.database.now(conn)
    claiming.join(20)
    [[delivery]] = claimed
    assert delivery.started_at >= released_at
    engine.database.close()


def _is_any_waiting(database: Database) -> bool:
    """Return whether a transaction of this database waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    with database.read() as conn:
        return bool(conn.execute(waiting).scalar_one())
