"""Retention: personal data is deleted after `BRIDGE_RETENTION` unless it is still needed."""

from __future__ import annotations

import itertools
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from bridge.connector.discovery import Registry
from bridge.errors import TransientError
from bridge.rules.load import load_or_raise
from bridge.rules.model import Cap, MessagingPolicy, OncePer, PlannedDelivery, Routing, Rules
from bridge.store import retention, schema
from bridge.store.database import Database
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from bridge.store.migrate import upgrade
from bridge.store.operator_actions import retry
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.replay import ReplayOrder, replay
from bridge.store.retention import PruneResult, prune, retention_windows
from bridge.worker import maintenance
from tests.acceptance.service_process import eventually
from tests.integration.engine import NO_QUIET, Engine, raising, worker_on

NUMBERS = itertools.count(4000)
MONTH = timedelta(days=30)


def other_contact() -> dict[str, str]:
    return {"contactPhone": f"+1212558{next(NUMBERS)}"}


def rules_with(more: str = "") -> Rules:
    """Return rules that text a contact once in 90 days, plus `more`."""
    text = f"""
version: 1
{more}
rules:
  - name: test
    when: call.busy
    do: [{{use: twilio.send_sms, with: {{body: hello}}, once: {{per: contact, within: 90d}}}}]
"""
    return load_or_raise(text.encode(), path="rules.yaml", registry=Registry())


def stored_personal_data(engine: Engine, delivery_id: str) -> tuple[str | None, str | None, str]:
    """Return the recipient, contact and parameters of a delivery as stored."""
    with engine.database.read() as conn:
        table = schema.deliveries
        row = conn.execute(select(table).where(table.c.id == delivery_id)).one()
        return row.recipient, row.contact, row.params


def test_once_counts_pruned_deliveries(engine: Engine) -> None:
    rules, contact_data = rules_with(), other_contact()
    states = []
    for days in (0, 60, 31):
        engine.database.clock.advance(days=days)
        prune(engine.database, MONTH, rules)
        delivery_id = engine.deliver(
            "send", engine.event(metadata=contact_data), once=OncePer("contact", timedelta(days=90))
        )
        engine.run_due()
        states.append(engine.show(delivery_id)["state"])
    assert states == ["succeeded", "suppressed", "succeeded"]


def test_cap_counts_pruned_deliveries(engine: Engine) -> None:
    caps = {"sms": Cap(1, timedelta(days=60))}
    engine.policy_config = PolicyConfig(MessagingPolicy(quiet_hours=NO_QUIET, caps=caps))
    rules, contact_data = rules_with("messaging: {caps: {sms: 1 per 60d}}"), other_contact()
    states = []
    for days in (0, 40, 21):
        engine.database.clock.advance(days=days)
        prune(engine.database, MONTH, rules)
        delivery_id = engine.deliver("send", engine.event(metadata=contact_data))
        engine.run_due()
        states.append(engine.show(delivery_id)["state"])
    assert states == ["succeeded", "suppressed", "succeeded"]


def test_recipient_is_pruned_once_no_rule_counts_it(engine: Engine) -> None:
    rules, contact_data = rules_with(), other_contact()
    delivery_id = engine.deliver("send", engine.event(metadata=contact_data))
    engine.run_due()
    engine.database.clock.advance(days=31)
    prune(engine.database, MONTH, rules)
    recipient, contact, params = stored_personal_data(engine, delivery_id)
    assert (recipient, contact) == (None, contact_data["contactPhone"])
    assert contact_data["contactPhone"] not in params
    engine.database.clock.advance(days=60)
    assert prune(engine.database, MONTH, rules).deliveries == 1
    assert stored_personal_data(engine, delivery_id)[:2] == (None, None)
    assert prune(engine.database, MONTH, rules).deliveries == 0


def test_recipient_of_suppressed_delivery_is_pruned_immediately(engine: Engine) -> None:
    delivery_id = engine.deliver("send", expires_at=engine.database.clock.now())
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "suppressed"
    engine.database.clock.advance(days=31)
    prune(engine.database, MONTH, rules_with())
    assert stored_personal_data(engine, delivery_id)[:2] == (None, None)


def test_retention_windows_are_the_longest_cap_and_once(engine: Engine) -> None:
    rules = rules_with("messaging: {caps: {call: 1 per 12d}}")
    assert retention_windows(rules) == (timedelta(days=12), timedelta(days=90))


def backlog(engine: Engine) -> None:
    """Store seven old rows of each kind."""
    now = engine.database.clock.now()
    for number in range(7):
        engine.deliver("post", engine.event(metadata=other_contact()))
        with engine.database.write() as conn:
            row = {"connection": "desk", "lookup_key": f"phone:{number}", "value": "1", "expires_at": now}
            conn.execute(schema.contact_cache.insert(), [row])
    record_rejected_requests(
        engine.database,
        [RejectedRequest("signature_wrong", "wrong", 401, False, now)] * 7,
    )
    engine.run_due()
    with engine.database.write() as conn:
        conn.execute(schema.events.update().values(routed_at=now))
    engine.database.clock.advance(days=31)


