"""Pauses: their causes and durations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
import structlog

from bridge.clock import uptime
from bridge.errors import AuthenticationError, RateLimited
from bridge.lifecycle import PauseCause, StopScope
from bridge.rules.model import PlannedDelivery
from bridge.store.audit_log import list_audit_entries
from bridge.store.connection_status import all_connections, connection_statuses
from bridge.store.connections import pause, pause_columns, register_accounts, resume
from bridge.store.follow_ups import follow_up_alert_groups, follow_up_pauses
from bridge.store.operator_actions import retry
from bridge.store.pause_all import current_stop, pause_all, resume_all
from bridge.store.results import record_results
from bridge.store.schema import connections
from tests.integration.engine import Engine, raising

NUMBERS = itertools.count(3000)


def other_contact() -> dict[str, str]:
    return {"contactPhone": f"+1212557{next(NUMBERS)}"}


def rate_limit() -> None:
    raise RateLimited("429")


def remaining_pause(engine: Engine) -> timedelta:
    """Return how long the connection is still paused."""
    [row] = all_connections(engine.database)
    until: Any = row["paused_until"]
    return until - engine.database.clock.now()


def test_repeated_rate_limits_lengthen_the_pause(engine: Engine) -> None:
    engine.deliver("post")
    engine.provider.before = rate_limit
    engine.run_for(minutes=30)
    assert 8 < len(engine.provider.calls) <= 16
    assert remaining_pause(engine) <= timedelta(minutes=5)


def test_retry_after_of_zero_does_not_stop_the_backoff(engine: Engine) -> None:
    engine.deliver("post")
    engine.provider.before = raising(RateLimited("429", retry_after=timedelta(0)))
    engine.run_for(minutes=5)
    assert len(engine.provider.calls) <= 12


def test_pauses_of_rate_limits_vary(engine: Engine) -> None:
    pauses = set()
    for _ in range(5):
        engine.deliver("post", engine.event(metadata=other_contact()))
        [call] = engine.claim()
        start = engine.database.clock.now()
        record_results(engine.database, engine.classify_result(call, [RateLimited("429")]))
        pauses.add(remaining := remaining_pause(engine))
        assert remaining <= timedelta(seconds=1)
        assert engine.database.clock.now() - start + remaining > timedelta(seconds=0.7)
        resume(engine.database, "desk", "ada")
        engine.run_due()
    assert len(pauses) == 5


def test_rate_limit_pause_is_reset_by_a_response(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _, highest: highest)
    engine.provider.before = rate_limit
    engine.deliver("post")
    engine.run_for(minutes=2)
    assert remaining_pause(engine) > timedelta(seconds=10)
    engine.database.clock.advance(minutes=5)
    engine.provider.before = None
    engine.run_due()
    engine.provider.before = rate_limit
    engine.deliver("post")
    engine.step()
    assert remaining_pause(engine) <= timedelta(seconds=1)


def test_running_calls_with_rate_limit_do_not_lengthen_the_pause(engine: Engine) -> None:
    for _ in range(4):
        engine.deliver("post", engine.event(metadata=other_contact()))
    for call in engine.claim():
        record_results(engine.database, engine.classify_result(call, [RateLimited("429")]))
    assert remaining_pause(engine) <= timedelta(seconds=1)


def test_attempts_that_did_not_start_in_time_do_not_open_the_circuit(engine: Engine) -> None:
    for _ in range(8):
        engine.deliver("post", engine.event(metadata=other_contact()))
    engine.slots = 8
    results = [
        item
        for call in engine.claim()
        for item in engine.classify_result(call, engine.attempts.run(engine.connection, call, uptime()))
    ]
    record_results(engine.database, results)
    assert [row["pause_cause"] for row in all_connections(engine.database)] == [None]
    engine.run_due()
    assert engine.states() == {"succeeded": 8}


def test_probe_that_did_not_start_in_time_does_not_close_the_circuit(engine: Engine) -> None:
    engine.deliver("post")
    with engine.database.write() as conn:
        row = {"name": "desk", "failures": 0, "successes": 0, "alert_due": False}
        now = engine.database.clock.now()
        conn.execute(connections.insert(), [row | pause_columns(PauseCause.CIRCUIT_OPEN, now, "down")])
    [probe] = engine.claim()
    record_results(
        engine.database,
        engine.classify_result(probe, engine.attempts.run(engine.connection, probe, uptime())),
    )
    [paused] = all_connections(engine.database)
    assert paused["pause_cause"] == "circuit_open"
    engine.run_for(minutes=1)
    assert engine.states() == {"succeeded": 1}


def reject_settings(engine: Engine, settings: str) -> None:
    """Let an attempt with these settings get a 401."""
    engine.deliver("post", idempotency_key=f"post {next(NUMBERS)}")
    [call] = engine.claim()
    record_results(
        engine.database, engine.classify_result(call, [AuthenticationError("401")]), lambda _: settings
    )


def test_changed_secret_ends_auth_pause_caused_by_a_worker_with_the_old_one(engine: Engine) -> None:
    """Rolling restart: the first worker has the new secret when the second one, with the old secret, gets a 401."""
    register_accounts(engine.database, {"desk": "new"})
    reject_settings(engine, "old")
    assert all_connections(engine.database)[0]["pause_cause"] == "auth"
    register_accounts(engine.database, {"desk": "new"})
    assert all_connections(engine.database)[0]["pause_cause"] is None


def test_unchanged_secret_does_not_end_auth_pause(engine: Engine) -> None:
    register_accounts(engine.database, {"desk": "old"})
    reject_settings(engine, "old")
    register_accounts(engine.database, {"desk": "old"})
    assert all_connections(engine.database)[0]["pause_cause"] == "auth"


def test_pause_and_resumption_are_logged_with_advice(engine: Engine) -> None:
    with structlog.testing.capture_logs() as logs:
        reject_settings(engine, "old")
        register_accounts(engine.database, {"desk": "new"})
    assert [(entry["event"], entry["connection"]) for entry in logs] == [
        ("connection paused", "desk"), ("connection resumed", "desk"),
    ]  # fmt: skip
    assert "fix the account's variables and restart" in logs[0]["advice"]
    with structlog.testing.capture_logs() as logs:
        with engine.database.write() as conn:
            values = pause_columns(PauseCause.CIRCUIT_OPEN, engine.database.clock.now(), "down")
            conn.execute(connections.update().values(values))
        engine.run_due()
    assert [entry["event"] for entry in logs] == ["connection resumed"]


def test_pause_of_all_connections_holds_everything_but_alerts(engine: Engine) -> None:
    ordinary, alert = engine.deliver("post"), engine.deliver("post", trigger="alert", idempotency_key="alert")
    pause_all(engine.database, "wrong text", "ada")  # before the connection has a row
    engine.run_due()
    assert engine.show(ordinary)["state"] == "pending"
    assert engine.show(alert)["state"] == "succeeded"
    [status] = connection_statuses(engine.database)
    assert str(status.pause) == "paused by an operator, with all connections: wrong text"
    engine.database.clock.advance(hours=2)
    engine.run_due()
    assert engine.show(ordinary)["state"] == "pending"
    assert resume_all(engine.database, "bob")
    engine.run_due()
    assert engine.show(ordinary)["state"] == "succeeded"
    assert connection_statuses(engine.database)[0].pause is None
    assert [
        (entry["actor"], entry["action"], entry["target"], entry["detail"])
        for entry in list_audit_entries(engine.database)
    ] == [
        ("bob", "resume", "all connections", None),
        ("ada", "pause", "all connections", {"scope": "deliveries", "reason": "wrong text"}),
    ]


def test_pause_of_all_messages_holds_neither_records_nor_alerts(engine: Engine) -> None:
    message, record = engine.deliver("send"), engine.deliver("post")
    alert = engine.deliver("send", trigger="alert", idempotency_key="alert")
    pause_all(engine.database, "wrong text", "ada", StopScope.MESSAGES)
    engine.run_due()
    assert [engine.show(one)["state"] for one in (message, record, alert)] == [
        "pending",
        "succeeded",
        "succeeded",
    ]
    assert connection_statuses(engine.database)[0].pause is None, "its other deliveries still leave"
    stop = current_stop(engine.database)
    assert stop is not None
    assert (stop.scope, stop.reason, stop.actor) == ("messages", "wrong text", "ada")
    assert resume_all(engine.database, "ada")
    assert current_stop(engine.database) is None
    engine.run_due()
    assert engine.show(message)["state"] == "succeeded"


def test_pause_of_everything_holds_alerts_too(engine: Engine) -> None:
    alert = engine.deliver("post", trigger="alert", idempotency_key="alert")
    pause_all(engine.database, "wrong text", "ada", StopScope.EVERYTHING)
    engine.run_due()
    assert engine.show(alert)["state"] == "pending"
    pause_all(engine.database, "wrong text", "ada", StopScope.DELIVERIES)
    engine.run_due()
    assert engine.show(alert)["state"] == "succeeded", "a second call replaces the scope"


def test_team_is_alerted_about_the_pause_of_all_connections(engine: Engine) -> None:
    pause_all(engine.database, "wrong text", "ada", StopScope.MESSAGES)
    messages = []

    def plan(_: object, delivery: Mapping[str, Any], __: object) -> tuple[str, Sequence[PlannedDelivery]]:
        messages.append(delivery["message"])
        return "hash", ()

    follow_up_pauses(engine.database, plan)
    follow_up_pauses(engine.database, plan)
    for reason in ("wrong text", "still wrong"):
        resume_all(engine.database, "ada")
        pause_all(engine.database, reason, "bob", StopScope.MESSAGES)
        follow_up_pauses(engine.database, plan)
    engine.database.clock.advance(minutes=11)
    follow_up_alert_groups(engine.database, plan)
    assert messages.pop().startswith("sending was stopped 2 more times since")
    [message] = messages
    assert message == (
        "sending was stopped by ada: wrong text. Messages to people wait; CRM records and alerts are still sent. "
        "Start it on the dashboard, or with `bridge resume --all`"
    )


def test_pauses_of_one_and_of_all_connections_end_independently(engine: Engine) -> None:
    delivery_id = engine.deliver("post")
    pause(engine.database, "desk", "maintenance", "ada")
    pause_all(engine.database, "first", "ada")
    pause_all(engine.database, "wrong text", "ada")
    assert str(connection_statuses(engine.database)[0].pause) == "paused by an operator: maintenance"
    resume(engine.database, "desk", "ada")
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "pending"
    assert str(connection_statuses(engine.database)[0].pause).endswith("with all connections: wrong text")
    pause(engine.database, "desk", "maintenance", "ada")
    assert resume_all(engine.database, "ada")
    assert not resume_all(engine.database, "ada")
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "pending"
    resume(engine.database, "desk", "ada")
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_retry_says_that_all_connections_are_paused(engine: Engine) -> None:
    engine.provider.before = raising(RateLimited("429", retry_after=timedelta(seconds=1)))
    delivery_id = engine.deliver("post")
    engine.run_due()
    pause_all(engine.database, "wrong text", "ada")
    engine.database.clock.advance(minutes=1)
    [result] = retry(engine.database, "ada", [delivery_id])
    assert "with all connections: wrong text" in result.text
    assert "`bridge resume --all`" in result.text
