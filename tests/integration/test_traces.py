"""Stored traces: complete when they are read, and small however many rules the file has."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select, update

from bridge.connector.discovery import Registry
from bridge.events import EVENT_TYPES
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.queries import show_event, stored_event
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine

_RULE = """
  - name: rule-{number}
    when: {event_type}
    enabled: {enabled}
    where:
      event.metadata.segment: segment-{number}
      any:
        - contact.phone: {{exists: true}}
        - contact.email: {{exists: true}}
    if: event.duration >= {number} and event.agentName != 'agent {number}'
    do:
      - use: slack.post
        with: {{text: "number {number}"}}
"""


def rules_of(count: int) -> Rules:
    """Rules that differ, spread over all event types; each tenth is disabled."""
    items = (
        _RULE.format(
            number=number,
            event_type=EVENT_TYPES[number % len(EVENT_TYPES)],
            enabled=str(number % 10 != 0).lower(),
        )
        for number in range(count)
    )
    text = "version: 1\nrules:" + "".join(items)
    return load_or_raise(text, path="rules.yaml", registry=Registry())


@pytest.fixture(scope="module")
def rules() -> Rules:
    return rules_of(100)


def route_all(database: Database, rules: Rules) -> None:
    while route_unrouted(database, rules, lambda event, now, history: route(event, rules, now, history))[0]:
        pass


def test_trace_that_is_read_is_that_of_every_rule_in_the_order_of_the_file(
    engine: Engine, rules: Rules
) -> None:
    events = [engine.event(event_type) for event_type in EVENT_TYPES]
    route_all(engine.database, rules)
    for event in events:
        stored = stored_event(engine.database, event.id)
        expected = [trace.to_json() for trace in route(stored, rules, engine.database.clock.now()).traces]
        assert len(expected) == len(rules.rules)
        assert show_event(engine.database, event.id)["trace"] == json.loads(json.dumps(expected))


def test_trace_is_complete_after_the_rules_have_changed(engine: Engine, rules: Rules) -> None:
    first = engine.event("call.busy")
    route_all(engine.database, rules)
    before = show_event(engine.database, first.id)["trace"]
    engine.event("call.busy")
    route_all(engine.database, rules_of(3))
    assert show_event(engine.database, first.id)["trace"] == before


def test_trace_that_was_stored_whole_is_still_read(engine: Engine, rules: Rules) -> None:
    event = engine.event("chat.resolved")
    route_all(engine.database, rules)
    trace = show_event(engine.database, event.id)["trace"]
    with engine.database.write() as conn:  # as versions did that stored every trace whole
        old = {"trace": json.dumps(trace), "packed_trace": None}
        conn.execute(update(schema.events).where(schema.events.c.id == event.id).values(old))
        conn.execute(update(schema.rules).values(outlines=None))
    assert show_event(engine.database, event.id)["trace"] == trace
    engine.event("chat.resolved")
    route_all(engine.database, rules)  # stores the outlines, which the old trace does not need
    assert show_event(engine.database, event.id)["trace"] == trace


@pytest.mark.parametrize(("count", "limit"), [(10, 400), (100, 900)])
def test_stored_trace_is_small(engine: Engine, count: int, limit: int) -> None:
    engine.event("call.busy")
    route_all(engine.database, rules_of(count))
    with engine.database.read() as conn:
        [packed] = conn.execute(select(schema.events.c.packed_trace)).scalars()
    assert len(packed) < limit
