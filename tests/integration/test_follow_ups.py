"""Follow-ups: one that cannot be created does not affect the others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.connector import MessageStatus, StatusUpdate
from bridge.errors import (
    AuthenticationError,
    OutcomeUnknown,
    PermanentError,
    StoreUnavailable,
    TransientError,
)
from bridge.events import Event
from bridge.lifecycle import PauseCause
from bridge.rules.model import PlannedDelivery
from bridge.store.connection_status import all_connections
from bridge.store.connections import pause_columns
from bridge.store.database import EVENTS_TOPIC
from bridge.store.delivery_list import list_deliveries
from bridge.store.delivery_status import apply_callback
from bridge.store.follow_ups import follow_up_deliveries, follow_up_pauses
from bridge.store.operator_actions import resolve
from bridge.store.results import record_results
from bridge.store.schema import connections
from bridge.store.timeline import timeline
from bridge.worker.router import Router
from tests.integration.engine import Engine, raising

NUMBERS = itertools.count(5000)


def failed_delivery(engine: Engine) -> str:
    engine.provider.before = raising(PermanentError("no"))
    delivery_id = engine.deliver("send", engine.event(metadata={"contactPhone": f"+1212559{next(NUMBERS)}"}))
    engine.run_due()
    assert engine.show(delivery_id)["needs_follow_up"]
    return delivery_id


def post(cause: str, now: datetime, **changes: Any) -> PlannedDelivery:
    defaults: dict[str, Any] = {
        "rule": "test", "trigger": "on_failure", "step_index": 0, "action": "desk.post", "connection": "desk",
        "params": {}, "run_at": now, "idempotency_key": f"post {cause}", "updates_existing": False,
        "concurrency_key": None,
    }  # fmt: skip
    return PlannedDelivery(**defaults | changes)


@pytest.mark.parametrize("how", ["raises", "cannot be written"])
def test_failing_follow_up_does_not_block_others(engine: Engine, how: str) -> None:
    delivery_ids = [failed_delivery(engine) for _ in range(5)]
    failing_id = delivery_ids[2]

    def plan(_: Event, delivery: Mapping[str, Any], now: datetime) -> tuple[str, Sequence[PlannedDelivery]]:
        if delivery["id"] != failing_id:
            return "rules", [post(delivery["id"], now)]
        if how == "raises":
            raise ValueError("a bug")
        return "rules", [post(failing_id, now, idempotency_key=None)]

    failed: list[str] = []
    while (result := follow_up_deliveries(engine.database, plan))[0]:
        failed += result[1]
    assert failed == [failing_id]
    parent_ids = {
        item["parent_id"]
        for item in list_deliveries(engine.database).items
        if item["trigger"] == "on_failure"
    }
    assert parent_ids == set(delivery_ids) - {failing_id}
    shown = engine.show(failing_id)
    assert (shown["state"], shown["needs_follow_up"]) == ("failed", False)
    assert shown["detail"].startswith("no; follow-up failed (")


def test_failing_alert_does_not_block_others(engine: Engine) -> None:
    now = engine.database.clock.now()
    rows = [
        {"name": name, "failures": 0, "successes": 0}
        | pause_columns(PauseCause.AUTH, now, AuthenticationError("401").detail, alert=True)
        for name in ("desk", "mail", "post")
    ]
    with engine.database.write() as conn:
        conn.execute(connections.insert(), rows)

    def plan(_: Event, delivery: Mapping[str, Any], now: datetime) -> tuple[str, Sequence[PlannedDelivery]]:
        if delivery["connection"] == "desk":
            raise ValueError("a bug")
        return "rules", [post(delivery["id"], now)]

    failed: list[str] = []
    while (result := follow_up_pauses(engine.database, plan))[0]:
        failed += result[1]
    assert failed == ["desk"]
    assert len(list_deliveries(engine.database).items) == 2
    assert [row["alert_due"] for row in all_connections(engine.database)] == [False, False, False]


def test_router_continues_after_failing_follow_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery_ids = [failed_delivery(engine) for _ in range(2)]

    def after_delivery(
        _: Any, __: Any, delivery: Mapping[str, Any], now: datetime
    ) -> Sequence[PlannedDelivery]:
        if delivery["id"] == delivery_ids[0]:
            raise ValueError("a bug")
        return [post(delivery["id"], now)]

    monkeypatch.setattr("bridge.worker.router.after_delivery", after_delivery)
    router = Router(
        engine.database, cast(Any, SimpleNamespace(current=SimpleNamespace(hash="rules", text="")))
    )
    while router.run_once():
        pass
    assert [engine.show(delivery_id)["needs_follow_up"] for delivery_id in delivery_ids] == [False, False]
    assert "post" in str([item["action"] for item in list_deliveries(engine.database).items])


def test_expired_delivery_with_failed_attempts_notifies_the_router(engine: Engine) -> None:
    engine.provider.before = raising(TransientError("down", retry_after=timedelta(minutes=2)))
    expires_at = engine.database.clock.now() + timedelta(minutes=3)
    delivery_id = engine.deliver("send", expires_at=expires_at)
    engine.step()
    engine.database.clock.advance(minutes=4)
    published: list[frozenset[str]] = []
    engine.database.listeners.append(published.append)
    assert engine.claim() == []
    assert engine.show(delivery_id)["needs_follow_up"]
    assert any(EVENTS_TOPIC in topics for topics in published)


def test_pause_with_alert_notifies_the_router(engine: Engine) -> None:
    engine.deliver("post")
    [call] = engine.claim()
    published: list[frozenset[str]] = []
    engine.database.listeners.append(published.append)
    record_results(engine.database, engine.classify_result(call, [AuthenticationError("401")]))
    assert all_connections(engine.database)[0]["alert_due"]
    assert any(EVENTS_TOPIC in topics for topics in published)


def succeeded(engine: Engine, **planned: Any) -> str:
    """Return the ID of a text message that was sent for a rule with `on_success`."""
    number = f"+1212559{next(NUMBERS)}"
    delivery_id = engine.deliver(
        "send", engine.event(metadata={"contactPhone": number}), on_success=True, **planned
    )
    engine.run_due()
    return delivery_id


class Planner:
    """Plans one post per follow-up, and keeps what it was asked about."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def __call__(
        self, event: Event, delivery: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        self.asked.append(delivery)
        return "rules", [post(str(len(self.asked)), now, trigger="on_success")]

    @property
    def outcomes(self) -> list[tuple[str, str | None]]:
        return [(item["state"], item["reason"]) for item in self.asked]


