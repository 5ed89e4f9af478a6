"""The transaction before every attempt and the table after it, on both databases."""

from __future__ import annotations

import itertools
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest

from bridge.errors import (
    AuthenticationError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.rules.model import Cap, Messaging, Once, QuietHours, Retry
from bridge.store.claim import LEASE
from bridge.store.connections import all_connections, pause, pause_values, resume
from bridge.store.contact_cache import StoredContactCache, zones_known
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.opt_outs import Preference, opt_outs, set_preference
from bridge.store.policy_inputs import Rulebook
from bridge.store.results import finish
from bridge.store.schema import connections
from bridge.worker.result_policy import CUT_SHORT_LIMIT
from tests.integration.engine import NO_QUIET, Engine

NUMBERS = itertools.count(1000)


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def raising(error: Exception) -> Any:
    def fail() -> NoReturn:
        raise copy(error)  # as a partner's client: an exception of its own for every request

    return fail


def once(engine: Engine, moment: str, error: Exception) -> None:
    """The partner fails once, `before` or `after` the effect."""

    def fail() -> NoReturn:
        setattr(engine.partner, moment, None)
        raise error

    setattr(engine.partner, moment, fail)


def test_a_due_delivery_is_sent_and_its_attempt_is_on_record(engine: Engine) -> None:
    ident = engine.deliver("send")
    engine.lookup_delay()
    shown = engine.show(ident)
    assert engine.partner.texts == [(ident, "+12125550167")]
    assert (shown["state"], shown["external_id"], shown["message_status"]) == (
        "succeeded",
        f"sms-{ident}",
        "queued",
    )
    assert [(tried["kind"], tried["outcome"]) for tried in shown["attempt_history"]] == [("send", "succeeded")]


def test_the_attempt_is_written_before_it_is_made(engine: Engine) -> None:
    ident = engine.deliver("send")
    engine.claim()
    assert engine.show(ident)["state"] == "running"
    assert engine.show(ident)["attempt_history"][0]["finished_at"] is None
    assert engine.partner.texts == []


def test_a_delivery_waits_for_its_time(engine: Engine) -> None:
    engine.deliver("send", run_at=engine.database.clock.now() + timedelta(minutes=5))
    assert engine.step() == 0
    engine.database.clock.advance(minutes=5)
    assert engine.step() == 1


def test_a_zone_that_a_crm_told_moves_the_quiet_hours_until_it_is_forgotten(engine: Engine) -> None:
    engine.rulebook = Rulebook(Messaging())
    clock = engine.database.clock
    # 08:30 in New York, as the number says, and 05:30 in Los Angeles
    clock.set(datetime(2026, 3, 2, 13, 30, tzinfo=UTC))
    StoredContactCache(engine.database, "hubspot").remember_zones({"+12125550167": "America/Los_Angeles"})
    ident = engine.deliver("send")
    engine.lookup_delay()
    assert engine.partner.texts == []
    assert "in America/Los_Angeles, as the CRM says" in engine.show(ident)["detail"]
    with engine.database.read() as connection:
        assert zones_known(connection, ["+12125550167"], clock.now() + timedelta(days=8)) == {}
    erase(engine.database, "test", "+12125550167", None)
    with engine.database.read() as connection:
        assert zones_known(connection, ["+12125550167"], clock.now()) == {}


def test_an_alert_by_text_goes_out_at_night(engine: Engine) -> None:
    engine.rulebook = Rulebook(Messaging())
    engine.database.clock.set(datetime(2026, 3, 3, 3, 0, tzinfo=UTC))
    team = {"channel": "sms", "recipient": "+12025550100", "params": {"to": "+12025550100"}}
    waits = engine.deliver("send")
    alert = engine.deliver("send", trigger="alert", idempotency_key="alert", concurrency_key=None, **team)
    engine.lookup_delay()
    assert [ident for ident, _ in engine.partner.texts] == [alert]
    assert engine.show(waits)["state"] == "pending"


def test_nothing_else_of_a_lane_runs_while_one_runs(engine: Engine) -> None:
    event = engine.event()
    engine.deliver("send", event)
    engine.deliver("record", event)
    first = engine.claim()
    assert len(first) == 1
    assert engine.claim() == []
    finish(engine.database, engine.attempt(first[0]))
    assert len(engine.claim()) == 1


def test_a_full_lane_does_not_keep_others_waiting(engine: Engine) -> None:
    crowd = engine.event()
    for number in range(450):
        engine.deliver("post", crowd, concurrency_key="desk|crowd", idempotency_key=f"post {number}")
    other = engine.deliver("send", engine.event(metadata={"contactPhone": "+12125550999"}))
    engine.step()
    assert engine.show(other)["state"] == "succeeded"


def test_a_proven_failure_is_tried_again_on_schedule(engine: Engine) -> None:
    once(engine, "before", TransientError("down for a moment", reason="network"))
    ident = engine.deliver("send")
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "retrying"
    engine.run_for(seconds=15)
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1


def test_the_partners_own_wish_for_the_next_attempt_is_honoured(engine: Engine) -> None:
    once(engine, "before", TransientError("busy", retry_after=timedelta(minutes=30)))
    ident = engine.deliver("send")
    engine.lookup_delay()
    engine.database.clock.advance(minutes=29, seconds=59)
    assert engine.step() == 0
    engine.database.clock.advance(seconds=1)
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"


def test_a_refusal_is_final_and_frees_the_effect(engine: Engine) -> None:
    once(engine, "before", PermanentError("no such number"))
    event = engine.event()
    first = engine.deliver("send", event)
    engine.lookup_delay()
    assert engine.show(first)["state"] == "failed"
    second = engine.deliver("send", event)
    engine.lookup_delay()
    assert engine.show(second)["state"] == "succeeded"


def test_an_unknown_outcome_is_looked_up_and_found(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    ident = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1
    assert [tried["outcome"] for tried in engine.show(ident)["attempt_history"]] == ["outcome_unknown", "lookup_found"]


def test_an_unknown_outcome_that_did_not_happen_is_attempted_again(engine: Engine) -> None:
    once(engine, "before", OutcomeUnknown("no answer"))
    ident = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1
    assert [tried["outcome"] for tried in engine.show(ident)["attempt_history"]] == [
        "outcome_unknown",
        "lookup_not_found",
        "succeeded",
    ]


def test_our_own_bug_is_an_unknown_outcome(engine: Engine) -> None:
    once(engine, "after", KeyError("oops"))
    ident = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1


def test_what_cannot_be_told_waits_for_a_person(engine: Engine) -> None:
    engine.partner.can_tell = False
    once(engine, "after", OutcomeUnknown("no answer"))
    ident = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(ident)["state"] == "needs_review"
    assert engine.show(ident)["needs_follow_up"]


def test_a_lookup_that_fails_by_itself_is_tried_for_two_minutes(engine: Engine) -> None:
    engine.partner.looked_up = raising(KeyError("a bug of ours"))
    once(engine, "after", OutcomeUnknown("no answer"))
    ident = engine.deliver("send")
    engine.run_for(seconds=110)
    assert engine.show(ident)["state"] == "retrying"
    engine.run_for(seconds=20)
    assert engine.show(ident)["state"] == "needs_review"


def test_an_outage_of_the_partner_sends_no_lookup_to_review(engine: Engine) -> None:
    away = raising(OutcomeUnknown("503", reason="server_error"))
    engine.partner.after = engine.partner.looked_up = away
    idents = [
        engine.deliver("send", engine.event(metadata={"contactPhone": f"+1212555010{number}"}))
        for number in range(6)
    ]
    engine.run_for(minutes=20)
    assert set(engine.states()) == {"retrying"}
    engine.partner.after = engine.partner.looked_up = None
    engine.run_for(minutes=2)
    assert set(engine.states()) == {"succeeded"}
    assert sorted(ident for ident, _ in engine.partner.texts) == sorted(idents)


def test_without_a_lookup_an_unknown_outcome_waits_for_a_person_at_once(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    ident = engine.deliver("mail", engine.event("chat.resolved"))
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "needs_review"


def test_a_second_delivery_of_an_effect_whose_outcome_is_unknown_waits(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    event = engine.event()
    engine.deliver("send", event)
    engine.lookup_delay()
    second = engine.deliver("send", event)
    engine.run_for(minutes=2)
    assert engine.show(second)["reason"] == "duplicate"
    assert len(engine.partner.texts) == 1


def test_a_repeatable_action_is_repeated_after_an_unknown_outcome(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer", reason="server_error"))
    ident = engine.deliver("record")
    engine.run_for(seconds=20)
    assert engine.show(ident)["state"] == "succeeded"
    assert engine.partner.calls == [1, 1]


def test_the_same_message_twice_is_one_message(engine: Engine) -> None:
    event = engine.event()
    engine.deliver("send", event)
    engine.lookup_delay()
    second = engine.deliver("send", event)
    engine.lookup_delay()
    assert engine.show(second)["reason"] == "duplicate"
    assert len(engine.partner.texts) == 1


def test_again_sends_what_is_already_done(engine: Engine) -> None:
    event = engine.event()
    engine.deliver("send", event)
    engine.lookup_delay()
    engine.deliver("send", event, force=True)
    engine.lookup_delay()
    assert len(engine.partner.texts) == 2


def test_a_later_event_updates_the_one_record_and_an_older_one_is_superseded(engine: Engine) -> None:
    first = engine.event("chat.completed")
    engine.database.clock.advance(seconds=5)
    later = engine.event("chat.completed", conversationId=first.conversation.id)
    engine.deliver("record", later, params={"title": "later"})
    engine.lookup_delay()
    old = engine.deliver("record", first, params={"title": "first"})
    engine.lookup_delay()
    assert engine.show(old)["reason"] == "superseded"
    assert list(engine.partner.records.values()) == ["later"]


def test_resolved_wins_over_a_later_completed(engine: Engine) -> None:
    resolved = engine.event("chat.resolved")
    engine.database.clock.advance(seconds=5)
    completed = engine.event("chat.completed", conversationId=resolved.conversation.id)
    engine.deliver("record", resolved, params={"title": "resolved"})
    engine.lookup_delay()
    late = engine.deliver("record", completed, params={"title": "completed"})
    engine.lookup_delay()
    assert engine.show(late)["reason"] == "superseded"
    assert list(engine.partner.records.values()) == ["resolved"]


def test_a_batch_takes_many_deliveries_in_one_call_and_one_lane_once(engine: Engine) -> None:
    for number in range(120):
        engine.deliver("record", engine.event(metadata={"contactPhone": f"+1212555{number // 2:04d}"}))
    engine.lookup_delay()
    assert engine.partner.calls == [60, 60]
    assert engine.states() == {"succeeded": 120}


def test_a_refusal_of_the_whole_batch_is_split_and_uses_up_no_attempts(engine: Engine) -> None:
    bad = engine.deliver(
        "record", engine.event(metadata={"contactPhone": "+12125559999"}), params={"title": "bad"}
    )
    for number in range(9):
        engine.deliver("record", engine.event(metadata={"contactPhone": f"+1212555{number:04d}"}))
    original = engine.connector.actions["record"].run

    def refuse(client: Any, jobs: Any) -> Any:
        if any(job.params.title == "bad" for job in jobs):
            raise PermanentError("one input is wrong")
        return original(client, jobs)

    engine.connector.actions["record"].run = refuse
    engine.lookup_delay()
    assert engine.show(bad)["state"] == "failed"
    assert engine.states() == {"succeeded": 9, "failed": 1}


def test_a_crash_between_the_attempt_and_its_end_is_looked_up(engine: Engine) -> None:
    ident = engine.deliver("send")
    [call] = engine.claim()
    engine.attempt(call)  # and then the process dies
    assert engine.take_over() == 0
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert engine.take_over() == 1
    engine.run_for(seconds=10)
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1


def test_a_request_that_failed_is_one_failure_however_many_deliveries_it_carried(engine: Engine) -> None:
    once(engine, "before", OutcomeUnknown("no answer", reason="server_error"))
    for _ in range(8):
        engine.deliver("record", engine.event(metadata={"contactPhone": f"+1212555{next(NUMBERS)}"}))
    assert engine.step() == 8
    assert engine.partner.calls == [8]
    assert [row["pause_cause"] for row in all_connections(engine.database)] == [None]


def test_attempts_that_our_own_end_cut_short_open_no_circuit(engine: Engine) -> None:
    for number in range(8):
        engine.deliver("send", engine.event(metadata={"contactPhone": f"+1212555010{number}"}))
    engine.slots = 8
    assert len(engine.claim()) == 8
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert engine.take_over() == 8
    assert [row["pause_cause"] for row in all_connections(engine.database)] == [None]


def test_what_is_cut_short_again_and_again_is_repeated_soon_until_it_looks_like_the_cause(
    engine: Engine,
) -> None:
    ident = engine.deliver("record")
    for _ in range(CUT_SHORT_LIMIT):
        assert len(engine.claim()) == 1
        engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
        engine.take_over()
        engine.database.clock.advance(seconds=5)
    assert (engine.show(ident)["state"], engine.show(ident)["attempts"]) == ("retrying", 0)
    engine.claim()
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    engine.take_over()
    assert engine.show(ident)["attempts"] == 1


def test_a_lookup_that_is_cut_short_does_not_end_in_review(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    ident = engine.deliver("send")
    engine.lookup_delay()
    engine.database.clock.advance(minutes=10)  # nobody served
    [[lookup]] = engine.claim()
    assert lookup.kind == "lookup"
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    engine.take_over()
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1


def test_who_comes_back_after_its_lease_was_taken_over_changes_nothing(engine: Engine) -> None:
    ident = engine.deliver("send")
    [call] = engine.claim()
    late = engine.attempt(call)
    engine.database.clock.advance(minutes=1)
    engine.take_over()
    engine.run_for(seconds=10)
    before = engine.show(ident)
    assert finish(engine.database, late) == [call[0]]
    after = engine.show(ident)
    assert (
        (before["state"], before["fencing_token"])
        == (after["state"], after["fencing_token"])
        == ("succeeded", 2)
    )


def test_an_opt_out_that_commits_first_stops_the_message(engine: Engine) -> None:
    ident = engine.deliver("send")
    set_preference(engine.database, Preference("sms", "+12125550167", True, "STOP to desk"))
    engine.lookup_delay()
    assert engine.show(ident)["reason"] == "opted_out"
    assert engine.partner.texts == []


def test_a_refusal_for_an_opt_out_is_remembered(engine: Engine) -> None:
    once(engine, "before", PermanentError("unsubscribed", opted_out=True))
    engine.deliver("send")
    engine.lookup_delay()
    assert [item["address"] for item in opt_outs(engine.database)] == ["+12125550167"]
    second = engine.deliver("send")
    engine.lookup_delay()
    assert engine.show(second)["reason"] == "opted_out"


def test_caps_count_over_all_rules_and_not_what_certainly_failed(engine: Engine) -> None:
    engine.rulebook = Rulebook(Messaging(quiet_hours=NO_QUIET, caps={"sms": Cap(1, timedelta(hours=24))}))
    once(engine, "before", PermanentError("no such number"))
    failed = engine.deliver("send", rule="a")
    engine.lookup_delay()
    first = engine.deliver("send", rule="b")
    engine.lookup_delay()
    second = engine.deliver("send", rule="c")
    engine.lookup_delay()
    assert [engine.show(ident)["state"] for ident in (failed, first, second)] == [
        "failed",
        "succeeded",
        "suppressed",
    ]
    engine.database.clock.advance(hours=25)
    third = engine.deliver("send", rule="c")
    engine.lookup_delay()
    assert engine.show(third)["state"] == "succeeded"


def test_in_quiet_hours_a_message_waits_for_the_morning(engine: Engine) -> None:
    from datetime import UTC, datetime, time

    engine.rulebook = Rulebook(Messaging(quiet_hours=QuietHours(time(20), time(8))))
    engine.database.clock.set(datetime(2026, 3, 3, 2, 30, tzinfo=UTC))  # 21:30 in New York
    ident = engine.deliver("send")
    engine.lookup_delay()
    shown = engine.show(ident)
    assert (shown["state"], shown["run_at"]) == ("pending", datetime(2026, 3, 3, 13, 0, tzinfo=UTC))
    engine.database.clock.set(datetime(2026, 3, 3, 13, 0, 1, tzinfo=UTC))
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"


def test_a_later_event_of_the_same_person_cancels(engine: Engine) -> None:
    busy = engine.event()
    ident = engine.deliver(
        "send", busy, run_at=engine.database.clock.now() + timedelta(minutes=5), cancel_on=("call.completed",)
    )
    engine.database.clock.advance(minutes=1)
    engine.event("call.completed", metadata={"contactPhone": "+12125550167"})
    engine.run_for(minutes=6)
    assert engine.show(ident)["state"] == "cancelled"
    assert engine.partner.texts == []


def test_an_older_event_cancels_nothing(engine: Engine) -> None:
    engine.event("call.completed", metadata={"contactPhone": "+12125550167"})
    engine.database.clock.advance(seconds=1)
    ident = engine.deliver("send", cancel_on=("call.completed",))
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"


def test_once_per_contact(engine: Engine) -> None:
    limit = Once("contact", timedelta(hours=24))
    first, second = engine.deliver("send", once=limit), engine.deliver("send", once=limit)
    engine.lookup_delay()
    states = {engine.show(ident)["state"] for ident in (first, second)}
    assert states == {"succeeded", "suppressed"}


def test_what_expires_is_suppressed_and_what_failed_until_then_is_given_up(engine: Engine) -> None:
    now = engine.database.clock.now()
    late = engine.deliver("send", run_at=now + timedelta(hours=2), expires_at=now + timedelta(hours=1))
    engine.run_for(hours=2)
    assert engine.show(late)["reason"] == "expired"
    engine.partner.before = raising(TransientError("down", reason="rejected"))
    now = engine.database.clock.now()
    failing = engine.deliver("send", expires_at=now + timedelta(minutes=30))
    engine.run_for(minutes=40)
    shown = engine.show(failing)
    assert (shown["state"], shown["reason"], shown["needs_follow_up"]) == ("failed", "rejected", True)


def test_a_rule_can_limit_its_retries(engine: Engine) -> None:
    engine.partner.before = raising(TransientError("down", reason="rejected"))
    ident = engine.deliver("send", retry=Retry(attempts=2))
    engine.run_for(minutes=2)
    assert engine.show(ident)["state"] == "failed"
    assert len(engine.partner.calls) == 2


def test_a_shadow_stops_short_of_sending(engine: Engine) -> None:
    ident = engine.deliver("send", shadow=True)
    engine.lookup_delay()
    assert engine.show(ident)["reason"] == "shadow"
    assert engine.partner.calls == []


def test_a_429_pauses_the_connection_and_uses_up_no_attempt(engine: Engine) -> None:
    once(engine, "before", RateLimited("slow down", retry_after=timedelta(minutes=2)))
    first = engine.deliver("send")
    second = engine.deliver("post", engine.event(metadata={"contactPhone": "+12125550001"}))
    engine.slots = 1
    engine.step()
    engine.database.clock.advance(seconds=119)
    assert engine.step() == 0
    engine.database.clock.advance(seconds=1)
    engine.lookup_delay()
    assert engine.show(first)["state"] == engine.show(second)["state"] == "succeeded"
    assert engine.show(first)["attempts"] == 1


def test_an_empty_quota_pauses_until_it_is_filled(engine: Engine) -> None:
    until = engine.database.clock.now() + timedelta(hours=5)
    once(engine, "before", QuotaExhausted("no calls left today", until=until))
    ident = engine.deliver("record")
    engine.step()
    [row] = all_connections(engine.database)
    assert (row["pause_cause"], row["paused_until"], row["alert_due"]) == ("quota", until, True)
    engine.run_for(hours=5, minutes=1)
    assert engine.show(ident)["state"] == "succeeded"


def test_wrong_credentials_pause_until_a_person_resumes(engine: Engine) -> None:
    once(engine, "before", AuthenticationError("the token is not accepted"))
    ident = engine.deliver("record")
    engine.run_for(minutes=1)
    engine.database.clock.advance(days=2)
    assert engine.step() == 0
    resume(engine.database, "desk", "ops")
    engine.lookup_delay()
    shown = engine.show(ident)
    assert (shown["state"], shown["attempts"]) == ("succeeded", 1)


def test_a_paused_connection_sends_nothing_until_it_is_resumed(engine: Engine) -> None:
    pause(engine.database, "desk", "maintenance", "ops")
    ident = engine.deliver("send")
    engine.run_for(minutes=1)
    assert engine.partner.calls == []
    resume(engine.database, "desk", "ops")
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"


def test_the_circuit_opens_probes_and_closes_by_itself(engine: Engine) -> None:
    engine.partner.before = raising(OutcomeUnknown("503", reason="server_error"))
    for number in range(8):
        engine.deliver("post", engine.event(metadata={"contactPhone": f"+1212555{number:04d}"}))
    engine.lookup_delay()
    assert all_connections(engine.database)[0]["pause_cause"] == "circuit"
    tried = len(engine.partner.calls)
    engine.run_for(seconds=60)
    assert tried + 3 <= len(engine.partner.calls) <= tried + 7  # one probe every 10 s, and nothing else
    engine.partner.before = None
    engine.run_for(minutes=2)
    assert all_connections(engine.database)[0]["pause_cause"] is None
    assert engine.states() == {"succeeded": 8}


def test_no_more_requests_leave_than_the_connection_allows(engine: Engine) -> None:
    engine.per_second, engine.slots = 2.0, 50
    for number in range(20):
        engine.deliver("post", engine.event(metadata={"contactPhone": f"+1212555{number:04d}"}))
    for _ in range(10):
        engine.lookup_delay()
        engine.database.clock.advance(seconds=0.5)
    assert 10 <= len(engine.partner.calls) <= 12


def test_a_record_that_was_given_up_on_can_be_replayed(engine: Engine) -> None:
    engine.partner.before = raising(OutcomeUnknown("503", reason="rejected"))
    event = engine.event()
    first = engine.deliver("record", event, retry=Retry(attempts=1))
    engine.lookup_delay()
    assert engine.show(first)["state"] == "failed"
    engine.partner.before = None
    second = engine.deliver("record", event)
    engine.lookup_delay()
    assert engine.show(second)["state"] == "succeeded"


@pytest.mark.parametrize("by", ["a person", "the circuit"])
def test_no_time_for_looking_counts_while_nobody_could_ask(engine: Engine, by: str) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    ident = engine.deliver("send")
    engine.step()
    if by == "a person":
        pause(engine.database, "desk", "", "ada")
    else:
        with engine.database.write() as connection:
            until = engine.database.clock.now() + timedelta(minutes=10)
            connection.execute(connections.update().values(pause_values("circuit", until, "down")))
    engine.database.clock.advance(minutes=11)
    if by == "a person":
        resume(engine.database, "desk", "ada")
    else:  # another delivery's probe has closed it
        with engine.database.write() as connection:
            connection.execute(connections.update().values(pause_cause=None, paused_until=None))
    hiccups = [TransientError("a hiccup", reason="network")]

    def looked_up() -> None:
        if hiccups:
            raise hiccups.pop()

    engine.partner.looked_up = looked_up
    engine.run_for(minutes=1)
    assert engine.show(ident)["state"] == "succeeded"