def test_batches_are_bounded_and_prune_everything(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    backlog(engine)
    batches = []
    while (batch := retention.prune_batch(engine.database, MONTH, rules_with())) != retention.EMPTY:
        batches.append(batch)
    assert batches == [PruneResult(3, 3, 3, 3), PruneResult(3, 3, 3, 3), PruneResult(1, 1, 1, 1)]


def test_transactions_change_few_rows_and_a_pass_without_work_writes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LARGEST", 2)
    backlog(engine)
    transactions = []
    write = engine.database.write

    def counted(*, durable: bool = True) -> Any:
        transactions.append(durable)
        return write(durable=durable)

    monkeypatch.setattr(engine.database, "write", counted)
    assert prune(engine.database, MONTH, rules_with()) == PruneResult(7, 7, 7, 7)
    assert len(transactions) == 4 * 4
    assert prune(engine.database, MONTH, rules_with()) == retention.EMPTY
    assert transactions == [False] * 4 * 4


def test_only_transactions_that_are_not_durable_do_not_wait_for_the_disk(database: Database) -> None:
    is_set = "SELECT source = 'session' FROM pg_settings WHERE name = 'synchronous_commit'"
    question = "SELECT synchronous = 1 FROM pragma_synchronous" if database.is_sqlite else is_set
    seen = []
    for durable in (True, False, True):
        with database.write(durable=durable) as conn:
            seen.append(bool(conn.exec_driver_sql(question).scalar_one()))
    assert seen == [False, True, False]


def test_maintenance_continues_between_prune_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real = retention.prune_batch

    def prune_batch(*args: Any) -> PruneResult:
        steps.append("prune")
        return real(*args)

    def reload() -> bool:
        steps.append("round")
        return False

    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(maintenance, "prune_batch", prune_batch)
    monkeypatch.setattr(maintenance, "MAINTENANCE_INTERVAL", 0.01)
    backlog(engine)
    worker = worker_on(engine, rules_with())
    monkeypatch.setattr(worker.maintenance._rules, "reload_if_changed", reload)
    worker.start()
    assert eventually(lambda: steps.count("round") >= 8)
    assert worker.stop(10)
    # Three batches and an empty one; then none for an hour.
    assert steps[:8] == ["round", "prune"] * 4
    assert steps.count("prune") == 4
    assert prune(engine.database, MONTH, rules_with()) == retention.EMPTY


def failed_delivery(engine: Engine) -> tuple[str, str]:
    """Return a CRM log whose attempts failed for days, and its event."""

    event = engine.event("call.completed", conversationId="conv-1", metadata=other_contact())
    delivery_id = engine.deliver("record", event)
    engine.provider.before = raising(TransientError("down", reason="server_error"))
    for _ in range(200):
        engine.run_due()
        if engine.show(delivery_id)["state"] == "failed":
            break
        engine.database.clock.advance(hours=1)
    engine.provider.before = None
    with engine.database.write() as conn:
        conn.execute(schema.events.update().values(routed_at=engine.database.clock.now()))
        conn.execute(schema.connections.update().values(paused_until=None, pause_cause=None))
    return delivery_id, event.id


def test_event_of_a_retryable_delivery_is_kept(engine: Engine) -> None:
    delivery_id, event = failed_delivery(engine)
    engine.database.clock.advance(days=28)  # the event is older than a month, its failed delivery is not
    assert prune(engine.database, MONTH, Rules("", "rules")).events == 0
    assert retry(engine.database, "ada", [delivery_id])[0].done
    [[claimed]] = engine.claim()
    assert (claimed.event.conversation.id, claimed.event.id) == ("conv-1", event)
    assert claimed.event.contact.phone is not None


def test_event_is_pruned_in_the_same_batch_as_its_last_delivery(engine: Engine) -> None:
    delivery_id, _ = failed_delivery(engine)
    engine.database.clock.advance(days=31)
    pruned = retention.prune_batch(engine.database, MONTH, Rules("", "rules"))
    assert (pruned.events, pruned.deliveries) == (1, 1)
    assert not retry(engine.database, "ada", [delivery_id])[0].done


@pytest.mark.postgres
def test_event_replayed_during_pruning_is_kept(postgres_url: str) -> None:
    database = Database(postgres_url)
    upgrade(database)
    engine = Engine(database)
    event = engine.event("call.completed", conversationId="conv-1", metadata=other_contact())
    with database.write() as conn:
        conn.execute(schema.events.update().values(routed_at=database.clock.now()))
    database.clock.advance(days=31)
    pruning = threading.Thread(target=lambda: prune(database, MONTH, Rules("", "rules")))

    def route(*_: object) -> Routing:
        pruning.start()
        time.sleep(1.0)  # pruning selects the event, which has no deliveries, and has to wait
        planned = PlannedDelivery(
            rule="test", trigger="rule", step_index=0, action="desk.record", connection="desk", params={},
            run_at=database.clock.now(), idempotency_key="record conv-1", updates_existing=True, concurrency_key=None,
        )  # fmt: skip
        return Routing((planned,), ())

    [replayed] = replay(database, "ada", [event.id], ReplayOrder(Rules("", "rules"), route))
    pruning.join()
    assert replayed.deliveries
    [[claimed]] = engine.claim()
    assert claimed.event.contact.phone is not None
    database.close()
