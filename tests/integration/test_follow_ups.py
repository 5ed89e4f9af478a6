"""Follow-ups that cannot be made: they hold up no others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.errors import AuthenticationError, PermanentError, TransientError
from bridge.events import Event
from bridge.rules.model import Planned
from bridge.store.connections import all_connections, pause_values
from bridge.store.database import EVENTS, Database
from bridge.store.follow_ups import follow_up_deliveries, follow_up_pauses
from bridge.store.queries import list_deliveries
from bridge.store.results import finish
from bridge.store.schema import connections
from bridge.worker.router import Router
from tests.integration.engine import Engine

NUMBERS = itertools.count(5000)


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def dead(engine: Engine) -> str:
    def no() -> None:
        raise PermanentError("no")

    engine.partner.before = no
    ident = engine.deliver("send", engine.event(metadata={"contactPhone": f"+1212559{next(NUMBERS)}"}))
    engine.lookup_delay()
    assert engine.show(ident)["needs_follow_up"]
    return ident


def post(cause: str, now: datetime, **changes: Any) -> Planned:
    given: dict[str, Any] = {
        "rule": "test", "trigger": "alert", "step_index": 0, "action": "desk.post", "connection": "desk", "params": {},
        "run_at": now, "idempotency_key": f"post {cause}", "updates_existing": False, "concurrency_key": None,
    }  # fmt: skip
    return Planned(**given | changes)


@pytest.mark.parametrize("how", ["raises", "cannot be written"])
def test_a_follow_up_that_cannot_be_made_holds_up_no_other(engine: Engine, how: str) -> None:
    idents = [dead(engine) for _ in range(5)]
    poison = idents[2]

    def plan(_: Event, delivery: Mapping[str, Any], now: datetime) -> tuple[str, Sequence[Planned]]:
        if delivery["id"] != poison:
            return "rules", [post(delivery["id"], now)]
        if how == "raises":
            raise ValueError("a bug")
        return "rules", [post(poison, now, idempotency_key=None)]

    failed: list[str] = []
    while (made := follow_up_deliveries(engine.database, plan))[0]:
        failed += made[1]
    assert failed == [poison]
    caused = {
        item["parent_id"] for item in list_deliveries(engine.database).items if item["trigger"] == "alert"
    }
    assert caused == set(idents) - {poison}
    shown = engine.show(poison)
    assert (shown["state"], shown["needs_follow_up"]) == ("failed", False)
    assert shown["detail"].startswith("no; no follow-up could be made (")


def test_an_alert_that_cannot_be_made_holds_up_no_other(engine: Engine) -> None:
    now = engine.database.clock.now()
    rows = [
        {"name": name, "failures": 0, "successes": 0}
        | pause_values("auth", now, AuthenticationError("401").detail, alert=True)
        for name in ("desk", "mail", "post")
    ]
    with engine.database.write() as connection:
        connection.execute(connections.insert(), rows)

    def plan(_: Event, delivery: Mapping[str, Any], now: datetime) -> tuple[str, Sequence[Planned]]:
        if delivery["connection"] == "desk":
            raise ValueError("a bug")
        return "rules", [post(delivery["id"], now)]

    failed: list[str] = []
    while (made := follow_up_pauses(engine.database, plan))[0]:
        failed += made[1]
    assert failed == ["desk"]
    assert len(list_deliveries(engine.database).items) == 2
    assert [row["alert_due"] for row in all_connections(engine.database)] == [False, False, False]


def test_the_router_goes_on_after_a_follow_up_that_cannot_be_made(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    idents = [dead(engine) for _ in range(2)]

    def after_failure(_: Any, __: Any, delivery: Mapping[str, Any], now: datetime) -> Sequence[Planned]:
        if delivery["id"] == idents[0]:
            raise ValueError("a bug")
        return [post(delivery["id"], now)]

    monkeypatch.setattr("bridge.worker.router.after_failure", after_failure)
    router = Router(
        engine.database, cast(Any, SimpleNamespace(current=SimpleNamespace(hash="rules", text="")))
    )
    while router.round():
        pass
    assert [engine.show(ident)["needs_follow_up"] for ident in idents] == [False, False]
    assert "post" in str([item["action"] for item in list_deliveries(engine.database).items])


def test_a_delivery_that_expires_after_attempts_in_vain_wakes_who_follows_it_up(engine: Engine) -> None:
    def down() -> None:
        raise TransientError("down", retry_after=timedelta(minutes=2))

    engine.partner.before = down
    expires_at = engine.database.clock.now() + timedelta(minutes=3)
    ident = engine.deliver("send", expires_at=expires_at)
    engine.step()
    engine.database.clock.advance(minutes=4)
    told: list[frozenset[str]] = []
    engine.database.on_change.append(told.append)
    assert engine.claim() == []
    assert engine.show(ident)["needs_follow_up"]
    assert any(EVENTS in topics for topics in told)


def test_a_pause_that_is_to_be_alerted_wakes_who_does_so(engine: Engine) -> None:
    engine.deliver("post")
    [call] = engine.claim()
    told: list[frozenset[str]] = []
    engine.database.on_change.append(told.append)
    finish(engine.database, engine.conclude(call, [AuthenticationError("401")]))
    assert all_connections(engine.database)[0]["alert_due"]
    assert any(EVENTS in topics for topics in told)
