"""What goes after `BRIDGE_RETENTION`, and what is still needed."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from sqlalchemy import select

from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.model import Cap, Messaging, Once, Rules
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.facts import Rulebook
from bridge.store.retention import prune, spans
from tests.integration.engine import NO_QUIET, Engine

NUMBERS = itertools.count(4000)
MONTH = timedelta(days=30)


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def stranger() -> dict[str, str]:
    return {"contactPhone": f"+1212558{next(NUMBERS)}"}


def rules_with(more: str = "") -> Rules:
    """A file with one rule that texts a person once in 90 days, and `more`."""
    text = f"""
version: 1
{more}
rules:
  - name: test
    when: call.busy
    do: [{{use: twilio.send_sms, with: {{body: hello}}, once: {{per: contact, within: 90d}}}}]
"""
    return load_or_raise(text.encode(), path="rules.yaml", registry=Registry())


def kept(engine: Engine, ident: str) -> tuple[str | None, str | None, str]:
    """The recipient, contact and params of a delivery, as they are on disk."""
    with engine.database.read() as connection:
        table = schema.deliveries
        row = connection.execute(select(table).where(table.c.id == ident)).one()
        return row.recipient, row.contact, row.params


def test_once_counts_what_retention_has_passed_over(engine: Engine) -> None:
    rules, person = rules_with(), stranger()
    ended = []
    for days in (0, 60, 31):
        engine.database.clock.advance(days=days)
        prune(engine.database, MONTH, rules)
        ident = engine.deliver(
            "send", engine.event(metadata=person), once=Once("contact", timedelta(days=90))
        )
        engine.settle()
        ended.append(engine.show(ident)["state"])
    assert ended == ["sent", "suppressed", "sent"]


def test_a_cap_counts_what_retention_has_passed_over(engine: Engine) -> None:
    caps = {"sms": Cap(1, timedelta(days=60))}
    engine.rulebook = Rulebook(Messaging(quiet_hours=NO_QUIET, caps=caps))
    rules, person = rules_with("messaging: {caps: {sms: 1 per 60d}}"), stranger()
    ended = []
    for days in (0, 40, 21):
        engine.database.clock.advance(days=days)
        prune(engine.database, MONTH, rules)
        ident = engine.deliver("send", engine.event(metadata=person))
        engine.settle()
        ended.append(engine.show(ident)["state"])
    assert ended == ["sent", "suppressed", "sent"]


def test_whom_a_message_reached_goes_when_nothing_counts_it_any_more(engine: Engine) -> None:
    rules, person = rules_with(), stranger()
    ident = engine.deliver("send", engine.event(metadata=person))
    engine.settle()
    engine.database.clock.advance(days=31)
    prune(engine.database, MONTH, rules)
    recipient, contact, params = kept(engine, ident)
    assert (recipient, contact) == (None, person["contactPhone"])
    assert person["contactPhone"] not in params
    engine.database.clock.advance(days=60)
    assert prune(engine.database, MONTH, rules).deliveries == 1
    assert kept(engine, ident)[:2] == (None, None)
    assert prune(engine.database, MONTH, rules).deliveries == 0


def test_whom_nothing_reached_is_forgotten_at_once(engine: Engine) -> None:
    ident = engine.deliver("send", expires_at=engine.database.clock.now())
    engine.settle()
    assert engine.show(ident)["state"] == "suppressed"
    engine.database.clock.advance(days=31)
    prune(engine.database, MONTH, rules_with())
    assert kept(engine, ident)[:2] == (None, None)


def test_the_longest_cap_and_once_of_the_rules_decide(engine: Engine) -> None:
    rules = rules_with("messaging: {caps: {call: 1 per 12d}}")
    assert spans(rules) == (timedelta(days=12), timedelta(days=90))
