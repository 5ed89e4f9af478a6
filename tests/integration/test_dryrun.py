"""The simulator of `bridge plan` gives the same results as the service's engine: both process the same events."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.connector.discovery import Registry
from bridge.dryrun.delivery import DryRunDelivery
from bridge.dryrun.engine import DryRun, temporary_database
from bridge.dryrun.simulator import Simulation
from bridge.events import Event
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.samples import iso, sample
from bridge.signing import read_event
from bridge.store.database import Database
from tests.integration.engine import InMemoryProvider, desk

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
    on_success: [{use: desk.post, delay: 10m}]
  - name: text-too
    when: call.busy
    do: [{use: desk.send, delay: 20m}]
  - name: email
    when: [chat.abandoned, call.completed]
    where: {contact.email: {exists: true}}
    do: [{use: desk.mail, delay: 30m, cancel_on: chat.resolved, once: {per: contact, within: 2h}}]
    on_success: [{use: desk.send}]
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


def events_of(occurrences: Sequence[tuple[Any, ...]]) -> list[Event]:
    """Return the events that Heppu would send; some are late."""
    events = []
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
        events.append(read_event(json.dumps(body).encode(), at))
    return events


def _time_of(occurrence: tuple[Any, ...]) -> datetime:
    return occurrence[0]


def results_of(deliveries: Sequence[DryRunDelivery]) -> list[DeliveryResult]:
    """Return the result of every delivery."""
    return [
        DeliveryResult(
            each.event.dedupe_key,
            each.planned.rule,
            each.planned.action,
            each.planned.recipient,
            each.state,
            each.reason,
            each.at.replace(second=0, microsecond=0),
        )
        for each in deliveries
    ]


def have_ties(deliveries: Sequence[DryRunDelivery]) -> bool:
    """Whether two deliveries to one recipient, or for one conversation, are simultaneous."""
    decided = Counter((each.at, each.planned.recipient or each.event.conversation.id) for each in deliveries)
    return max(decided.values(), default=0) > 1


def side_effects(results: Sequence[DeliveryResult]) -> Counter[tuple[str, str | None, datetime]]:
    """Count the side effects by action, recipient and time."""
    return Counter((each.action, each.recipient, each.at) for each in results if each.state == "succeeded")


@pytest.fixture(scope="module")
def rules() -> Rules:
    registry = Registry()
    registry.add(desk(InMemoryProvider()))
    return load_or_raise(RULES, path="rules.yaml", registry=registry, environ={})


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with temporary_database() as database:
        yield database


@settings(max_examples=25, deadline=None)
@given(occurrences=occurrences)
def test_simulation_gives_same_results_as_engine(database, rules, occurrences):
    events = events_of(occurrences)
    simulation, dry_run = Simulation(rules), DryRun(database, rules)
    simulation.run(events)
    dry_run.run(events)
    simulated, actual = results_of(simulation.deliveries), results_of(dry_run.deliveries)
    assert side_effects(simulated) == side_effects(actual)
    # The order of two deliveries at the same instant is undefined, and so is which of them is held back.
    if not have_ties(simulation.deliveries):
        assert Counter(simulated) == Counter(actual)
