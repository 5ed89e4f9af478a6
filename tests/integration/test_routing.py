"""Routing of a batch: an event that fails does so alone, and a batch of any size takes the same statements."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import event as engine_events
from sqlalchemy import select, text

from bridge.connector.discovery import Registry
from bridge.errors import DamagedBody
from bridge.events import Event
from bridge.rules.counting import History
from bridge.rules.load import load_or_raise
from bridge.rules.model import Routing
from bridge.rules.route import route
from bridge.store import routing, schema
from bridge.store.contact_data import events_mentioning
from bridge.store.database import Database
from bridge.store.event_cache import EventCache
from bridge.store.queries import show_event
from bridge.store.reencryption import check_keys
from bridge.store.routing import route_unrouted
from bridge.store.traces import pack
from tests.integration.engine import Engine

RULES = load_or_raise(
    """
version: 1
rules:
  - name: post
    when: call.completed
    do: [{use: slack.post, with: {text: "{{ contact.name | default('someone') }} called"}}]
""",
    path="rules.yaml",
    registry=Registry(),
)


def route_event(event: Event, now: datetime, history: History) -> Routing:
    return route(event, RULES, now, history)


def events_with_deliveries(database: Database) -> set[str]:
    with database.read() as conn:
        return set(conn.execute(select(schema.deliveries.c.event_id)).scalars())


@pytest.mark.parametrize("failing_step", ["rules", "trace", "row", "names"])
def test_event_that_cannot_be_routed_does_not_affect_the_others(
    engine: Engine, failing_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [engine.event("call.completed") for _ in range(3)]
    broken = events[1]
    seen: list[Event] = []

    def route_or_fail(event: Event, now: datetime, history: History) -> Routing:
        seen.append(event)
        if failing_step == "rules" and event.id == broken.id:
            raise ValueError("a bug")
        return route_event(event, now, history)

    def fail_at_second(name: str) -> None:
        original, calls = getattr(routing, name), []

        def run(*args: object, **options: object) -> object:
            calls.append(args)
            if len(calls) == 2:
                raise ValueError("a bug")
            return original(*args, **options)

        monkeypatch.setattr(routing, name, run)

    names = {"trace": "pack", "row": "delivery_row", "names": "search_names"}
    if failing_step in names:
        fail_at_second(names[failing_step])
    assert route_unrouted(engine.database, RULES, route_or_fail) == (3, [broken.id])
    assert [event.id for event in seen] == [event.id for event in events]
    assert events_with_deliveries(engine.database) == {events[0].id, events[2].id}
    assert [trace["error"] for trace in show_event(engine.database, broken.id)["trace"]][-1] == "ValueError"


def test_damaged_body_fails_its_event_only(engine: Engine) -> None:
    database = engine.database
    events = [engine.event("call.completed") for _ in range(3)]
    with database.write() as conn:
        damaged = {"body": b"x damaged", "id": events[1].id}
        conn.execute(text("UPDATE events SET body = :body WHERE id = :id"), damaged)
    database.event_cache = EventCache()  # as in another process
    check_keys(database)
    assert route_unrouted(database, RULES, route_event) == (3, [events[1].id])
    assert events_with_deliveries(database) == {events[0].id, events[2].id}
    assert list(events_mentioning(database, "+442079460999")) == [[]]
    with pytest.raises(DamagedBody, match=f"{events[1].id} is damaged: restore a backup, or delete the body"):
        show_event(database, events[1].id)
    with database.write() as conn:
        conn.execute(text("UPDATE events SET body = NULL WHERE id = :id"), {"id": events[1].id})
    assert show_event(database, events[1].id)["body"] is None, "as the message advises"


def test_events_that_would_take_too_long_wait_for_the_next_batch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [engine.event("call.completed") for _ in range(3)]
    elapsed = iter(range(0, 100, 2))
    monkeypatch.setattr(routing, "uptime", lambda: next(elapsed))  # each event takes two seconds
    batches = [route_unrouted(engine.database, RULES, route_event)[0] for _ in range(4)]
    assert batches == [1, 1, 1, 0]
    assert events_with_deliveries(engine.database) == {event.id for event in events}


def test_batch_of_any_size_takes_the_same_statements(engine: Engine) -> None:
    def statements_for(count: int) -> int:
        for _ in range(count):
            engine.event("call.completed")
        statements: list[str] = []

        def record(_conn: object, _cursor: object, statement: str, *_: object) -> None:
            statements.append(statement)

        engine_events.listen(engine.database.engine, "before_cursor_execute", record)
        try:
            assert route_unrouted(engine.database, RULES, route_event) == (count, [])
        finally:
            engine_events.remove(engine.database.engine, "before_cursor_execute", record)
        return len(statements)

    statements_for(1)  # the first batch stores the rules
    assert statements_for(2) == statements_for(40)


def test_long_traces_are_compressed_and_short_ones_are_not(engine: Engine) -> None:
    now = engine.database.clock.now()
    short = route_event(engine.event("call.completed"), now, lambda *_: ()).evaluated
    assert pack(short).startswith(b"[")
    assert len(pack(short * 50)) < len(pack(short)) * 10
