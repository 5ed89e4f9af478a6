"""Operator actions on both databases: results, messages and audit entries."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError, OutcomeUnknown, PermanentError, TransientError
from bridge.events import Event
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.accept_rejected import accept_rejected_request
from bridge.store.audit_log import list_audit_entries
from bridge.store.connections import pause, resume
from bridge.store.database import Database
from bridge.store.delivery_list import list_deliveries
from bridge.store.erase import erase
from bridge.store.ingest import IncomingEvent, RejectedRequest, record_rejected_requests, store_events
from bridge.store.operator_actions import ActionResult, cancel, resolve, retry
from bridge.store.opt_out_list import list_opt_outs
from bridge.store.opt_outs import OptOutChange, hash_address, save_opt_out
from bridge.store.queries import NotFound, list_events, list_rejected_requests, show_event, stored_event
from bridge.store.replay import ReplayOrder, replay, select_events
from bridge.store.results import record_results
from bridge.store.retention import prune
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine, raising

PHONE = "+12125550167"


def failed(engine: Engine, **planned: Any) -> str:
    """Return a delivery that the provider rejected."""
    engine.provider.before = raising(PermanentError("no such number"))
    delivery_id = engine.deliver("send", **planned)
    engine.run_due()
    engine.provider.before = None
    assert engine.show(delivery_id)["state"] == "failed"
    return delivery_id


def needing_review(engine: Engine) -> str:
    """Return a delivery that was sent, but whose response was lost and whose lookup is inconclusive."""
    engine.provider.after = raising(OutcomeUnknown("reset"))
    engine.provider.lookup_works = False
    delivery_id = engine.deliver("send")
    engine.run_due()
    engine.database.clock.advance(seconds=10)
    engine.run_due()
    engine.provider.after = None
    assert engine.show(delivery_id)["state"] == "needs_review"
    return delivery_id


def audited(engine: Engine) -> list[tuple[str, str, str]]:
    return [
        (entry["actor"], entry["action"], entry["target"]) for entry in list_audit_entries(engine.database)
    ]


# ---------------------------------------------------------------- retry


def test_retry_of_failed_delivery_starts_a_new_schedule(engine: Engine) -> None:
    delivery_id = failed(engine)
    engine.database.clock.advance(days=10)
    assert retry(engine.database, "ada", [delivery_id]) == [
        ActionResult(delivery_id, True, "retry starts now")
    ]
    engine.run_due()
    assert engine.provider.messages == [(delivery_id, PHONE)]
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert audited(engine) == [("ada", "retry", delivery_id)]


def test_retry_of_retrying_delivery_is_immediate(engine: Engine) -> None:
    engine.provider.before = raising(ConnectionRefusedError())
    delivery_id = engine.deliver("send")
    engine.connector.classify_error(
        lambda error: None if not isinstance(error, ConnectionRefusedError) else _refused()
    )
    engine.run_due()
    engine.provider.before = None
    assert engine.show(delivery_id)["state"] == "retrying"
    assert retry(engine.database, "ada", [delivery_id])[0].done
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"


def _refused() -> Exception:
    return TransientError("no connection", reason="network")


def test_retry_of_delivery_in_review_points_to_resolve(engine: Engine) -> None:
    delivery_id = needing_review(engine)
    result = retry(engine.database, "ada", [delivery_id])[0]
    assert not result.done
    assert f"bridge resolve {delivery_id}" in result.text
    engine.run_due()
    assert len(engine.provider.messages) == 1
    assert audited(engine) == []


def test_retry_of_pruned_succeeded_or_unknown_delivery_is_rejected(engine: Engine) -> None:
    late = failed(engine, expires_at=engine.database.clock.now() + timedelta(hours=1))
    old = failed(engine)
    sent = engine.deliver("send")
    engine.run_due()
    engine.database.clock.advance(days=40)
    prune(engine.database, timedelta(days=30), Rules("", "rules"))
    texts = [result.text for result in retry(engine.database, "ada", [late, old, sent, "dlv_none", "evt_x"])]
    assert "no longer kept" in texts[0]
    assert "no longer kept" in texts[1]
    assert "it is succeeded" in texts[2]
    assert texts[3] == "there is no such delivery"
    assert "`bridge replay` takes events" in texts[4]


def test_retry_of_expired_delivery_is_rejected(engine: Engine) -> None:
    delivery_id = failed(engine, expires_at=engine.database.clock.now() + timedelta(hours=1))
    engine.database.clock.advance(hours=2)
    result = retry(engine.database, "ada", [delivery_id])[0]
    assert (result.done, "it expired at" in result.text) == (False, True)


# ---------------------------------------------------------------- cancel and resolve


def test_cancel_of_pending_delivery_releases_its_key(engine: Engine) -> None:
    event = engine.event()
    first = engine.deliver("send", event)
    assert cancel(engine.database, "ada", [first]) == [ActionResult(first, True, "cancelled")]
    second = engine.deliver("send", event)
    engine.run_due()
    assert [delivery_id for delivery_id, _ in engine.provider.messages] == [second]
    assert engine.show(first)["state"] == "cancelled"


def test_cancel_of_delivery_in_review_keeps_its_key(engine: Engine) -> None:
    first = needing_review(engine)
    assert cancel(engine.database, "ada", [first])[0].done
    event = _event_of(engine, first)
    second = engine.deliver("send", event)
    engine.run_due()
    assert len(engine.provider.messages) == 1
    shown = engine.show(second)
    assert (shown["state"], shown["reason"]) == ("suppressed", "duplicate")


def _event_of(engine: Engine, delivery: str) -> Event:
    return stored_event(engine.database, engine.show(delivery)["event_id"])


def test_cancel_of_running_delivery_is_rejected(engine: Engine) -> None:
    running = engine.deliver("send")
    engine.claim()
    assert (
        cancel(engine.database, "ada", [running])[0].text
        == "it is running; only deliveries that wait or need review can be cancelled"
    )
    assert engine.show(running)["state"] == "running"


def test_resolve_delivered_completes_the_key(engine: Engine) -> None:
    first = needing_review(engine)
    assert resolve(engine.database, "ada", first, "delivered", "SM77").done
    shown = engine.show(first)
    assert (shown["state"], shown["external_id"], shown["detail"]) == (
        "succeeded",
        "SM77",
        "resolved as delivered by ada",
    )
    second = engine.deliver("send", _event_of(engine, first))
    engine.run_due()
    assert engine.show(second)["reason"] == "duplicate"
    assert len(engine.provider.messages) == 1
    assert list_audit_entries(engine.database)[0]["detail"] == {"resolution": "delivered"}


def test_resolve_retry_sends_again(engine: Engine) -> None:
    delivery_id = needing_review(engine)
    engine.provider.messages.clear()
    assert resolve(engine.database, "ada", delivery_id, "retry").done
    engine.run_due()
    assert engine.provider.messages == [(delivery_id, PHONE)]
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_resolve_discard_cancels_and_keeps_the_key(engine: Engine) -> None:
    first = needing_review(engine)
    assert resolve(engine.database, "ada", first, "discard").done
    second = engine.deliver("send", _event_of(engine, first))
    engine.run_due()
    assert engine.show(first)["state"] == "cancelled"
    assert engine.show(second)["reason"] == "duplicate"


def test_resolve_accepts_only_deliveries_in_review(engine: Engine) -> None:
    delivery_id = failed(engine)
    for resolution in ("delivered", "retry", "discard"):
        assert not resolve(engine.database, "ada", delivery_id, resolution).done
    assert not resolve(engine.database, "ada", "dlv_none", "delivered").done
    assert audited(engine) == []


# ---------------------------------------------------------------- replay

RULES = """
version: 1
messaging: {quiet_hours: none}
rules:
  - name: text
    when: call.busy
    do:
      - use: desk.send
        with: {body: hello}
  - name: log
    when: call.*
    do:
      - use: desk.record