def report(engine: Engine, status: MessageStatus, delivery_id: str) -> None:
    apply_callback(engine.database, "desk", [StatusUpdate(status, None, delivery_id)])


def test_success_is_followed_up_once_with_what_was_sent(engine: Engine) -> None:
    delivery_id = succeeded(engine)
    plan = Planner()
    for status in ("sent", "delivered", "delivered"):
        follow_up_deliveries(engine.database, plan)
        report(engine, cast(MessageStatus, status), delivery_id)
    [asked] = plan.asked
    shown = engine.show(delivery_id)
    assert not shown["needs_follow_up"]
    assert asked["params"] == shown["params"]
    assert (asked["channel"], asked["external_id"]) == ("sms", f"sms-{delivery_id}")
    assert asked["sent_at"] == shown["first_attempt_at"].isoformat()
    assert asked["message"] == f"desk.send of rule test succeeded ({delivery_id})"


def test_success_without_on_success_is_not_flagged(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    published: list[frozenset[str]] = []
    engine.database.listeners.append(published.append)
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert not engine.show(delivery_id)["needs_follow_up"]
    assert not any(EVENTS_TOPIC in topics for topics in published)


def test_message_that_is_undelivered_later_is_followed_up_as_a_failure_only(engine: Engine) -> None:
    delivery_id = succeeded(engine)
    plan = Planner()
    follow_up_deliveries(engine.database, plan)
    report(engine, "undelivered", delivery_id)
    follow_up_deliveries(engine.database, plan)
    report(engine, "delivered", delivery_id)
    assert follow_up_deliveries(engine.database, plan) == (0, [])
    assert plan.outcomes == [("succeeded", None), ("succeeded", "undelivered")]


def test_message_that_is_undelivered_before_its_follow_up_is_a_failure_only(engine: Engine) -> None:
    delivery_id = succeeded(engine)
    report(engine, "undelivered", delivery_id)
    plan = Planner()
    while follow_up_deliveries(engine.database, plan)[0]:
        pass
    assert plan.outcomes == [("succeeded", "undelivered")]


def test_operator_who_confirms_a_delivery_triggers_on_success(engine: Engine) -> None:
    engine.provider.before = raising(OutcomeUnknown("no answer"))
    delivery_id = engine.deliver("mail", on_success=True)
    engine.run_due()
    plan = Planner()
    follow_up_deliveries(engine.database, plan)
    assert resolve(engine.database, "ada", delivery_id, "delivered").done
    follow_up_deliveries(engine.database, plan)
    assert [state for state, _ in plan.outcomes] == ["needs_review", "succeeded"]


def test_flag_and_follow_ups_of_a_success_change_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery_id = succeeded(engine)

    def die(*_: Any) -> None:
        raise StoreUnavailable("the connection broke before the commit")

    plan = Planner()
    with monkeypatch.context() as patch:
        patch.setattr("bridge.store.follow_ups.finish_follow_ups", die)
        with pytest.raises(StoreUnavailable):
            follow_up_deliveries(engine.database, plan)
    assert engine.show(delivery_id)["needs_follow_up"]
    assert _posts(engine) == []
    follow_up_deliveries(engine.database, plan)
    assert not engine.show(delivery_id)["needs_follow_up"]
    [follow_up] = _posts(engine)
    assert follow_up["parent_id"] == delivery_id
    shown = engine.show(delivery_id)
    assert [item["id"] for item in shown["follow_ups"]] == [follow_up["id"]]
    texts = [text for _, text in timeline(shown | {"audit": []})]
    assert f"on_success: desk.post ({follow_up['id']})" in texts


def _posts(engine: Engine) -> list[Mapping[str, Any]]:
    return [item for item in list_deliveries(engine.database).items if item["action"] == "desk.post"]


def test_follow_up_of_a_success_has_none_itself(engine: Engine) -> None:
    delivery_id = succeeded(engine, trigger="on_success")
    assert not engine.show(delivery_id)["needs_follow_up"]


@pytest.mark.parametrize(
    ("trigger", "followed_up"), [("on_success", True), ("on_failure", True), ("alert", False)]
)
def test_failed_follow_up_is_reported_and_failed_alert_is_not(
    engine: Engine, trigger: str, followed_up: bool
) -> None:
    engine.provider.before = raising(PermanentError("no"))
    delivery_id = succeeded(engine, trigger=trigger)
    shown = engine.show(delivery_id)
    assert (shown["state"], shown["needs_follow_up"]) == ("failed", followed_up)
    plan = Planner()
    follow_up_deliveries(engine.database, plan)
    assert [item["trigger"] for item in plan.asked] == [trigger] * followed_up
