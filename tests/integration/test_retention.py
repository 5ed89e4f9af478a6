"""What goes after `BRIDGE_RETENTION`, and what is still needed."""

from __future__ import annotations

import itertools
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from bridge.clock import uptime
from bridge.connector.discovery import Registry
from bridge.errors import TransientError
from bridge.rules.load import load_or_raise
from bridge.rules.model import Cap, Messaging, Once, Planned, Routing, Rules
from bridge.store import retention, schema
from bridge.store.database import Database
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from bridge.store.migrate import upgrade
from bridge.store.operator_actions import replay, retry
from bridge.store.policy_inputs import Rulebook
from bridge.store.retention import Pruned, prune, spans
from bridge.worker import service
from tests.integration.engine import NO_QUIET, Engine, worker_on

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
        engine.lookup_delay()
        ended.append(engine.show(ident)["state"])
    assert ended == ["succeeded", "suppressed", "succeeded"]


def test_a_cap_counts_what_retention_has_passed_over(engine: Engine) -> None:
    caps = {"sms": Cap(1, timedelta(days=60))}
    engine.rulebook = Rulebook(Messaging(quiet_hours=NO_QUIET, caps=caps))
    rules, person = rules_with("messaging: {caps: {sms: 1 per 60d}}"), stranger()
    ended = []
    for days in (0, 40, 21):
        engine.database.clock.advance(days=days)
        prune(engine.database, MONTH, rules)
        ident = engine.deliver("send", engine.event(metadata=person))
        engine.lookup_delay()
        ended.append(engine.show(ident)["state"])
    assert ended == ["succeeded", "suppressed", "succeeded"]


def test_whom_a_message_reached_goes_when_nothing_counts_it_any_more(engine: Engine) -> None:
    rules, person = rules_with(), stranger()
    ident = engine.deliver("send", engine.event(metadata=person))
    engine.lookup_delay()
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
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "suppressed"
    engine.database.clock.advance(days=31)
    prune(engine.database, MONTH, rules_with())
    assert kept(engine, ident)[:2] == (None, None)


def test_the_longest_cap_and_once_of_the_rules_decide(engine: Engine) -> None:
    rules = rules_with("messaging: {caps: {call: 1 per 12d}}")
    assert spans(rules) == (timedelta(days=12), timedelta(days=90))


# Large backlogs


def backlog(engine: Engine) -> None:
    """Seven of each kind, all of them old."""
    now = engine.database.clock.now()
    for number in range(7):
        engine.deliver("post", engine.event(metadata=stranger()))
        with engine.database.write() as connection:
            row = {"connection": "desk", "lookup_key": f"phone:{number}", "value": "1", "expires_at": now}
            connection.execute(schema.contact_cache.insert(), [row])
    record_rejected_requests(engine.database, [RejectedRequest("signature", "wrong", 401, False, now)] * 7)
    engine.lookup_delay()
    with engine.database.write() as connection:
        connection.execute(schema.events.update().values(routed_at=now))
    engine.database.clock.advance(days=31)


def test_a_portion_is_bounded_and_the_portions_empty_everything(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    backlog(engine)
    portions = []
    while (portion := retention.prune_portion(engine.database, MONTH, rules_with())) != retention.NOTHING:
        portions.append(portion)
    assert portions == [Pruned(3, 3, 3, 3), Pruned(3, 3, 3, 3), Pruned(1, 1, 1, 1)]


def test_the_keeper_does_its_other_work_between_portions(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    prune_some = retention.prune_portion

    def portion(*args: Any) -> Pruned:
        done.append("prune")
        return prune_some(*args)

    def reload() -> bool:
        done.append("round")
        return False

    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(service, "prune_portion", portion)
    monkeypatch.setattr(service, "KEEPER_ROUND", 0.01)
    backlog(engine)
    worker = worker_on(engine, rules_with())
    monkeypatch.setattr(worker._rules, "reload_if_changed", reload)
    worker.start()
    end = uptime() + 20
    while done.count("round") < 8 and uptime() < end:
        time.sleep(0.01)
    assert worker.stop(10)
    # Three portions and the look that found nothing more; then none for an hour.
    assert done[:8] == ["round", "prune"] * 4
    assert done.count("prune") == 4
    assert prune(engine.database, MONTH, rules_with()) == retention.NOTHING


def given_up(engine: Engine) -> tuple[str, str]:
    """A CRM log that was tried in vain for days, and its event."""

    def down() -> None:
        raise TransientError("down", reason="server_error")

    event = engine.event("call.completed", conversationId="conv-1", metadata=stranger())
    ident = engine.deliver("record", event)
    engine.partner.before = down
    for _ in range(200):
        engine.lookup_delay()
        if engine.show(ident)["state"] == "failed":
            break
        engine.database.clock.advance(hours=1)
    engine.partner.before = None
    with engine.database.write() as connection:
        connection.execute(schema.events.update().values(routed_at=engine.database.clock.now()))
        connection.execute(schema.connections.update().values(paused_until=None, pause_cause=None))
    return ident, event.id


def test_what_may_still_be_retried_keeps_its_event(engine: Engine) -> None:
    ident, event = given_up(engine)
    engine.database.clock.advance(days=28)  # the event is older than a month, its dead delivery is not
    assert prune(engine.database, MONTH, Rules("", "rules")).events == 0
    assert retry(engine.database, "ada", [ident])[0].done
    [[claimed]] = engine.claim()
    assert (claimed.event.conversation.id, claimed.event.id) == ("conv-1", event)
    assert claimed.event.contact.phone is not None


def test_an_event_goes_with_its_last_delivery_in_one_portion(engine: Engine) -> None:
    ident, _ = given_up(engine)
    engine.database.clock.advance(days=31)
    pruned = retention.prune_portion(engine.database, MONTH, Rules("", "rules"))
    assert (pruned.events, pruned.deliveries) == (1, 1)
    assert not retry(engine.database, "ada", [ident])[0].done


@pytest.mark.postgres
def test_a_replay_meanwhile_keeps_its_event(postgres_url: str) -> None:
    database = Database(postgres_url)
    upgrade(database)
    engine = Engine(database)
    event = engine.event("call.completed", conversationId="conv-1", metadata=stranger())
    with database.write() as connection:
        connection.execute(schema.events.update().values(routed_at=database.clock.now()))
    database.clock.advance(days=31)
    pruning = threading.Thread(target=lambda: prune(database, MONTH, Rules("", "rules")))

    def route(*_: object) -> Routing:
        pruning.start()
        time.sleep(1.0)  # it looks, finds the event without deliveries, and has to wait
        planned = Planned(
            rule="test", trigger="rule", step_index=0, action="desk.record", connection="desk", params={},
            run_at=database.clock.now(), idempotency_key="record conv-1", updates_existing=True, concurrency_key=None,
        )  # fmt: skip
        return Routing((planned,), ())

    [replayed] = replay(database, "ada", [event.id], Rules("", "rules"), route)
    pruning.join()
    assert replayed.deliveries
    [[claimed]] = engine.claim()
    assert claimed.event.contact.phone is not None
    database.close()