"""


def rules_of(engine: Engine, text: str = RULES) -> Rules:
    registry = Registry()
    registry.add(engine.connector)
    return load_or_raise(text, path="rules.yaml", registry=registry)


def replay_events(engine: Engine, event_ids: list[str], **options: Any) -> Any:
    on_progress = options.pop("on_progress", lambda _: None)
    order = order_of(options.pop("rules", rules_of(engine)), **options)
    return replay(engine.database, "ada", event_ids, order, on_progress=on_progress)


def order_of(rules: Rules, **options: Any) -> ReplayOrder:
    return ReplayOrder(rules, lambda event, now, history: route(event, rules, now, history), **options)


def routed(engine: Engine, count: int = 1) -> list[str]:
    for _ in range(count):
        engine.event()
    rules = rules_of(engine)
    route_unrouted(engine.database, rules, lambda event, now, history: route(event, rules, now, history))
    engine.run_due()
    return [item["id"] for item in list_events(engine.database, limit=100).items]


def test_replay_suppresses_sent_message_and_updates_record(engine: Engine) -> None:
    event_id = routed(engine)[0]
    assert len(engine.provider.messages) == 1
    result = replay_events(engine, [event_id])[0]
    engine.run_for(seconds=10)
    assert len(result.deliveries) == 2
    assert len(engine.provider.messages) == 1
    states = {engine.show(one)["action"]: engine.show(one) for one in result.deliveries}
    assert states["desk.send"]["reason"] == "duplicate"
    assert (states["desk.record"]["state"], states["desk.record"]["detail"]) == ("succeeded", "updated")
    assert list_audit_entries(engine.database)[0]["detail"] == {
        "deliveries": 2,
        "rules": rules_of(engine).hash[:12],
    }


def test_forced_replay_sends_again_and_is_audited(engine: Engine) -> None:
    event_id = routed(engine)[0]
    replay_events(engine, [event_id], rule="text", force=True)
    engine.run_due()
    assert len(engine.provider.messages) == 2
    assert list_audit_entries(engine.database)[0]["detail"]["force"] is True


def test_replay_uses_the_current_rules(engine: Engine) -> None:
    event_id = routed(engine)[0]
    rules = rules_of(engine, RULES.replace("name: text", "name: renamed").replace("hello", "another text"))
    result = replay_events(engine, [event_id], rules=rules, rule="renamed")
    engine.run_due()
    shown = engine.show(result[0].deliveries[0])
    assert (shown["rule"], shown["params"]["body"]) == ("renamed", "another text")
    assert shown["reason"] == "duplicate"
    assert len(engine.provider.messages) == 1


def test_replay_reports_skipped_events(engine: Engine) -> None:
    unrouted = engine.event().id
    results = replay_events(engine, [unrouted, "evt_none"])
    assert [item.skipped for item in results] == [
        "it is not routed yet; it will be routed automatically",
        "there is no such event",
    ]
    assert list_deliveries(engine.database).items == []


def test_events_are_selected_by_received_at(engine: Engine) -> None:
    started = engine.database.clock.now()
    early = routed(engine)[0]
    engine.database.clock.advance(hours=2)
    late = routed(engine)[0]
    middle = started + timedelta(hours=1)
    assert select_events(engine.database, until=middle).ids == [early]
    assert select_events(engine.database, since=middle).ids == [late]


def test_replay_of_many_events_reports_progress(engine: Engine) -> None:
    event_ids = routed(engine, 3)
    progress: list[int] = []
    replay_events(engine, event_ids, rule="log", on_progress=progress.append)
    assert sum(progress) == 3


# ---------------------------------------------------------------- rejected requests


def rejected_request(engine: Engine, **changes: Any) -> str:
    now = engine.database.clock.now()
    body = json.dumps(refresh_sample(sample("call.busy"), now)).encode()
    rejected = RejectedRequest("timestamp_off", "the timestamp is +400 s away", 401, True, now, body)
    record_rejected_requests(engine.database, [replace(rejected, **changes)])
    request_id: str = list_rejected_requests(engine.database).items[0]["id"]
    return request_id


def test_accepted_request_becomes_an_event(engine: Engine) -> None:
    request_id = rejected_request(engine)
    result = accept_rejected_request(engine.database, "ada", request_id)
    stored = list_events(engine.database).items[0]
    assert (result.done, result.text) == (True, f"accepted as {stored['id']}")
    assert list_rejected_requests(engine.database).items[0]["accepted_event_id"] == stored["id"]
    assert not accept_rejected_request(engine.database, "ada", request_id).done
    assert audited(engine) == [("ada", "accept", request_id)]


def test_accepted_request_of_stored_event_is_not_stored_twice(engine: Engine) -> None:
    event = engine.event()
    request_id = rejected_request(engine, body=json.dumps(dict(event.body)).encode())
    result = accept_rejected_request(engine.database, "ada", request_id)
    assert (result.done, result.text) == (True, f"it was already stored as {event.id}")
    assert len(list_events(engine.database).items) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"signature_valid": False}, "it has no valid signature"),
        ({"body": b"[]", "reason": "not_json"}, "not a valid event"),
    ],
)
def test_unsigned_or_invalid_request_is_not_accepted(engine: Engine, changes: Any, text: str) -> None:
    result = accept_rejected_request(engine.database, "ada", rejected_request(engine, **changes))
    assert (result.done, text in result.text) == (False, True)
    assert list_events(engine.database).items == []


@pytest.mark.parametrize("changes", [{}, {"webhookId": "whd_other"}])
def test_accepted_conflict_becomes_an_event_beside_the_stored_one(
    engine: Engine, changes: dict[str, str]
) -> None:
    stored = engine.event()
    body = json.dumps(dict(stored.body) | {"summary": "another"} | changes).encode()
    event = read_event(body, stored.received_at)
    assert store_events(engine.database, [IncomingEvent(event, body)]) == ["conflict"]
    [request] = list_rejected_requests(engine.database).items
    assert stored.id in request["detail"]
    result = accept_rejected_request(engine.database, "ada", request["id"])
    ids = {item["id"] for item in list_events(engine.database).items}
    assert (result.done, len(ids), stored.id in ids) == (True, 2, True)
    assert result.text.removeprefix("accepted as ") in ids - {stored.id}
    assert not accept_rejected_request(engine.database, "ada", request["id"]).done


def test_accept_of_unknown_request_raises_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound):
        accept_rejected_request(engine.database, "ada", "rej_none")


# ---------------------------------------------------------------- pause, opt-outs


def test_pauses_and_opt_outs_are_audited_with_masked_address(engine: Engine) -> None:
    pause(engine.database, "desk", "lunch", "ada")
    resume(engine.database, "desk", "ada")
    save_opt_out(engine.database, OptOutChange("sms", PHONE, True, "command line", "ada"))
    assert [(action, target) for _, action, target in audited(engine)] == [
        ("opt_out", "+121***67"), ("resume", "desk"), ("pause", "desk"),
    ]  # fmt: skip


# ---------------------------------------------------------------- erase

SECRET = b"a secret of the bridge"


def test_erased_contact_is_not_in_the_database(engine: Engine) -> None:
    routed(engine)
    pending = engine.deliver("send", engine.event(), run_at=engine.database.clock.now() + timedelta(hours=1))
    erased = erase(engine.database, "ada", PHONE, [SECRET])
    assert (erased.events, erased.deliveries, erased.cancelled, erased.in_progress) == (2, 3, 1, 0)
    assert engine.show(pending)["state"] == "cancelled"
    assert PHONE not in dump(engine.database)
    assert PHONE[1:] not in dump(engine.database)
    assert list_audit_entries(engine.database)[0]["target"] == "+121***67"


def test_erasure_keeps_data_of_other_contacts(engine: Engine) -> None:
    other = engine.event(metadata={"contactPhone": "+14155550188"})
    sent = engine.deliver("send", other)
    engine.run_due()
    erase(engine.database, "ada", PHONE, [SECRET])
    assert show_event(engine.database, other.id)["body"] is not None
    assert engine.show(sent)["recipient"] == "+14155550188"


def test_erasure_includes_summaries_and_rejected_requests(engine: Engine) -> None:
    event = engine.event(
        metadata={"contactPhone": "+14155550188"}, summary="Call Maya at maya@example.com instead."
    )
    rejected_request(engine, body=b'{"event": "x", "metadata": {"contactEmail": "maya@example.com"}}')
    erased = erase(engine.database, "ada", "maya@example.com", [SECRET])
    assert (erased.events, erased.rejected_requests) == (1, 1)
    assert show_event(engine.database, event.id)["body"] is None
    assert "maya@example.com" not in dump(engine.database)


def test_opt_out_applies_after_erasure(engine: Engine) -> None:
    save_opt_out(engine.database, OptOutChange("sms", PHONE, True, "STOP to desk"))
    assert erase(engine.database, "ada", PHONE, [SECRET]).opt_outs == 1
    assert [item["address"] for item in list_opt_outs(engine.database).items] == hash_address([SECRET], PHONE)
    engine.policy_config = replace(engine.policy_config, hash_address=partial(hash_address, [SECRET]))
    forced = engine.deliver("send")
    engine.run_due()
    assert (engine.provider.messages, engine.show(forced)["reason"]) == ([], "opted_out")


def test_opt_in_after_erasure_allows_messages(engine: Engine) -> None:
    save_opt_out(engine.database, OptOutChange("sms", PHONE, True, "STOP to desk"))
    erase(engine.database, "ada", PHONE, [SECRET])
    engine.database.clock.advance(minutes=1)
    save_opt_out(engine.database, OptOutChange("sms", PHONE, False, "START to desk"))
    engine.policy_config = replace(engine.policy_config, hash_address=partial(hash_address, [SECRET]))
    engine.deliver("send")
    engine.run_due()
    assert len(engine.provider.messages) == 1


def test_erasure_of_opted_out_address_requires_secret_key(engine: Engine) -> None:
    save_opt_out(engine.database, OptOutChange("sms", PHONE, True, "STOP to desk"))
    with pytest.raises(ConfigError, match="BRIDGE_SECRET_KEY"):
        erase(engine.database, "ada", PHONE, ())
    assert [item["address"] for item in list_opt_outs(engine.database).items] == [PHONE]


def test_erased_delivery_in_review_is_not_sent_again(engine: Engine) -> None:
    delivery_id = needing_review(engine)
    erase(engine.database, "ada", PHONE, [SECRET])
    engine.run_for(minutes=5)
    assert engine.show(delivery_id)["state"] == "cancelled"
    assert len(engine.provider.messages) == 1


def test_erasure_leaves_running_delivery_for_the_next_erasure(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    calls = engine.claim()
    assert erase(engine.database, "ada", PHONE, [SECRET]).in_progress == 1
    record_results(engine.database, engine.attempt(calls[0]))
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert erase(engine.database, "ada", PHONE, [SECRET]).deliveries == 1
    assert PHONE not in dump(engine.database)


def dump(database: Database) -> str:
    """Return every value of every table as a string; on SQLite also the bytes of the file."""
    values = []
    with database.read() as conn:
        for table in schema.metadata.sorted_tables:
            for row in conn.execute(select(table)):
                values += [
                    value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                    for value in row
                ]
    if database.is_sqlite:
        path = database.url.removeprefix("sqlite:///")
        raw = sqlite3.connect(path)
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.close()
        with open(path, "rb") as file:
            values.append(file.read().decode("latin-1"))
    return "\n".join(values)


@pytest.mark.parametrize("how", ["lookup", "resolved", "unresolved"])
def test_failed_forced_replay_does_not_release_key_with_unknown_outcome(engine: Engine, how: str) -> None:
    use = "send" if how == "lookup" else "mail"
    event = engine.event(metadata={"contactEmail": "a@example.com", "contactPhone": PHONE})
    engine.provider.after = raising(OutcomeUnknown("reset"))
    first = engine.deliver(use, event)
    engine.run_due()
    engine.provider.after = None
    engine.provider.before = raising(PermanentError("no"))
    forced = engine.deliver(use, event, force=True)
    engine.run_due()
    assert engine.show(forced)["state"] == "failed"
    engine.provider.before = None
    if how == "resolved":
        assert resolve(engine.database, "ada", first, "delivered").done
    engine.run_for(seconds=30)
    plain = engine.deliver(use, event)
    engine.run_due()
    assert engine.show(plain)["state"] == ("pending" if how == "unresolved" else "suppressed")
    assert len(engine.provider.messages) == 1


@pytest.mark.parametrize("how", ["delivered", "discard", "cancel"])
def test_completed_key_survives_forced_replay(engine: Engine, how: str) -> None:
    event = engine.event(metadata={"contactEmail": "a@example.com", "contactPhone": PHONE})
    engine.provider.after = raising(OutcomeUnknown("reset"))
    first = engine.deliver("mail", event)
    engine.run_due()
    engine.provider.after = None
    engine.provider.before = raising(TransientError("later", retry_after=timedelta(hours=1)))
    forced = engine.deliver("mail", event, force=True)
    engine.run_due()
    engine.provider.before = None
    assert (engine.show(first)["state"], engine.show(forced)["state"]) == ("needs_review", "retrying")
    if how == "cancel":
        assert all(result.done for result in cancel(engine.database, "ada", [first, forced]))
    else:
        assert resolve(engine.database, "ada", first, how).done  # type: ignore[arg-type]
        assert cancel(engine.database, "ada", [forced])[0].done
    plain = engine.deliver("mail", event)
    engine.run_due()
    assert (engine.show(plain)["state"], len(engine.provider.messages)) == ("suppressed", 1)


def test_erasure_leaves_no_key_reserved(engine: Engine) -> None:
    event = engine.event(metadata={"contactEmail": "a@example.com", "contactPhone": PHONE})
    engine.provider.after = raising(OutcomeUnknown("reset"))
    engine.deliver("mail", event)
    engine.run_due()
    engine.provider.after = None
    engine.provider.before = raising(TransientError("later", retry_after=timedelta(hours=1)))
    engine.deliver("mail", event, force=True)
    engine.run_due()
    erase(engine.database, "ada", PHONE, ())
    with engine.database.read() as conn:
        rows = conn.execute(select(schema.idempotency_keys)).all()
    assert [row.reserved_by for row in rows] == [None]
    assert rows[0].completed_by is not None
