"""Follow-ups: one that cannot be created does not affect the others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.errors import AuthenticationError, PermanentError, TransientError
from bridge.events import Event
from bridge.lifecycle import PauseCause
from bridge.rules.model import PlannedDelivery
from bridge.store.connections import all_connections, pause_columns
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.follow_ups import follow_up_deliveries, follow_up_pauses
from bridge.store.queries import list_deliveries
from bridge.store.results import record_results
from bridge.store.schema import connections
from bridge.worker.router import Router
from tests.integration.engine import Engine

NUMBERS = itertools.count(5000)


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def failed_delivery(engine: Engine) -> str:
    def reject() -> None:
        raise PermanentError("no")

    engine.provider.before = reject
    delivery_id = engine.deliver("send", engine.event(metadata={"contactPhone": f"+1212559{next(NUMBERS)}"}))
    engine.run_due()
    assert engine.show(delivery_id)["needs_follow_up"]
    return delivery_id


def post(cause: str, now: datetime, **changes: Any) -> PlannedDelivery:
    defaults: dict[str, Any] = {
        "rule": "test", "trigger": "alert", "step_index": 0, "action": "desk.post", "connection": "desk", "params": {},
        "run_at": now, "idempotency_key": f"post {cause}", "updates_existing": False, "concurrency_key": None,
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
        item["parent_id"] for item in list_deliveries(engine.database).items if item["trigger"] == "alert"
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

    def after_failure(
        _: Any, __: Any, delivery: Mapping[str, Any], now: datetime
    ) -> Sequence[PlannedDelivery]:
        if delivery["id"] == delivery_ids[0]:
            raise ValueError("a bug")
        return [post(delivery["id"], now)]

    monkeypatch.setattr("bridge.worker.router.after_failure", after_failure)
    router = Router(
        engine.database, cast(Any, SimpleNamespace(current=SimpleNamespace(hash="rules", text="")))
    )
    while router.run_once():
        pass
    assert [engine.show(delivery_id)["needs_follow_up"] for delivery_id in delivery_ids] == [False, False]
    assert "post" in str([item["action"] for item in list_deliveries(engine.database).items])


def test_expired_delivery_with_failed_attempts_notifies_the_router(engine: Engine) -> None:
    def down() -> None:
        raise TransientError("down", retry_after=timedelta(minutes=2))

    engine.provider.before = down
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
