"""What a rehearsal promises is what the service does: the same events through both, on the test's clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from bridge.connector.discovery import Registry
from bridge.dryrun.simulator import Simulation
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.samples import iso, sample
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, accept
from bridge.store.migrate import upgrade
from bridge.store.policy_inputs import Rulebook
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine, Partner, desk

RULES = """
version: 1
messaging:
  caps: {sms: 2 per 24h, email: 1 per 7d}
  regions: {US-FL: "18:00-10:00"}
rules:
  - name: text
    when: [call.busy, call.no-answer]
    where: {event.direction: outbound}
    do:
      - use: desk.send
        delay: 5m
        cancel_on: [call.completed, chat.resolved]
        expires: 10h
  - name: text-too
    when: call.busy
    do: [{use: desk.send, delay: 20m}]
  - name: mail
    when: [chat.abandoned, call.completed]
    where: {contact.email: {exists: true}}
    do: [{use: desk.mail, delay: 30m, cancel_on: chat.resolved, once: {per: contact, within: 2h}}]
  - name: log
    when: [call.*, chat.*]
    do: [{use: desk.record}]
  - name: watch
    shadow: true
    when: call.failed
    do: [{use: desk.post}]
"""
START = datetime(2026, 3, 7, 12, tzinfo=UTC)
PEOPLE = [
    {"contactPhone": "+12125550123", "contactEmail": "maya@example.com"},
    {"contactPhone": "+13055550100"},
    {"contactPhone": "+18005550199", "contactEmail": "Maya@Example.com"},
    {"contactEmail": "ines@example.com", "timezone": "Pacific/Honolulu"},
]
NAMES = ["call.busy", "call.no-answer", "call.completed", "call.failed"]
NAMES += ["chat.completed", "chat.resolved", "chat.abandoned"]


class Ended(NamedTuple):
    """What became of one delivery."""

    event: str
    rule: str
    action: str
    recipient: str | None
    state: str
    reason: str | None
    at: datetime


happenings = st.lists(
    st.tuples(
        st.integers(0, 36 * 60).map(lambda minute: START + timedelta(minutes=minute)),
        st.sampled_from(NAMES),
        st.sampled_from(PEOPLE),
        st.sampled_from(["conv_1", "conv_2", "conv_3"]),
        st.sampled_from(["outbound", "inbound"]),
        st.sampled_from([0, 0, 0, 40]),
    ),
    min_size=1,
    max_size=8,
)


def bodies(happened: Sequence[tuple[Any, ...]]) -> list[tuple[datetime, bytes]]:
    """What Heppu would send, and when it comes in: some events are late."""
    sent = []
    for number, (at, name, person, conversation, direction, late) in enumerate(sorted(happened, key=_first)):
        # Seconds apart: which of two goes first at one instant is left open.
        at += timedelta(seconds=number)
        body = sample(name) | {
            "timestamp": iso(at - timedelta(minutes=late)),
            "webhookId": f"whd_{number}",
            "conversationId": conversation,
            "metadata": person,
            "direction": direction,
        }
        sent.append((at, json.dumps(body).encode()))
    return sent


def _first(happened: tuple[Any, ...]) -> datetime:
    return happened[0]


def rehearsed(rules: Rules, sent: Sequence[tuple[datetime, bytes]]) -> tuple[list[Ended], bool]:
    """How every delivery ends, and whether two of one person or conversation are decided at one instant."""
    simulation = Simulation(rules)
    simulation.run(read_event(raw, at) for at, raw in sent)
    found = simulation.deliveries
    decided = Counter((each.at, each.planned.recipient or each.event.conversation.id) for each in found)
    ended = [
        Ended(
            each.event.dedupe_key,
            each.planned.rule,
            each.planned.action,
            each.planned.recipient,
            each.state,
            each.reason,
            _minute(each.at),
        )
        for each in found
    ]
    return ended, max(decided.values(), default=0) > 1


def served(engine: Engine, rules: Rules, sent: Sequence[tuple[datetime, bytes]]) -> list[Ended]:
    database = engine.database
    for at, raw in sent:
        work_until(engine, at)
        database.clock.set(at)
        assert accept(database, [IncomingEvent(read_event(raw, at), raw)])[0] in ("stored", "duplicate")
        route_unrouted(database, rules, lambda event, now: route(event, rules, now))
    work_until(engine, START + timedelta(days=30))
    deliveries, events = schema.deliveries, schema.events
    with database.read() as connection:
        rows = connection.execute(
            select(deliveries, events.c.dedupe_key).join(events, events.c.id == deliveries.c.event_id)
        ).all()
    return [
        Ended(
            row.dedupe_key,
            row.rule,
            row.action,
            row.recipient,
            row.state,
            row.reason,
            _minute(row.first_attempt_at or row.finished_at),
        )
        for row in rows
    ]


def work_until(engine: Engine, until: datetime) -> None:
    """Let the clock jump from one due delivery to the next."""
    waiting = text("deliveries.state IN ('pending', 'retrying')")
    for _ in range(200):
        with engine.database.read() as connection:
            due = connection.execute(select(func.min(schema.deliveries.c.run_at)).where(waiting)).scalar_one()
        if due is None or due >= until:
            return
        engine.database.clock.set(due)
        engine.lookup_delay()
    raise AssertionError("it never settled")


def reached(ended: Sequence[Ended]) -> Counter[tuple[str, str | None, datetime]]:
    """Who gets what, and when."""
    return Counter((each.action, each.recipient, each.at) for each in ended if each.state == "succeeded")


def _minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)


@pytest.fixture(scope="module")
def rules() -> Rules:
    registry = Registry()
    registry.add(desk(Partner()))
    return load_or_raise(RULES, path="rules.yaml", registry=registry, environ={})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happened=happenings)
def test_a_rehearsal_ends_as_the_service_does(tmp_path_factory, rules, happened):
    folder = tmp_path_factory.mktemp("bridge")
    database = Database(f"sqlite:///{folder}/bridge.db")
    upgrade(database)
    try:
        engine = Engine(database, rulebook=Rulebook(rules.messaging))
        sent = bodies(happened)
        promised, tied = rehearsed(rules, sent)
        kept = served(engine, rules, sent)
        assert reached(promised) == reached(kept)
        # Which of two goes first at one instant is left open, and with it which of them is held back.
        if not tied:
            assert Counter(promised) == Counter(kept)
    finally:
        database.close()
