"""`messaging.caps.total`: a connection that sends too much is paused, and only alerts still leave."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from bridge.errors import OutcomeUnknown, PermanentError, RateLimited, TransientError
from bridge.events import Event
from bridge.rules.model import Cap, MessagingPolicy, PlannedDelivery
from bridge.store.claim import Capacity, claim
from bridge.store.connection_status import all_connections
from bridge.store.connections import pause, resume
from bridge.store.database import Database
from bridge.store.follow_ups import follow_up_pauses
from bridge.store.policy_inputs import PolicyConfig, inputs_for_planned
from bridge.store.results import record_results
from tests.integration.engine import NO_QUIET, Engine, raising

NUMBERS = itertools.count(2000)
POLICY = MessagingPolicy(quiet_hours=NO_QUIET, total_caps={"sms": Cap(3, timedelta(hours=1))})


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database, policy_config=PolicyConfig(POLICY), slots=10)


def text(engine: Engine, **planned: Any) -> str:
    """Store a text message to a new contact."""
    return engine.deliver(
        "send", engine.event(metadata={"contactPhone": f"+1212555{next(NUMBERS)}"}), **planned
    )


def connection(engine: Engine) -> Mapping[str, Any]:
    [row] = all_connections(engine.database)
    return row


def test_message_beyond_the_cap_pauses_the_connection_and_waits(engine: Engine) -> None:
    delivery_ids = [text(engine) for _ in range(5)]
    engine.run_due()
    assert [sent for sent, _ in engine.provider.messages] == delivery_ids[:3]
    row = connection(engine)
    assert (row["pause_cause"], row["alert_due"]) == ("total_cap", True)
    assert row["pause_reason"] == (
        "messaging.caps.total.sms: at most 3 text messages per 1h to all recipients, "
        "and 3 already sent or possibly sent"
    )
    engine.database.clock.advance(hours=5)
    engine.run_due()
    assert engine.states() == {"succeeded": 3, "pending": 2}


def test_alert_to_a_contact_waits_without_being_claimed_again_at_once(engine: Engine) -> None:
    for _ in range(4):
        text(engine)
    engine.run_due()
    alert = text(engine, trigger="alert")  # its recipient is a template, so the cap counts it
    capacity = Capacity("desk", 10, lambda _: 1)
    assert claim(engine.database, capacity, engine.policy_config, "one").calls == []
    assert "messaging.caps.total.sms" in engine.show(alert)["detail"]
    waiting = claim(engine.database, capacity, engine.policy_config, "one")
    assert waiting.next_poll_in is not None
    assert waiting.next_poll_in > timedelta(seconds=30)
    resume(engine.database, "desk", "ada")
    engine.database.clock.advance(minutes=1)
    engine.run_due()
    assert engine.states() == {"succeeded": 5}


def test_exactly_as_many_messages_as_the_cap_do_not_pause(engine: Engine) -> None:
    for _ in range(3):
        text(engine)
    engine.run_due()
    assert engine.states() == {"succeeded": 3}
    assert connection(engine)["pause_cause"] is None
    engine.database.clock.advance(minutes=62)
    for _ in range(3):
        text(engine)
    engine.run_due()
    assert engine.states() == {"succeeded": 6}


def test_resume_restarts_the_count(engine: Engine) -> None:
    for _ in range(8):
        text(engine)
    engine.run_due()
    resume(engine.database, "desk", "test")
    engine.run_due()
    assert engine.states() == {"succeeded": 6, "pending": 2}
    assert connection(engine)["pause_cause"] == "total_cap"


def test_team_messages_and_other_channels_do_not_count(engine: Engine) -> None:
    for _ in range(5):
        text(engine, internal=True)
    engine.deliver("mail")
    engine.deliver("post")
    text(engine)
    engine.run_due()
    assert engine.states() == {"succeeded": 8}
    assert connection(engine)["pause_cause"] is None


def test_alerts_leave_over_the_paused_connection(engine: Engine) -> None:
    for _ in range(4):
        text(engine)
    engine.run_due()
    ordinary, alert = engine.deliver("post"), engine.deliver("post", trigger="alert", idempotency_key="alert")
    internal = text(engine, trigger="alert", internal=True)
    customer = text(engine, trigger="alert")
    engine.run_due()
    states = {name: engine.show(name)["state"] for name in (ordinary, alert, internal, customer)}
    assert states == {ordinary: "pending", alert: "succeeded", internal: "succeeded", customer: "pending"}
    assert len(engine.provider.messages) == 4


def test_team_is_alerted_once_and_told_what_to_do(engine: Engine) -> None:
    alerts: list[Mapping[str, Any]] = []

    def plan(
        _event: Event, failure: Mapping[str, Any], _now: datetime
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        alerts.append(failure)
        return "rules", []

    for _ in range(6):
        text(engine)
    engine.run_due()
    while follow_up_pauses(engine.database, plan)[0]:
        engine.run_due()
    [alert] = alerts
    assert (alert["reason"], alert["state"]) == ("total_cap", "paused")
    assert "messaging.caps.total.sms" in alert["message"]
    assert "run `bridge resume desk`" in alert["message"]


@pytest.mark.parametrize(
    "error", [PermanentError("no such number"), TransientError("refused"), RateLimited("slow down")]
)
def test_message_that_was_certainly_not_sent_does_not_count(engine: Engine, error: Exception) -> None:
    engine.provider.before = raising(error)
    for _ in range(2):
        text(engine)
    engine.step()
    engine.provider.before = None
    engine.database.clock.advance(seconds=3)  # longer than the pause for the rate limit
    for _ in range(3):
        text(engine)
    engine.slots = 3
    for _ in range(2):
        engine.step()
    assert len(engine.provider.messages) == 3


def test_message_with_unknown_outcome_counts(engine: Engine) -> None:
    engine.provider.after = raising(OutcomeUnknown("no response", reason="timeout"))
    for _ in range(3):
        text(engine)
    engine.step()
    text(engine)
    engine.step()
    assert len(engine.provider.messages) == 3
    assert connection(engine)["pause_cause"] == "total_cap"


def test_results_of_running_calls_do_not_end_the_pause(engine: Engine) -> None:
    engine.slots = 3
    for _ in range(5):
        text(engine)
    calls = engine.claim()
    assert engine.claim() == []
    assert connection(engine)["pause_cause"] == "total_cap"
    engine.provider.before = raising(OutcomeUnknown("503", reason="server_error"))
    for call in calls:
        record_results(engine.database, engine.attempt(call))
    assert connection(engine)["pause_cause"] == "total_cap"


def test_operator_pause_replaces_it_and_resume_restarts_the_count(engine: Engine) -> None:
    for _ in range(4):
        text(engine)
    engine.run_due()
    pause(engine.database, "desk", "looking into it", "test")
    alert = engine.deliver("post", trigger="alert", idempotency_key="alert")
    engine.run_due()
    assert engine.show(alert)["state"] == "pending"
    resume(engine.database, "desk", "test")
    engine.run_due()
    assert engine.states() == {"succeeded": 5}


def test_explain_sees_the_stored_count(engine: Engine) -> None:
    for _ in range(3):
        text(engine)
    engine.run_due()
    event = engine.event()
    planned = PlannedDelivery(
        rule="test", trigger="rule", step_index=0, action="desk.send", connection="desk", params={},
        run_at=engine.database.clock.now(), idempotency_key="another", updates_existing=False, concurrency_key=None,
        channel="sms", recipient="+12125550100",
    )  # fmt: skip
    assert inputs_for_planned(engine.database, planned, event, POLICY).messages_of_connection == 3


def test_many_workers_together_never_exceed_the_cap(database: Database) -> None:
    cap, workers = 20, 6
    policy = MessagingPolicy(quiet_hours=NO_QUIET, total_caps={"sms": Cap(cap, timedelta(hours=1))})
    engines = [
        Engine(database, worker_id=str(number), policy_config=PolicyConfig(policy), slots=3)
        for number in range(workers)
    ]
    for _ in range(60):
        text(engines[0])
    start = threading.Barrier(workers)

    def work(engine: Engine) -> None:
        start.wait()
        while engine.step():
            pass

    threads = [threading.Thread(target=work, args=[engine]) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(engine.provider.messages) for engine in engines) == cap
    assert engines[0].states() == {"succeeded": cap, "pending": 60 - cap}
    assert connection(engines[0])["pause_cause"] == "total_cap"
