"""Grouping of alerts: one per connection and cause in ten minutes, and no failure is unmentioned."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import (
    AccountError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    StoreUnavailable,
)
from bridge.events import Event
from bridge.policy.alert_groups import ALERT_INTERVAL, AlertGroup
from bridge.rules.model import PlannedDelivery
from bridge.store.connections import resume
from bridge.store.delivery_list import list_deliveries
from bridge.store.follow_ups import (
    follow_up_alert_groups,
    follow_up_deliveries,
    follow_up_pauses,
    has_pending_follow_ups,
)
from bridge.store.operator_actions import retry
from bridge.worker.router import Router
from tests.integration.engine import Engine, raising

NUMBERS = itertools.count(1000)


class Team:
    """Receives the alerts: what each is about, and when."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.alerts: list[Mapping[str, Any]] = []

    def plan(
        self, event: Event, delivery: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        alert = PlannedDelivery(
            "alerts", "alert", 0, "mail.send", "mail", dict(delivery), now,
            f"alert {delivery.get('outcome_id') or delivery['id']}", False, None,
        )  # fmt: skip
        return "rules", [alert]

    def follow_up(self) -> None:
        database = self.engine.database
        while has_pending_follow_ups(database):
            follow_up_deliveries(database, self.plan)
            follow_up_pauses(database, self.plan)
            follow_up_alert_groups(database, self.plan)

    @property
    def messages(self) -> list[str]:
        return [item["params"]["message"] for item in self.stored()]

    def stored(self) -> list[dict[str, Any]]:
        items = list_deliveries(self.engine.database, limit=1000).items
        alerts = [self.engine.show(item["id"]) for item in items if item["trigger"] == "alert"]
        return sorted(alerts, key=lambda item: item["run_at"])


@pytest.fixture
def team(engine: Engine) -> Team:
    return Team(engine)


def fail(engine: Engine, error: DeliveryError, rule: str = "test", use: str = "send") -> str:
    engine.provider.before = raising(error)
    event = engine.event(metadata={"contactPhone": f"+1212558{next(NUMBERS)}"})
    delivery_id = engine.deliver(use, event, rule=rule)
    engine.run_due()
    return delivery_id


def test_first_failure_is_alerted_at_once_and_the_rest_together(engine: Engine, team: Team) -> None:
    for rule in ("busy", "remind", "busy", "busy"):
        fail(engine, PermanentError("no such number"), rule)
    team.follow_up()
    assert len(team.messages) == 1
    last = fail(engine, PermanentError("no such number"), "remind")
    team.follow_up()
    engine.database.clock.advance(minutes=9)  # time goes on while a busy machine works
    team.follow_up()
    assert len(team.messages) == 1
    engine.database.clock.advance(minutes=1)
    team.follow_up()
    summary = team.stored()[1]
    assert summary["params"]["count"] == 4
    assert summary["parent_id"] == last
    assert re.fullmatch(
        r"4 more deliveries over desk failed \(rejected\) since \d\d:\d\d UTC: 2 of (busy, 2 of remind|remind, 2 of "
        rf"busy); the latest: desk.send of rule remind failed: no such number \({last}\)",
        summary["params"]["message"],
    )
    team.follow_up()
    assert len(team.messages) == 2


def test_causes_and_connections_are_alerted_apart(engine: Engine, team: Team) -> None:
    fail(engine, PermanentError("no such number"))
    fail(engine, OutcomeUnknown("no answer"), use="mail")
    fail(engine, AccountError("no sender"))
    team.follow_up()
    assert len(team.messages) == 3


def test_a_single_counted_failure_is_described_like_a_first_one(engine: Engine, team: Team) -> None:
    fail(engine, PermanentError("no such number"))
    team.follow_up()
    second = fail(engine, PermanentError("a landline"))
    team.follow_up()
    engine.database.clock.advance(minutes=10)
    team.follow_up()
    assert team.messages[1] == f"desk.send of rule test failed: a landline ({second})"


def test_exhausted_quota_is_alerted_once_however_many_deliveries_wait(engine: Engine, team: Team) -> None:
    until = engine.database.clock.now() + timedelta(hours=5)
    for _ in range(5):
        fail(engine, QuotaExhausted("100 of 100 messages today", until=until))
        team.follow_up()
        engine.database.clock.advance(minutes=20)
    [message] = team.messages
    assert f"is paused until {until:%H:%M} UTC (quota): 100 of 100 messages today" in message


def test_repeated_pauses_are_alerted_together(engine: Engine, team: Team) -> None:
    for _ in range(4):
        fail(engine, AccountError("the sender is blocked", fix="choose another one"))
        team.follow_up()
        resume(engine.database, "desk", "ada")
    engine.database.clock.advance(minutes=10)
    team.follow_up()
    first, second = team.messages
    assert "is paused (account): the sender is blocked; choose another one" in first
    assert second.startswith("connection desk was paused 3 more times since ")
    assert second.endswith("a pause that is over (connection desk, account)")


def test_delivery_that_fails_again_after_a_retry_is_alerted_again(engine: Engine, team: Team) -> None:
    delivery_id = fail(engine, PermanentError("no such number"))
    team.follow_up()
    engine.database.clock.advance(minutes=15)
    assert retry(engine.database, "ada", [delivery_id])[0].done
    engine.run_due()
    team.follow_up()
    assert len({alert["idempotency_key"] for alert in team.stored()}) == 2


def test_a_kill_leaves_a_failure_counted_or_flagged(
    engine: Engine, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(engine, PermanentError("no such number"))
    team.follow_up()
    second = fail(engine, PermanentError("no such number"))

    def die(*_: Any) -> None:
        raise StoreUnavailable("the connection broke before the commit")

    with monkeypatch.context() as patch:
        patch.setattr("bridge.store.follow_ups.finish_follow_ups", die)
        with pytest.raises(StoreUnavailable):
            follow_up_deliveries(engine.database, team.plan)
    assert engine.show(second)["needs_follow_up"]
    team.follow_up()
    engine.database.clock.advance(minutes=10)
    with monkeypatch.context() as patch:
        patch.setattr("bridge.store.follow_ups.save_groups", die)
        with pytest.raises(StoreUnavailable):
            follow_up_alert_groups(engine.database, team.plan)
    assert len(team.messages) == 1
    team.follow_up()
    assert len(team.messages) == 2


def test_alert_that_cannot_be_planned_does_not_block_others(engine: Engine, team: Team) -> None:
    for use in ("send", "mail", "send", "mail"):
        fail(engine, PermanentError("no") if use == "send" else OutcomeUnknown("no answer"), use=use)
    team.follow_up()
    engine.database.clock.advance(minutes=10)

    def plan(event: Event, delivery: Mapping[str, Any], now: datetime) -> Any:
        if delivery["state"] == "failed":
            raise ValueError("a bug")
        return team.plan(event, delivery, now)

    failed: list[str] = []
    while (result := follow_up_alert_groups(engine.database, plan))[0]:
        failed += result[1]
    assert failed == ["desk (failed: rejected)"]
    assert len(team.messages) == 3


def test_alert_that_another_server_has_sent_meanwhile_does_not_take_others_with_it(
    engine: Engine, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = engine.database
    for use in ("send", "mail", "send", "mail"):
        fail(engine, PermanentError("no") if use == "send" else OutcomeUnknown("no answer"), use=use)
    team.follow_up()
    database.clock.advance(minutes=10)

    def plan(event: Event, delivery: Mapping[str, Any], now: datetime) -> Any:
        raise ValueError("a bug")

    write, transactions = database.write, itertools.count(1)

    def write_after_another_server() -> Any:
        if next(transactions) == 2:
            follow_up_alert_groups(database, team.plan, limit=1)
        return write()

    monkeypatch.setattr(database, "write", write_after_another_server)
    follow_up_alert_groups(database, plan, limit=1)
    team.follow_up()
    assert len(team.messages) == 4


def test_router_sends_due_alerts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Mapping[str, Any]] = []

    def alert(_: Any, __: Any, delivery: Mapping[str, Any], now: datetime) -> Sequence[PlannedDelivery]:
        sent.append(delivery)
        return Team(engine).plan(cast(Any, None), delivery, now)[1]

    monkeypatch.setattr("bridge.worker.router.after_delivery", alert)
    monkeypatch.setattr("bridge.worker.router.alerts", alert)
    router = Router(
        engine.database, cast(Any, SimpleNamespace(current=SimpleNamespace(hash="rules", text="")))
    )
    for _ in range(3):
        fail(engine, PermanentError("no"))
    while router.run_once():
        pass
    engine.database.clock.advance(minutes=10)
    while router.run_once():
        pass
    assert [each["count"] for each in sent] == [1, 1, 1, 2]


def test_clock_that_was_set_back_does_not_hold_alerts_back() -> None:
    now = datetime.fromisoformat("2026-03-02T10:00:00+00:00")
    group = AlertGroup("desk", "failed: rejected", now + timedelta(hours=3))
    assert group.admit("busy", "dlv_1", now)


def test_problem_after_the_interval_joins_those_that_wait_for_their_alert() -> None:
    now = datetime.fromisoformat("2026-03-02T10:00:00+00:00")
    group = AlertGroup("desk", "failed: rejected")
    assert [group.admit("busy", "dlv", now + timedelta(minutes=at)) for at in (0, 1, 11)] == [
        True,
        False,
        False,
    ]
    summary = group.summarize({"message": "no"}, now + timedelta(minutes=11))
    assert (summary["count"], group.due_at) == (2, None)


problems = st.lists(
    st.tuples(
        st.integers(0, 900), st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"]), st.booleans()
    ),
    max_size=40,
)


@given(problems=problems)
def test_no_failure_is_unmentioned_and_no_group_is_alerted_twice_in_ten_minutes(
    problems: list[tuple[int, str, str, bool]],
) -> None:
    groups = {cause: AlertGroup("desk", f"failed: {cause}") for cause in ("a", "b")}
    alerts: dict[str, list[tuple[datetime, int]]] = {"a": [], "b": []}
    now = datetime.fromisoformat("2026-03-02T10:00:00+00:00")

    def send_due() -> None:
        for cause, group in groups.items():
            if group.due_at is not None and group.due_at <= now:
                summary = group.summarize({"message": "the latest"}, now)
                alerts[cause].append((now, summary["count"]))

    for seconds, cause, rule, router_is_late in problems:
        now += timedelta(seconds=seconds)
        if not router_is_late:
            send_due()
        if groups[cause].admit(rule, "dlv", now):
            alerts[cause].append((now, 1))
    now += ALERT_INTERVAL
    send_due()
    for cause, sent in alerts.items():
        assert sum(count for _, count in sent) == sum(each == cause for _, each, *_ in problems)
        for (first, _), (second, _) in itertools.pairwise(sent):
            assert second - first >= ALERT_INTERVAL
