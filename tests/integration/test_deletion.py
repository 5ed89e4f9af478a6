"""Deletion of old rows (BRIDGE_DELETE_AFTER): duplicates are still recognized, and nothing that counts is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.store import schema
from bridge.store.bridge_events import BridgeEvent, insert_bridge_events
from bridge.store.deletion import delete_batch, delete_rows
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.queries import list_events, stored_body
from bridge.store.retention import prune
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine

MONTH, YEAR = timedelta(days=30), timedelta(days=365)
RULES = """
version: 1
rules:
  - name: test
    when: call.busy
    do: [{use: twilio.send_sms, with: {body: hello}, once: {per: contact, within: 366d}}]
"""


@pytest.fixture(scope="module")
def once_rules() -> Rules:
    return load_or_raise(RULES.encode(), path="rules.yaml", registry=Registry())


NO_RULES = Rules("", "rules")


def count(engine: Engine, table: str) -> int:
    with engine.database.read() as conn:
        number: int = conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        return number


def finished_event(engine: Engine) -> IncomingEvent:
    """Store, route and deliver an event; return it as it arrived."""
    event = engine.event()
    incoming = IncomingEvent(event, stored_body(engine.database, event.id))
    route_unrouted(
        engine.database, NO_RULES, lambda event, now, history: route(event, NO_RULES, now, history)
    )
    engine.deliver("send", event)
    engine.run_due()
    return incoming


def age(engine: Engine, by: timedelta) -> None:
    engine.database.clock.advance(seconds=by.total_seconds())


def test_finished_rows_are_deleted_and_a_late_duplicate_is_still_one(engine: Engine) -> None:
    incoming = finished_event(engine)
    age(engine, YEAR + MONTH)
    prune(engine.database, MONTH, NO_RULES)
    assert delete_rows(engine.database, YEAR, NO_RULES) == 2
    assert [count(engine, name) for name in ("events", "deliveries", "attempts")] == [0, 0, 0]
    assert count(engine, "idempotency_keys") == 1
    assert count(engine, "deleted_event_keys") == 2
    other = engine.event("call.completed")
    assert store_events(engine.database, [incoming]) == ["duplicate"]
    assert [item["id"] for item in list_events(engine.database).items] == [other.id]


def test_new_events_of_a_batch_with_a_repeated_one_are_stored(engine: Engine) -> None:
    incoming = finished_event(engine)
    age(engine, YEAR + MONTH)
    prune(engine.database, MONTH, NO_RULES)
    delete_rows(engine.database, YEAR, NO_RULES)
    new = engine.event("chat.resolved")
    body = stored_body(engine.database, new.id)
    with engine.database.write() as conn:
        conn.execute(schema.events.delete())
    assert store_events(engine.database, [incoming, IncomingEvent(new, body)]) == ["duplicate", "stored"]


def test_event_of_the_bridge_is_not_stored_twice(engine: Engine) -> None:
    now = engine.database.clock.now()
    event = BridgeEvent("sms.received", "twilio SM1", {"metadata": {"contactPhone": "+12125550167"}}, now)
    for expected in (1, 0):
        with engine.database.write() as conn:
            assert len(insert_bridge_events(engine.database, conn, [event])) == expected
        route_unrouted(engine.database, NO_RULES, lambda e, now, history: route(e, NO_RULES, now, history))
        age(engine, YEAR + MONTH)
        prune(engine.database, MONTH, NO_RULES)
        delete_rows(engine.database, YEAR, NO_RULES)
        assert count(engine, "events") == 0


def test_unfinished_and_counted_deliveries_are_kept(engine: Engine, once_rules: Rules) -> None:
    finished_event(engine)
    waiting = engine.deliver("send", run_at=engine.database.clock.now() + 2 * YEAR)
    age(engine, YEAR + timedelta(hours=12))
    prune(engine.database, MONTH, once_rules)
    assert delete_rows(engine.database, YEAR, once_rules) == 0
    age(engine, timedelta(days=1))
    prune(engine.database, MONTH, once_rules)
    assert delete_rows(engine.database, YEAR, once_rules) == 2
    assert engine.show(waiting)["state"] == "pending"
    assert count(engine, "events") == 1


def test_rows_with_personal_data_are_pruned_first(engine: Engine) -> None:
    finished_event(engine)
    age(engine, YEAR + MONTH)
    assert delete_batch(engine.database, YEAR, NO_RULES) == 0


def test_key_of_a_deleted_event_takes_few_bytes(engine: Engine) -> None:
    keys = [{"key_hash": number.to_bytes(16, "big")} for number in range(20_000)]
    with engine.database.write() as conn:
        conn.execute(schema.deleted_event_keys.insert(), keys)
    with engine.database.read() as conn:
        if engine.database.is_sqlite:
            size = conn.execute(
                text("SELECT sum(pgsize) FROM dbstat WHERE name = 'deleted_event_keys'")
            ).scalar_one()
        else:
            size = conn.execute(text("SELECT pg_total_relation_size('deleted_event_keys')")).scalar_one()
        assert (
            conn.execute(select(func.count()).select_from(schema.deleted_event_keys)).scalar_one() == 20_000
        )
    assert size / 20_000 < (30 if engine.database.is_sqlite else 120)
