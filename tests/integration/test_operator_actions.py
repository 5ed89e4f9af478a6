"""What people do to stored work, on both databases: what is done, what is refused and why, and what the audit says."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from bridge.connector import Success
from bridge.connector.discovery import Registry
from bridge.errors import ConfigError, OutcomeUnknown, PermanentError, TransientError
from bridge.events import Event
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.samples import sample, stamped
from bridge.store import schema
from bridge.store.audit_log import entries
from bridge.store.connections import pause, resume
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from bridge.store.operator_actions import (
    Act,
    accept_rejected_request,
    cancel,
    events_between,
    replay,
    resolve,
    retry,
)
from bridge.store.opt_outs import Preference, kept_as, opt_outs, set_preference
from bridge.store.queries import NotFound, list_deliveries, list_events, list_rejected_requests, show_event
from bridge.store.results import finish
from bridge.store.retention import prune
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine

PHONE = "+12125550167"


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def failing(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail


def dead(engine: Engine, **planned: Any) -> str:
    """A delivery that the partner refused."""
    engine.partner.before = failing(PermanentError("no such number"))
    ident = engine.deliver("send", **planned)
    engine.lookup_delay()
    engine.partner.before = None
    assert engine.show(ident)["state"] == "failed"
    return ident


def in_review(engine: Engine) -> str:
    """A delivery that went out, whose answer was lost, and whose partner cannot tell."""
    engine.partner.after = failing(OutcomeUnknown("reset"))
    engine.partner.can_tell = False
    ident = engine.deliver("send")
    engine.lookup_delay()
    engine.database.clock.advance(seconds=10)
    engine.lookup_delay()
    engine.partner.after = None
    assert engine.show(ident)["state"] == "needs_review"
    return ident


def audited(engine: Engine) -> list[tuple[str, str, str]]:
    return [(entry["actor"], entry["action"], entry["target"]) for entry in entries(engine.database)]


# ---------------------------------------------------------------- retry


def test_a_dead_delivery_is_attempted_again_with_a_fresh_schedule(engine: Engine) -> None:
    ident = dead(engine)
    engine.database.clock.advance(days=10)
    assert retry(engine.database, "ada", [ident]) == [Act(ident, True, "attempted again now")]
    engine.lookup_delay()
    assert engine.partner.texts == [(ident, PHONE)]
    assert engine.show(ident)["state"] == "succeeded"
    assert audited(engine) == [("ada", "retry", ident)]


def test_a_retrying_delivery_does_not_wait_any_longer(engine: Engine) -> None:
    engine.partner.before = failing(ConnectionRefusedError())
    ident = engine.deliver("send")
    engine.connector.classify_error(
        lambda error: None if not isinstance(error, ConnectionRefusedError) else _refused()
    )
    engine.lookup_delay()
    engine.partner.before = None
    assert engine.show(ident)["state"] == "retrying"
    assert retry(engine.database, "ada", [ident])[0].done
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"


def _refused() -> Exception:
    from bridge.errors import TransientError

    return TransientError("no connection", reason="network")


def test_a_delivery_in_review_is_not_retried_but_pointed_to_resolve(engine: Engine) -> None:
    ident = in_review(engine)
    act = retry(engine.database, "ada", [ident])[0]
    assert not act.done
    assert f"bridge resolve {ident}" in act.text
    engine.lookup_delay()
    assert len(engine.partner.texts) == 1
    assert audited(engine) == []


def test_what_is_expired_sent_unknown_or_emptied_is_not_retried(engine: Engine) -> None:
    late = dead(engine, expires_at=engine.database.clock.now() + timedelta(hours=1))
    old = dead(engine)
    sent = engine.deliver("send")
    engine.lookup_delay()
    engine.database.clock.advance(days=40)
    prune(engine.database, timedelta(days=30), Rules("", "rules"))
    texts = [act.text for act in retry(engine.database, "ada", [late, old, sent, "dlv_none", "evt_x"])]
    assert "no longer kept" in texts[0]
    assert "no longer kept" in texts[1]
    assert "it is sent" in texts[2]
    assert texts[3] == "there is no such delivery"
    assert "`bridge replay` takes events" in texts[4]


def test_a_message_past_its_expiry_is_not_retried(engine: Engine) -> None:
    ident = dead(engine, expires_at=engine.database.clock.now() + timedelta(hours=1))
    engine.database.clock.advance(hours=2)
    act = retry(engine.database, "ada", [ident])[0]
    assert (act.done, "only worth sending until" in act.text) == (False, True)


# ---------------------------------------------------------------- cancel and resolve


def test_a_cancelled_delivery_frees_its_effect_when_nothing_can_have_happened(engine: Engine) -> None:
    event = engine.event()
    first = engine.deliver("send", event)
    assert cancel(engine.database, "ada", [first]) == [Act(first, True, "cancelled")]
    second = engine.deliver("send", event)
    engine.lookup_delay()
    assert [ident for ident, _ in engine.partner.texts] == [second]
    assert engine.show(first)["state"] == "cancelled"


def test_a_cancelled_review_keeps_its_effect_so_that_nothing_texts_again(engine: Engine) -> None:
    first = in_review(engine)
    assert cancel(engine.database, "ada", [first])[0].done
    event = _event_of(engine, first)
    second = engine.deliver("send", event)
    engine.lookup_delay()
    assert len(engine.partner.texts) == 1
    shown = engine.show(second)
    assert (shown["state"], shown["reason"]) == ("suppressed", "duplicate")


def _event_of(engine: Engine, delivery: str) -> Event:
    from bridge.store.queries import stored_event

    return stored_event(engine.database, engine.show(delivery)["event_id"])


def test_what_runs_or_is_done_cannot_be_cancelled(engine: Engine) -> None:
    running = engine.deliver("send")
    engine.claim()
    assert (
        cancel(engine.database, "ada", [running])[0].text == "it is sending; only what waits can be cancelled"
    )
    assert engine.show(running)["state"] == "running"


def test_a_review_found_at_the_partner_is_sent_and_holds_its_effect(engine: Engine) -> None:
    first = in_review(engine)
    assert resolve(engine.database, "ada", first, "delivered", "SM77").done
    shown = engine.show(first)
    assert (shown["state"], shown["external_id"], shown["detail"]) == ("succeeded", "SM77", "found by ada")
    second = engine.deliver("send", _event_of(engine, first))
    engine.lookup_delay()
    assert engine.show(second)["reason"] == "duplicate"
    assert len(engine.partner.texts) == 1
    assert entries(engine.database)[0]["detail"] == {"resolution": "delivered"}


def test_a_review_not_found_at_the_partner_is_sent_again(engine: Engine) -> None:
    ident = in_review(engine)
    engine.partner.texts.clear()
    assert resolve(engine.database, "ada", ident, "retry").done
    engine.lookup_delay()
    assert engine.partner.texts == [(ident, PHONE)]
    assert engine.show(ident)["state"] == "succeeded"


def test_a_dropped_review_ends_and_nothing_sends_it_again(engine: Engine) -> None:
    first = in_review(engine)
    assert resolve(engine.database, "ada", first, "discard").done
    second = engine.deliver("send", _event_of(engine, first))
    engine.lookup_delay()
    assert engine.show(first)["state"] == "cancelled"
    assert engine.show(second)["reason"] == "duplicate"


def test_only_reviews_are_resolved(engine: Engine) -> None:
    ident = dead(engine)
    for resolution in ("delivered", "retry", "discard"):
        assert not resolve(engine.database, "ada", ident, resolution).done
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


def replayed(engine: Engine, idents: list[str], **options: Any) -> Any:
    rules = rules_of(engine)
    return replay(
        engine.database, "ada", idents, rules, lambda event, now: route(event, rules, now), **options
    )


def routed(engine: Engine, count: int = 1) -> list[str]:
    for _ in range(count):
        engine.event()
    rules = rules_of(engine)
    route_unrouted(engine.database, rules, lambda event, now: route(event, rules, now))
    engine.lookup_delay()
    return [item["id"] for item in list_events(engine.database, limit=100).items]


def test_a_replay_texts_nobody_twice_and_updates_the_record(engine: Engine) -> None:
    ident = routed(engine)[0]
    assert len(engine.partner.texts) == 1
    result = replayed(engine, [ident])[0]
    engine.run_for(seconds=10)
    assert len(result.deliveries) == 2
    assert len(engine.partner.texts) == 1
    states = {engine.show(one)["action"]: engine.show(one) for one in result.deliveries}
    assert states["desk.send"]["reason"] == "duplicate"
    assert (states["desk.record"]["state"], states["desk.record"]["detail"]) == ("succeeded", "updated")
    assert entries(engine.database)[0]["detail"] == {"deliveries": 2, "rules": rules_of(engine).hash[:12]}


def test_a_replay_with_again_texts_once_more_and_says_so_in_the_audit(engine: Engine) -> None:
    ident = routed(engine)[0]
    replayed(engine, [ident], rule="text", force=True)
    engine.lookup_delay()
    assert len(engine.partner.texts) == 2
    assert entries(engine.database)[0]["detail"]["force"] is True


def test_a_replay_uses_the_rules_of_today(engine: Engine) -> None:
    ident = routed(engine)[0]
    rules = rules_of(engine, RULES.replace("name: text", "name: renamed").replace("hello", "other words"))
    result = replay(
        engine.database, "ada", [ident], rules, lambda event, now: route(event, rules, now), rule="renamed"
    )
    engine.lookup_delay()
    shown = engine.show(result[0].deliveries[0])
    assert (shown["rule"], shown["params"]["body"]) == ("renamed", "other words")
    assert shown["reason"] == "duplicate"
    assert len(engine.partner.texts) == 1


def test_what_cannot_be_replayed_is_said(engine: Engine) -> None:
    unrouted = engine.event().id
    results = replayed(engine, [unrouted, "evt_none"])
    assert [item.skipped for item in results] == [
        "it is not routed yet; it will be by itself",
        "there is no such event",
    ]
    assert list_deliveries(engine.database).items == []


def test_events_are_chosen_by_when_they_came(engine: Engine) -> None:
    begun = engine.database.clock.now()
    early = routed(engine)[0]
    engine.database.clock.advance(hours=2)
    late = routed(engine)[0]
    middle = begun + timedelta(hours=1)
    assert events_between(engine.database, None, middle) == [early]
    assert events_between(engine.database, middle, None) == [late]


def test_many_events_are_replayed_in_groups_with_progress(engine: Engine) -> None:
    idents = routed(engine, 3)
    seen: list[int] = []
    replayed(engine, idents, rule="log", on_progress=seen.append)
    assert sum(seen) == 3


# ---------------------------------------------------------------- rejections


def rejected_request(engine: Engine, **changes: Any) -> str:
    now = engine.database.clock.now()
    body = json.dumps(stamped(sample("call.busy"), now)).encode()
    given = RejectedRequest("timestamp_off", "the timestamp is +400 s away", 401, True, now, body)
    record_rejected_requests(engine.database, [replace(given, **changes)])
    ident: str = list_rejected_requests(engine.database).items[0]["id"]
    return ident


def test_a_signed_request_that_was_refused_becomes_an_event(engine: Engine) -> None:
    ident = rejected_request(engine)
    act = accept_rejected_request(engine.database, "ada", ident)
    stored = list_events(engine.database).items[0]
    assert (act.done, act.text) == (True, f"accepted as {stored['id']}")
    assert list_rejected_requests(engine.database).items[0]["accepted_event_id"] == stored["id"]
    assert not accept_rejected_request(engine.database, "ada", ident).done
    assert audited(engine) == [("ada", "accept", ident)]


def test_an_event_that_came_again_meanwhile_is_not_stored_twice(engine: Engine) -> None:
    event = engine.event()
    ident = rejected_request(engine, body=json.dumps(dict(event.body)).encode())
    act = accept_rejected_request(engine.database, "ada", ident)
    assert (act.done, act.text) == (True, f"it was stored before, as {event.id}")
    assert len(list_events(engine.database).items) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"signed": False}, "it was not signed"),
        ({"body": b"[]", "kind": "not_json"}, "it is no event"),
        ({"kind": "conflict"}, "an event with the same id and another body is stored"),
    ],
)
def test_what_is_no_event_of_heppus_is_not_accepted(engine: Engine, changes: Any, text: str) -> None:
    act = accept_rejected_request(engine.database, "ada", rejected_request(engine, **changes))
    assert (act.done, text in act.text) == (False, True)
    assert list_events(engine.database).items == []


def test_an_unknown_rejection_is_said(engine: Engine) -> None:
    with pytest.raises(NotFound):
        accept_rejected_request(engine.database, "ada", "rej_none")


# ---------------------------------------------------------------- pause, opt-outs


def test_pauses_and_opt_outs_are_audited_without_the_address(engine: Engine) -> None:
    pause(engine.database, "desk", "lunch", "ada")
    resume(engine.database, "desk", "ada")
    set_preference(engine.database, Preference("sms", PHONE, True, "command line"), "ada")
    assert [(act, subject) for _, act, subject in audited(engine)] == [
        ("opt out", "+121***67"), ("resume", "desk"), ("pause", "desk"),
    ]  # fmt: skip


# ---------------------------------------------------------------- erase

SECRET = b"a secret of the bridge"


def test_an_erased_person_is_nowhere_any_more(engine: Engine) -> None:
    routed(engine)
    waiting = engine.deliver("send", engine.event(), run_at=engine.database.clock.now() + timedelta(hours=1))
    erased = erase(engine.database, "ada", PHONE, SECRET)
    assert (erased.events, erased.deliveries, erased.cancelled, erased.under_way) == (2, 3, 1, 0)
    assert engine.show(waiting)["state"] == "cancelled"
    assert PHONE not in dump(engine.database)
    assert PHONE[1:] not in dump(engine.database)
    assert entries(engine.database)[0]["target"] == "+121***67"


def test_what_speaks_of_somebody_else_stays(engine: Engine) -> None:
    other = engine.event(metadata={"contactPhone": "+14155550188"})
    sent = engine.deliver("send", other)
    engine.lookup_delay()
    erase(engine.database, "ada", PHONE, SECRET)
    assert show_event(engine.database, other.id)["body"] is not None
    assert engine.show(sent)["recipient"] == "+14155550188"


def test_an_address_in_a_summary_or_a_refused_request_is_erased_too(engine: Engine) -> None:
    event = engine.event(
        metadata={"contactPhone": "+14155550188"}, summary="Call Maya at maya@example.com instead."
    )
    rejected_request(engine, body=b'{"event": "x", "metadata": {"contactEmail": "maya@example.com"}}')
    erased = erase(engine.database, "ada", "maya@example.com", SECRET)
    assert (erased.events, erased.rejected_requests) == (1, 1)
    assert show_event(engine.database, event.id)["body"] is None
    assert "maya@example.com" not in dump(engine.database)


def test_an_erased_person_who_opted_out_is_still_not_written_to(engine: Engine) -> None:
    set_preference(engine.database, Preference("sms", PHONE, True, "STOP to desk"))
    assert erase(engine.database, "ada", PHONE, SECRET).opt_outs == 1
    assert [item["address"] for item in opt_outs(engine.database)] == [kept_as(SECRET, PHONE)]
    engine.rulebook = replace(engine.rulebook, erased_as=partial(kept_as, SECRET))
    force = engine.deliver("send")
    engine.lookup_delay()
    assert (engine.partner.texts, engine.show(force)["reason"]) == ([], "opted_out")


def test_whoever_takes_the_wish_back_after_erasure_is_written_to_again(engine: Engine) -> None:
    set_preference(engine.database, Preference("sms", PHONE, True, "STOP to desk"))
    erase(engine.database, "ada", PHONE, SECRET)
    engine.database.clock.advance(minutes=1)
    set_preference(engine.database, Preference("sms", PHONE, False, "START to desk"))
    engine.rulebook = replace(engine.rulebook, erased_as=partial(kept_as, SECRET))
    engine.deliver("send")
    engine.lookup_delay()
    assert len(engine.partner.texts) == 1


def test_without_a_secret_an_opt_out_is_not_lost(engine: Engine) -> None:
    set_preference(engine.database, Preference("sms", PHONE, True, "STOP to desk"))
    with pytest.raises(ConfigError, match="BRIDGE_SECRET_KEY"):
        erase(engine.database, "ada", PHONE, None)
    assert [item["address"] for item in opt_outs(engine.database)] == [PHONE]


def test_an_erased_review_is_never_sent_again(engine: Engine) -> None:
    ident = in_review(engine)
    erase(engine.database, "ada", PHONE, SECRET)
    engine.run_for(minutes=5)
    assert engine.show(ident)["state"] == "cancelled"
    assert len(engine.partner.texts) == 1


def test_what_is_just_being_attempted_is_left_for_the_next_time(engine: Engine) -> None:
    ident = engine.deliver("send")
    calls = engine.claim()
    assert erase(engine.database, "ada", PHONE, SECRET).under_way == 1
    from bridge.store.results import finish

    finish(engine.database, engine.attempt(calls[0]))
    assert engine.show(ident)["state"] == "succeeded"
    assert erase(engine.database, "ada", PHONE, SECRET).deliveries == 1
    assert PHONE not in dump(engine.database)


def dump(database: Database) -> str:
    """Every value of every table, as text; on SQLite also the bytes of the file itself."""
    from sqlalchemy import select

    from bridge.store import schema

    found = []
    with database.read() as connection:
        for table in schema.metadata.sorted_tables:
            for row in connection.execute(select(table)):
                found += [
                    value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                    for value in row
                ]
    if database.is_sqlite:
        path = database.url.removeprefix("sqlite:///")
        raw = sqlite3.connect(path)
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.close()
        with open(path, "rb") as file:
            found.append(file.read().decode("latin-1"))
    return "\n".join(found)


@pytest.mark.parametrize("how", ["looked up", "resolved", "still in review"])
def test_an_again_that_fails_does_not_free_what_an_earlier_attempt_may_have_done(
    engine: Engine, how: str
) -> None:
    use = "send" if how == "looked up" else "mail"
    event = engine.event(metadata={"contactEmail": "a@example.com", "contactPhone": PHONE})
    engine.partner.after = failing(OutcomeUnknown("reset"))
    first = engine.deliver(use, event)
    engine.lookup_delay()
    engine.partner.after = None
    engine.partner.before = failing(PermanentError("no"))
    force = engine.deliver(use, event, force=True)
    engine.lookup_delay()
    assert engine.show(force)["state"] == "failed"
    engine.partner.before = None
    if how == "resolved":
        assert resolve(engine.database, "ada", first, "delivered").done
    engine.run_for(seconds=30)
    plain = engine.deliver(use, event)
    engine.lookup_delay()
    assert engine.show(plain)["state"] == ("pending" if how == "still in review" else "suppressed")
    assert len(engine.partner.texts) == 1


@pytest.mark.parametrize("how", ["delivered", "discard", "cancel"])
def test_what_went_out_stays_held_while_an_again_has_reserved_it(engine: Engine, how: str) -> None:
    event = engine.event(metadata={"contactEmail": "a@example.com", "contactPhone": PHONE})
    engine.partner.after = failing(OutcomeUnknown("reset"))
    first = engine.deliver("mail", event)
    engine.lookup_delay()
    engine.partner.after = None
    engine.partner.before = failing(TransientError("later", retry_after=timedelta(hours=1)))
    force = engine.deliver("mail", event, force=True)
    engine.lookup_delay()
    engine.partner.before = None
    assert (engine.show(first)["state"], engine.show(force)["state"]) == ("needs_review", "retrying")
    if how == "cancel":
        assert all(act.done for act in cancel(engine.database, "ada", [first, force]))
    else:
        assert resolve(engine.database, "ada", first, how).done  # type: ignore[arg-type]
        assert cancel(engine.database, "ada", [force])[0].done
    plain = engine.deliver("mail", event)
    engine.lookup_delay()
    assert (engine.show(plain)["state"], len(engine.partner.texts)) == ("suppressed", 1)


def test_an_erasure_leaves_no_effect_reserved(engine: Engine) -> None:
    event = engine.event(metadata={"contactEmail": "a@example.com", "contactPhone": PHONE})
    engine.partner.after = failing(OutcomeUnknown("reset"))
    engine.deliver("mail", event)
    engine.lookup_delay()
    engine.partner.after = None
    engine.partner.before = failing(TransientError("later", retry_after=timedelta(hours=1)))
    engine.deliver("mail", event, force=True)
    engine.lookup_delay()
    erase(engine.database, "ada", PHONE, None)
    with engine.database.read() as connection:
        rows = connection.execute(select(schema.idempotency_keys)).all()
    assert [row.reserved_by for row in rows] == [None]
    assert rows[0].completed_by is not None


def test_a_partner_that_numbers_what_it_makes_loses_no_success(engine: Engine) -> None:
    ident = engine.deliver("post")
    [call] = engine.claim()
    finish(engine.database, engine.conclude(call, [Success(12345)]))  # type: ignore[arg-type]
    assert (engine.show(ident)["state"], engine.show(ident)["external_id"]) == ("succeeded", "12345")
