"""The simulator gives the same results as the service: both process the same events, on the test's clock."""

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
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.migrate import upgrade
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine, InMemoryProvider, desk

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
  - name: email
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
CONTACTS = [
    {"contactPhone": "+12125550123", "contactEmail": "maya@example.com"},
    {"contactPhone": "+13055550100"},
    {"contactPhone": "+18005550199", "contactEmail": "Maya@Example.com"},
    {"contactEmail": "ines@example.com", "timezone": "Pacific/Honolulu"},
]
EVENT_TYPES = ["call.busy", "call.no-answer", "call.completed", "call.failed"]
EVENT_TYPES += ["chat.completed", "chat.resolved", "chat.abandoned"]


class DeliveryResult(NamedTuple):
    """The final state of one delivery."""

    event: str
    rule: str
    action: str
    recipient: str | None
    state: str
    reason: str | None
    at: datetime


occurrences = st.lists(
    st.tuples(
        st.integers(0, 36 * 60).map(lambda minute: START + timedelta(minutes=minute)),
        st.sampled_from(EVENT_TYPES),
        st.sampled_from(CONTACTS),
        st.sampled_from(["conv_1", "conv_2", "conv_3"]),
        st.sampled_from(["outbound", "inbound"]),
        st.sampled_from([0, 0, 0, 40]),
    ),
    min_size=1,
    max_size=8,
)


def webhook_requests(occurrences: Sequence[tuple[Any, ...]]) -> list[tuple[datetime, bytes]]:
    """Return the bodies that Heppu would send, and when each is received; some events are late."""
    requests = []
    for number, (at, event_type, metadata, conversation_id, direction, late) in enumerate(
        sorted(occurrences, key=_time_of)
    ):
        # Seconds apart, because the order of two deliveries at the same instant is undefined.
        at += timedelta(seconds=number)
        body = sample(event_type) | {
            "timestamp": iso(at - timedelta(minutes=late)),
            "webhookId": f"whd_{number}",
            "conversationId": conversation_id,
            "metadata": metadata,
            "direction": direction,
        }
        requests.append((at, json.dumps(body).encode()))
    return requests


def _time_of(occurrence: tuple[Any, ...]) -> datetime:
    return occurrence[0]


def simulate(rules: Rules, requests: Sequence[tuple[datetime, bytes]]) -> tuple[list[DeliveryResult], bool]:
    """Return the result of every delivery, and True if two of a recipient or conversation are simultaneous."""
    simulation = Simulation(rules)
    simulation.run(read_event(raw, at) for at, raw in requests)
    deliveries = simulation.deliveries
    decided = Counter((each.at, each.planned.recipient or each.event.conversation.id) for each in deliveries)
    results = [
        DeliveryResult(
            each.event.dedupe_key,
            each.planned.rule,
            each.planned.action,
            each.planned.recipient,
            each.state,
            each.reason,
            _minute(each.at),
        )
        for each in deliveries
    ]
    return results, max(decided.values(), default=0) > 1


def serve(engine: Engine, rules: Rules, requests: Sequence[tuple[datetime, bytes]]) -> list[DeliveryResult]:
    """Process the requests in the service; return the result of every delivery."""
    database = engine.database
    for at, raw in requests:
        work_until(engine, at)
        database.clock.set(at)
        assert store_events(database, [IncomingEvent(read_event(raw, at), raw)])[0] in ("stored", "duplicate")
        route_unrouted(database, rules, lambda event, now: route(event, rules, now))
    work_until(engine, START + timedelta(days=30))
    deliveries, events = schema.deliveries, schema.events
    with database.read() as conn:
        rows = conn.execute(
            select(deliveries, events.c.dedupe_key).join(events, events.c.id == deliveries.c.event_id)
        ).all()
    return [
        DeliveryResult(
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
    """Advance the clock from one due delivery to the next."""
    is_waiting = text("deliveries.state IN ('pending', 'retrying')")
    for _ in range(200):
        with engine.database.read() as conn:
            due = conn.execute(select(func.min(schema.deliveries.c.run_at)).where(is_waiting)).scalar_one()
        if due is None or due >= until:
            return
        engine.database.clock.set(due)
        engine.run_due()
    raise AssertionError("deliveries are still due after 200 steps")


def side_effects(results: Sequence[DeliveryResult]) -> Counter[tuple[str, str | None, datetime]]:
    """Count the side effects by action, recipient and time."""
    return Counter((each.action, each.recipient, each.at) for each in results if each.state == "succeeded")


def _minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)


@pytest.fixture(scope="module")
def rules() -> Rules:
    registry = Registry()
    registry.add(desk(InMemoryProvider()))
    return load_or_raise(RULES, path="rules.yaml", registry=registry, environ={})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(occurrences=occurrences)
def test_simulation_gives_same_results_as_service(tmp_path_factory, rules, occurrences):
    folder = tmp_path_factory.mktemp("bridge")
    database = Database(f"sqlite:///{folder}/bridge.db")
    upgrade(database)
    try:
        engine = Engine(database, policy_config=PolicyConfig(rules.messaging))
        requests = webhook_requests(occurrences)
        simulated, tied = simulate(rules, requests)
        actual = serve(engine, rules, requests)
        assert side_effects(simulated) == side_effects(actual)
        # The order of two deliveries at the same instant is undefined, and so is which of them is held back.
        if not tied:
            assert Counter(simulated) == Counter(actual)
    finally:
        database.close()
