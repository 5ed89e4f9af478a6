"""The claim before every attempt and the result after it, on both databases."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, time, timedelta
from typing import Any, NoReturn

import pytest

from bridge.clock import uptime
from bridge.errors import (
    AuthenticationError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.lifecycle import PauseCause
from bridge.rules.model import Cap, MessagingPolicy, OncePer, Retry
from bridge.rules.quiet_hours import ALL_DAY, NIGHT, QuietHours, QuietWindow, every_day
from bridge.store.claim import LEASE
from bridge.store.connection_status import all_connections
from bridge.store.connections import pause, pause_columns, resume
from bridge.store.contact_cache import StoredContactCache, cached_time_zones
from bridge.store.crowded_keys import CrowdedKeys
from bridge.store.deliveries import Delivery
from bridge.store.erase import erase
from bridge.store.opt_out_list import list_opt_outs
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.results import record_results
from bridge.store.schema import connections, deliveries
from bridge.worker.result_policy import MAX_INTERRUPTIONS
from tests.integration.engine import NO_QUIET, Engine, raising

NUMBERS = itertools.count(1000)


def once(engine: Engine, moment: str, error: Exception) -> None:
    """Let the provider fail once, `before` or `after` the action."""

    def fail() -> NoReturn:
        setattr(engine.provider, moment, None)
        raise error

    setattr(engine.provider, moment, fail)


def test_due_delivery_is_sent_and_its_attempt_recorded(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    engine.run_due()
    shown = engine.show(delivery_id)
    assert engine.provider.messages == [(delivery_id, "+12125550167")]
    assert (shown["state"], shown["external_id"], shown["message_status"]) == (
        "succeeded",
        f"sms-{delivery_id}",
        "queued",
    )
    assert [(attempt["kind"], attempt["outcome"]) for attempt in shown["attempt_history"]] == [
        ("send", "succeeded")
    ]


def test_attempt_is_written_before_the_request(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    engine.claim()
    assert engine.show(delivery_id)["state"] == "running"
    assert engine.show(delivery_id)["attempt_history"][0]["finished_at"] is None
    assert engine.provider.messages == []


def test_delivery_is_not_claimed_before_run_at(engine: Engine) -> None:
    engine.deliver("send", run_at=engine.database.clock.now() + timedelta(minutes=5))
    assert engine.step() == 0
    engine.database.clock.advance(minutes=5)
    assert engine.step() == 1


def test_quiet_hours_follow_time_zone_from_crm_until_it_expires_or_is_erased(engine: Engine) -> None:
    engine.policy_config = PolicyConfig(MessagingPolicy())
    clock = engine.database.clock
    # 08:30 in New York, as the number says, and 05:30 in Los Angeles
    clock.set(datetime(2026, 3, 2, 13, 30, tzinfo=UTC))
    StoredContactCache(engine.database, "hubspot").remember_zones({"+12125550167": "America/Los_Angeles"})
    delivery_id = engine.deliver("send")
    engine.run_due()
    assert engine.provider.messages == []
    assert "in America/Los_Angeles (time zone from the CRM)" in engine.show(delivery_id)["detail"]
    with engine.database.read() as conn:
        assert cached_time_zones(conn, ["+12125550167"], clock.now() + timedelta(days=8)) == {}
    erase(engine.database, "test", "+12125550167", ())
    with engine.database.read() as conn:
        assert cached_time_zones(conn, ["+12125550167"], clock.now()) == {}


def test_alert_by_text_message_is_sent_in_quiet_hours(engine: Engine) -> None:
    engine.policy_config = PolicyConfig(MessagingPolicy())
    engine.database.clock.set(datetime(2026, 3, 3, 3, 0, tzinfo=UTC))
    team = {"channel": "sms", "recipient": "+12025550100", "params": {"to": "+12025550100"}}
    waits = engine.deliver("send")
    alert = engine.deliver(
        "send", trigger="alert", internal=True, idempotency_key="alert", concurrency_key=None, **team
    )
    engine.run_due()
    assert [delivery_id for delivery_id, _ in engine.provider.messages] == [alert]
    assert engine.show(waits)["state"] == "pending"


def test_concurrency_key_admits_one_running_delivery(engine: Engine) -> None:
    event = engine.event()
    engine.deliver("send", event)
    engine.deliver("record", event)
    first = engine.claim()
    assert len(first) == 1
    assert engine.claim() == []
    record_results(engine.database, engine.attempt(first[0]))
    assert len(engine.claim()) == 1


def test_many_deliveries_with_one_concurrency_key_do_not_delay_others(engine: Engine) -> None:
    busy = engine.event()
    for number in range(450):
        engine.deliver("post", busy, concurrency_key="desk|busy", idempotency_key=f"post {number}")
    other = engine.deliver("send", engine.event(metadata={"contactPhone": "+12125550999"}))
    engine.step()
    assert engine.show(other)["state"] == "succeeded"


def test_transient_error_is_retried_on_schedule(engine: Engine) -> None:
    once(engine, "before", TransientError("down for a moment", reason="network"))
    delivery_id = engine.deliver("send")
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "retrying"
    engine.run_for(seconds=15)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1


def test_retry_after_of_the_provider_is_honored(engine: Engine) -> None:
    once(engine, "before", TransientError("busy", retry_after=timedelta(minutes=30)))
    delivery_id = engine.deliver("send")
    engine.run_due()
    engine.database.clock.advance(minutes=29, seconds=59)
    assert engine.step() == 0
    engine.database.clock.advance(seconds=1)
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_permanent_error_fails_the_delivery_and_releases_its_key(engine: Engine) -> None:
    once(engine, "before", PermanentError("no such number"))
    event = engine.event()
    first = engine.deliver("send", event)
    engine.run_due()
    assert engine.show(first)["state"] == "failed"
    second = engine.deliver("send", event)
    engine.run_due()
    assert engine.show(second)["state"] == "succeeded"


def test_unknown_outcome_succeeds_when_lookup_finds_it(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1
    assert [attempt["outcome"] for attempt in engine.show(delivery_id)["attempt_history"]] == [
        "outcome_unknown",
        "lookup_found",
    ]


def test_unknown_outcome_is_retried_when_lookup_finds_nothing(engine: Engine) -> None:
    once(engine, "before", OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1
    assert [attempt["outcome"] for attempt in engine.show(delivery_id)["attempt_history"]] == [
        "outcome_unknown",
        "lookup_not_found",
        "succeeded",
    ]


def test_unexpected_exception_is_an_unknown_outcome(engine: Engine) -> None:
    once(engine, "after", KeyError("oops"))
    delivery_id = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1


def test_inconclusive_lookup_needs_review(engine: Engine) -> None:
    engine.provider.lookup_works = False
    once(engine, "after", OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("send")
    engine.run_for(seconds=10)
    assert engine.show(delivery_id)["state"] == "needs_review"
    assert engine.show(delivery_id)["needs_follow_up"]


def test_failing_lookup_is_repeated_for_two_minutes(engine: Engine) -> None:
    engine.provider.on_lookup = raising(KeyError("a bug"))
    once(engine, "after", OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("send")
    engine.run_for(seconds=110)
    assert engine.show(delivery_id)["state"] == "retrying"
    engine.run_for(seconds=20)
    assert engine.show(delivery_id)["state"] == "needs_review"


def test_outage_of_provider_does_not_send_lookups_to_review(engine: Engine) -> None:
    away = raising(OutcomeUnknown("503", reason="server_error"))
    engine.provider.after = engine.provider.on_lookup = away
    delivery_ids = [
        engine.deliver("send", engine.event(metadata={"contactPhone": f"+1212555010{number}"}))
        for number in range(6)
    ]
    engine.run_for(minutes=20)
    assert set(engine.states()) == {"retrying"}
    engine.provider.after = engine.provider.on_lookup = None
    engine.run_for(minutes=2)
    assert set(engine.states()) == {"succeeded"}
    assert sorted(delivery_id for delivery_id, _ in engine.provider.messages) == sorted(delivery_ids)


def test_unknown_outcome_without_lookup_needs_review_immediately(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("mail", engine.event("chat.resolved"))
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "needs_review"


def test_delivery_waits_while_its_idempotency_key_has_an_unknown_outcome(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    event = engine.event()
    engine.deliver("send", event)
    engine.run_due()
    second = engine.deliver("send", event)
    engine.run_for(minutes=2)
    assert engine.show(second)["reason"] == "duplicate"
    assert len(engine.provider.messages) == 1


def test_idempotent_action_is_repeated_after_unknown_outcome(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer", reason="server_error"))
    delivery_id = engine.deliver("record")
    engine.run_for(seconds=20)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert engine.provider.calls == [1, 1]


def test_second_delivery_of_the_same_message_is_suppressed_as_duplicate(engine: Engine) -> None:
    event = engine.event()
    engine.deliver("send", event)
    engine.run_due()
    second = engine.deliver("send", event)
    engine.run_due()
    assert engine.show(second)["reason"] == "duplicate"
    assert len(engine.provider.messages) == 1


def test_force_repeats_a_completed_action(engine: Engine) -> None:
    event = engine.event()
    engine.deliver("send", event)
    engine.run_due()
    engine.deliver("send", event, force=True)
    engine.run_due()
    assert len(engine.provider.messages) == 2


def test_later_event_updates_the_record_and_older_event_is_superseded(engine: Engine) -> None:
    first = engine.event("chat.completed")
    engine.database.clock.advance(seconds=5)
    later = engine.event("chat.completed", conversationId=first.conversation.id)
    engine.deliver("record", later, params={"title": "later"})
    engine.run_due()
    old = engine.deliver("record", first, params={"title": "first"})
    engine.run_due()
    assert engine.show(old)["reason"] == "superseded"
    assert list(engine.provider.records.values()) == ["later"]


def test_resolved_takes_precedence_over_a_later_completed(engine: Engine) -> None:
    resolved = engine.event("chat.resolved")
    engine.database.clock.advance(seconds=5)
    completed = engine.event("chat.completed", conversationId=resolved.conversation.id)
    engine.deliver("record", resolved, params={"title": "resolved"})
    engine.run_due()
    late = engine.deliver("record", completed, params={"title": "completed"})
    engine.run_due()
    assert engine.show(late)["reason"] == "superseded"
    assert list(engine.provider.records.values()) == ["resolved"]


def test_batch_carries_many_deliveries_but_each_concurrency_key_once(engine: Engine) -> None:
    for number in range(120):
        engine.deliver("record", engine.event(metadata={"contactPhone": f"+1212555{number // 2:04d}"}))
    engine.run_due()
    assert engine.provider.calls == [60, 60]
    assert engine.states() == {"succeeded": 120}


def test_rejected_batch_is_split_and_uses_up_no_attempts(engine: Engine) -> None:
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
    engine.run_due()
    assert engine.show(bad)["state"] == "failed"
    assert engine.states() == {"succeeded": 9, "failed": 1}


def test_crash_between_attempt_and_result_leads_to_lookup(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    [call] = engine.claim()
    engine.attempt(call)  # then the process dies
    assert engine.recover_expired() == 0
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert engine.recover_expired() == 1
    engine.run_for(seconds=10)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1


def test_failed_batch_counts_as_one_failure_for_the_circuit_breaker(engine: Engine) -> None:
    once(engine, "before", OutcomeUnknown("no answer", reason="server_error"))
    for _ in range(8):
        engine.deliver("record", engine.event(metadata={"contactPhone": f"+1212555{next(NUMBERS)}"}))
    assert engine.step() == 8
    assert engine.provider.calls == [8]
    assert [row["pause_cause"] for row in all_connections(engine.database)] == [None]


def test_interrupted_attempts_do_not_open_the_circuit(engine: Engine) -> None:
    for number in range(8):
        engine.deliver("send", engine.event(metadata={"contactPhone": f"+1212555010{number}"}))
    engine.slots = 8
    assert len(engine.claim()) == 8
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert engine.recover_expired() == 8
    assert [row["pause_cause"] for row in all_connections(engine.database)] == [None]


def test_repeatedly_interrupted_delivery_uses_up_attempts_after_the_limit(
    engine: Engine,
) -> None:
    delivery_id = engine.deliver("record")
    for _ in range(MAX_INTERRUPTIONS):
        assert len(engine.claim()) == 1
        engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
        engine.recover_expired()
        engine.database.clock.advance(seconds=5)
    assert (engine.show(delivery_id)["state"], engine.show(delivery_id)["attempts"]) == ("retrying", 0)
    engine.claim()
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    engine.recover_expired()
    assert engine.show(delivery_id)["attempts"] == 1


def test_interrupted_lookup_does_not_need_review(engine: Engine) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("send")
    engine.run_due()
    engine.database.clock.advance(minutes=10)  # no worker was running
    [[lookup]] = engine.claim()
    assert lookup.delivery.kind == "lookup"
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    engine.recover_expired()
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1


def test_result_with_outdated_fencing_token_changes_nothing(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    [call] = engine.claim()
    results = engine.attempt(call)
    engine.database.clock.advance(minutes=1)
    engine.recover_expired()
    engine.run_for(seconds=10)
    before = engine.show(delivery_id)
    assert record_results(engine.database, results) == [call[0]]
    after = engine.show(delivery_id)
    assert (
        (before["state"], before["fencing_token"])
        == (after["state"], after["fencing_token"])
        == ("succeeded", 2)
    )


def test_opt_out_committed_before_claim_suppresses_the_message(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    save_opt_out(engine.database, OptOutChange("sms", "+12125550167", True, "STOP to desk"))
    engine.run_due()
    assert engine.show(delivery_id)["reason"] == "opted_out"
    assert engine.provider.messages == []


def test_opt_out_reported_by_provider_is_stored(engine: Engine) -> None:
    once(engine, "before", PermanentError("unsubscribed", opted_out=True))
    engine.deliver("send")
    engine.run_due()
    assert [item["address"] for item in list_opt_outs(engine.database).items] == ["+12125550167"]
    second = engine.deliver("send")
    engine.run_due()
    assert engine.show(second)["reason"] == "opted_out"


def test_caps_count_across_rules_and_ignore_failed_messages(engine: Engine) -> None:
    engine.policy_config = PolicyConfig(
        MessagingPolicy(quiet_hours=NO_QUIET, caps={"sms": Cap(1, timedelta(hours=24))})
    )
    once(engine, "before", PermanentError("no such number"))
    failed = engine.deliver("send", rule="a")
    engine.run_due()
    first = engine.deliver("send", rule="b")
    engine.run_due()
    second = engine.deliver("send", rule="c")
    engine.run_due()
    assert [engine.show(delivery_id)["state"] for delivery_id in (failed, first, second)] == [
        "failed",
        "succeeded",
        "suppressed",
    ]
    engine.database.clock.advance(hours=25)
    third = engine.deliver("send", rule="c")
    engine.run_due()
    assert engine.show(third)["state"] == "succeeded"


def test_message_in_quiet_hours_is_deferred_to_the_morning(engine: Engine) -> None:
    engine.policy_config = PolicyConfig(MessagingPolicy(quiet_hours=every_day(NIGHT)))
    engine.database.clock.set(datetime(2026, 3, 3, 2, 30, tzinfo=UTC))  # 21:30 in New York
    delivery_id = engine.deliver("send")
    engine.run_due()
    shown = engine.show(delivery_id)
    assert (shown["state"], shown["run_at"]) == ("pending", datetime(2026, 3, 3, 13, 0, tzinfo=UTC))
    engine.database.clock.set(datetime(2026, 3, 3, 13, 0, 1, tzinfo=UTC))
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_message_on_a_holiday_is_deferred_to_the_next_working_day(engine: Engine) -> None:
    office = QuietWindow.between(time(17), time(9))
    hours = QuietHours((office,) * 5 + (ALL_DAY, ALL_DAY), ALL_DAY, "messaging.quiet_hours.sms")
    engine.policy_config = PolicyConfig(
        MessagingPolicy(quiet_hours={**MessagingPolicy().quiet_hours, "sms": hours})
    )
    engine.database.clock.set(datetime(2026, 5, 23, 16, 0, tzinfo=UTC))  # Saturday before Memorial Day
    delivery_id = engine.deliver("send")
    engine.run_due()
    assert engine.show(delivery_id)["run_at"] == datetime(2026, 5, 26, 13, 0, tzinfo=UTC)


def test_later_event_of_the_same_contact_cancels(engine: Engine) -> None:
    busy = engine.event()
    delivery_id = engine.deliver(
        "send", busy, run_at=engine.database.clock.now() + timedelta(minutes=5), cancel_on=("call.completed",)
    )
    engine.database.clock.advance(minutes=1)
    engine.event("call.completed", metadata={"contactPhone": "+12125550167"})
    engine.run_for(minutes=6)
    assert engine.show(delivery_id)["state"] == "cancelled"
    assert engine.provider.messages == []


def test_older_event_does_not_cancel(engine: Engine) -> None:
    engine.event("call.completed", metadata={"contactPhone": "+12125550167"})
    engine.database.clock.advance(seconds=1)
    delivery_id = engine.deliver("send", cancel_on=("call.completed",))
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_once_per_contact_suppresses_the_second_delivery(engine: Engine) -> None:
    limit = OncePer("contact", timedelta(hours=24))
    first, second = engine.deliver("send", once=limit), engine.deliver("send", once=limit)
    engine.run_due()
    states = {engine.show(delivery_id)["state"] for delivery_id in (first, second)}
    assert states == {"succeeded", "suppressed"}


def test_expired_delivery_is_suppressed_or_failed_if_it_was_attempted(engine: Engine) -> None:
    now = engine.database.clock.now()
    late = engine.deliver("send", run_at=now + timedelta(hours=2), expires_at=now + timedelta(hours=1))
    engine.run_for(hours=2)
    assert engine.show(late)["reason"] == "expired"
    engine.provider.before = raising(TransientError("down", reason="rejected"))
    now = engine.database.clock.now()
    failing = engine.deliver("send", expires_at=now + timedelta(minutes=30))
    engine.run_for(minutes=40)
    shown = engine.show(failing)
    assert (shown["state"], shown["reason"], shown["needs_follow_up"]) == ("failed", "rejected", True)


def test_retry_attempts_of_a_rule_limit_its_retries(engine: Engine) -> None:
    engine.provider.before = raising(TransientError("down", reason="rejected"))
    delivery_id = engine.deliver("send", retry=Retry(attempts=2))
    engine.run_for(minutes=2)
    assert engine.show(delivery_id)["state"] == "failed"
    assert len(engine.provider.calls) == 2


def test_shadow_delivery_is_not_sent(engine: Engine) -> None:
    delivery_id = engine.deliver("send", shadow=True)
    engine.run_due()
    assert engine.show(delivery_id)["reason"] == "shadow"
    assert engine.provider.calls == []


def test_rate_limit_pauses_connection_and_uses_up_no_attempt(engine: Engine) -> None:
    once(engine, "before", RateLimited("slow down", retry_after=timedelta(minutes=2)))
    first = engine.deliver("send")
    second = engine.deliver("post", engine.event(metadata={"contactPhone": "+12125550001"}))
    engine.slots = 1
    engine.step()
    engine.database.clock.advance(seconds=119)
    assert engine.step() == 0
    engine.database.clock.advance(seconds=1)
    engine.run_due()
    assert engine.show(first)["state"] == engine.show(second)["state"] == "succeeded"
    assert engine.show(first)["attempts"] == 1


def test_exhausted_quota_pauses_connection_until_reset(engine: Engine) -> None:
    until = engine.database.clock.now() + timedelta(hours=5)
    once(engine, "before", QuotaExhausted("no calls left today", until=until))
    delivery_id = engine.deliver("record")
    engine.step()
    [row] = all_connections(engine.database)
    assert (row["pause_cause"], row["paused_until"], row["alert_due"]) == ("quota", until, True)
    engine.run_for(hours=5, minutes=1)
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_authentication_error_pauses_connection_until_resumed(engine: Engine) -> None:
    once(engine, "before", AuthenticationError("the token is not accepted"))
    delivery_id = engine.deliver("record")
    engine.run_for(minutes=1)
    engine.database.clock.advance(days=2)
    assert engine.step() == 0
    resume(engine.database, "desk", "ops")
    engine.run_due()
    shown = engine.show(delivery_id)
    assert (shown["state"], shown["attempts"]) == ("succeeded", 1)


def test_paused_connection_sends_nothing_until_resumed(engine: Engine) -> None:
    pause(engine.database, "desk", "maintenance", "ops")
    delivery_id = engine.deliver("send")
    engine.run_for(minutes=1)
    assert engine.provider.calls == []
    resume(engine.database, "desk", "ops")
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_circuit_opens_probes_and_closes_automatically(engine: Engine) -> None:
    engine.provider.before = raising(OutcomeUnknown("503", reason="server_error"))
    for number in range(8):
        engine.deliver("post", engine.event(metadata={"contactPhone": f"+1212555{number:04d}"}))
    engine.run_due()
    assert all_connections(engine.database)[0]["pause_cause"] == "circuit_open"
    calls = len(engine.provider.calls)
    engine.run_for(seconds=60)
    assert calls + 3 <= len(engine.provider.calls) <= calls + 7  # one probe every 10 s, and nothing else
    engine.provider.before = None
    engine.run_for(minutes=2)
    assert all_connections(engine.database)[0]["pause_cause"] is None
    assert engine.states() == {"succeeded": 8}


def test_requests_do_not_exceed_the_limit_per_second(engine: Engine) -> None:
    engine.per_second, engine.slots = 2.0, 50
    for number in range(20):
        engine.deliver("post", engine.event(metadata={"contactPhone": f"+1212555{number:04d}"}))
    started_at = engine.database.clock.now()
    for _ in range(10):
        engine.run_due()
        engine.database.clock.advance(seconds=0.5)
    # The clock also runs while the test does: on a busy machine, longer.
    seconds = (engine.database.clock.now() - started_at).total_seconds()
    assert 10 <= len(engine.provider.calls) <= 2 + 2.0 * seconds


def test_failed_record_can_be_delivered_by_a_replay(engine: Engine) -> None:
    engine.provider.before = raising(OutcomeUnknown("503", reason="rejected"))
    event = engine.event()
    first = engine.deliver("record", event, retry=Retry(attempts=1))
    engine.run_due()
    assert engine.show(first)["state"] == "failed"
    engine.provider.before = None
    second = engine.deliver("record", event)
    engine.run_due()
    assert engine.show(second)["state"] == "succeeded"


@pytest.mark.parametrize("cause", ["operator", "circuit_open"])
def test_lookup_limit_does_not_count_time_while_paused(engine: Engine, cause: str) -> None:
    once(engine, "after", OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("send")
    engine.step()
    if cause == "operator":
        pause(engine.database, "desk", "", "ada")
    else:
        with engine.database.write() as conn:
            until = engine.database.clock.now() + timedelta(minutes=10)
            conn.execute(connections.update().values(pause_columns(PauseCause.CIRCUIT_OPEN, until, "down")))
    engine.database.clock.advance(minutes=11)
    if cause == "operator":
        resume(engine.database, "desk", "ada")
    else:  # the probe of another delivery has closed the circuit
        with engine.database.write() as conn:
            conn.execute(connections.update().values(pause_cause=None, paused_until=None))
    errors = [TransientError("a hiccup", reason="network")]

    def fail_once() -> None:
        if errors:
            raise errors.pop()

    engine.provider.on_lookup = fail_once
    engine.run_for(minutes=1)
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_deliveries_that_wait_for_one_key_are_not_read_by_each_claim(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, now = engine.event(), engine.database.clock.now()
    keys = ["desk|crowded"] * 60 + [f"desk|{number}" for number in range(30)]
    rows = [
        engine.delivery_row("post", event, concurrency_key=key, idempotency_key=f"post {number}")
        | {"run_at": now - timedelta(seconds=100 - number)}
        for number, key in enumerate(keys)
    ]
    with engine.database.write() as conn:
        conn.execute(deliveries.insert(), rows)
    read, claimed = [], list[str]()
    from_row = Delivery.from_row
    monkeypatch.setattr(Delivery, "from_row", lambda row: read.append(row) or from_row(row))
    reads = []
    while calls := engine.claim():
        reads.append(len(read))
        claimed += [item.delivery.id for call in calls for item in call]
        record_results(engine.database, [item for call in calls for item in engine.attempt(call)])
        read.clear()
    crowded, others = [row["id"] for row in rows[:60]], [row["id"] for row in rows[60:]]
    assert [item for item in claimed if item in crowded] == crowded
    assert [item for item in claimed if item in others] == others
    assert claimed.index(others[-1]) < claimed.index(crowded[12])
    assert reads[0] > 36
    assert sum(reads[1:]) / len(reads[1:]) < 8


def test_key_that_is_no_longer_crowded_is_claimed_as_any_other(engine: Engine) -> None:
    event, now = engine.event(), engine.database.clock.now()
    known = CrowdedKeys(now - timedelta(seconds=1), frozenset({"desk|one", "desk|two"}), uptime() + 100)
    engine.database.crowded_keys._by_connection["desk"] = known
    seconds = {"desk|one": 0, "desk|two": 5, "desk|three": 0}
    rows = [
        engine.delivery_row("post", event, concurrency_key=key, idempotency_key=f"post {key}")
        | {"run_at": now - timedelta(seconds=before)}
        for key, before in seconds.items()
    ]
    with engine.database.write() as conn:
        conn.execute(deliveries.insert(), rows)
    assert {item.delivery.concurrency_key for call in engine.claim() for item in call} == set(seconds)
