"""Messages that an operator retries because they were not delivered: statuses and lookups of the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest

from bridge.connector import MessageStatus, StatusUpdate
from bridge.errors import AccountError, OutcomeUnknown, RateLimited
from bridge.events import Event
from bridge.rules.model import PlannedDelivery
from bridge.store.connection_status import all_connections
from bridge.store.connections import resume
from bridge.store.delivery_status import UnmatchedStatus, apply_callback
from bridge.store.follow_ups import follow_up_deliveries
from bridge.store.operator_actions import retry
from tests.integration.engine import Engine

NOT_REGISTERED = AccountError("the number is not registered")


def report(engine: Engine, state: MessageStatus, delivery_id: str) -> list[UnmatchedStatus]:
    """Report the status of the first message of a delivery."""
    failed = state in ("failed", "undelivered")
    status = StatusUpdate(state, f"sms-{delivery_id}", delivery_id)
    return apply_callback(engine.database, "desk", [status], NOT_REGISTERED if failed else None)


@pytest.fixture
def retried(engine: Engine) -> str:
    """A delivery whose first message was not delivered because of the account, and that an operator retried."""
    delivery_id = engine.deliver("send")
    engine.run_due()
    report(engine, "undelivered", delivery_id)
    resume(engine.database, "desk", "ada")
    assert retry(engine.database, "ada", [delivery_id])[0].done
    return delivery_id


def raise_(error: Exception) -> None:
    raise error


def is_paused(engine: Engine) -> bool:
    [row] = all_connections(engine.database)
    return row["pause_cause"] == "account"


def test_late_status_of_the_first_message_does_not_end_the_retry(engine: Engine, retried: str) -> None:
    engine.provider.before = lambda: raise_(RateLimited("too many requests"))
    engine.run_due()
    assert engine.show(retried)["state"] == "retrying"
    [unmatched] = report(engine, "undelivered", retried)
    assert unmatched.reason == "it is about an earlier message of its delivery, which was retried since"
    assert engine.show(retried)["state"] == "retrying"
    assert not is_paused(engine)
    engine.provider.before = None
    engine.run_for(minutes=2)
    shown = engine.show(retried)
    assert (shown["state"], shown["external_id"]) == ("succeeded", f"sms-{retried}-2")


def test_late_status_of_the_first_message_says_nothing_about_the_running_attempt(
    engine: Engine, retried: str
) -> None:
    def lose_answer() -> None:
        report(engine, "undelivered", retried)
        raise OutcomeUnknown("no answer", reason="timeout")

    engine.provider.after = lose_answer
    engine.step()
    assert engine.show(retried)["state"] == "retrying"
    assert not is_paused(engine)
    engine.run_for(minutes=1)
    shown = engine.show(retried)
    assert (shown["state"], shown["external_id"]) == ("succeeded", f"sms-{retried}-2")


def test_lookup_does_not_take_the_first_message_for_the_second(engine: Engine, retried: str) -> None:
    engine.provider.before = lambda: raise_(OutcomeUnknown("no answer", reason="timeout"))
    engine.step()
    engine.provider.before = None
    engine.run_for(minutes=1)
    assert len(engine.provider.messages) == 2
    assert engine.show(retried)["external_id"] == f"sms-{retried}-2"


def test_first_message_that_arrives_after_all_ends_the_retry(engine: Engine, retried: str) -> None:
    assert report(engine, "delivered", retried) == []
    engine.run_for(minutes=1)
    shown = engine.show(retried)
    assert (shown["state"], shown["message_status"]) == ("succeeded", "delivered")
    assert len(engine.provider.messages) == 1


def test_second_message_that_fails_as_well_can_be_retried(engine: Engine, retried: str) -> None:
    engine.run_due()
    status = StatusUpdate("failed", f"sms-{retried}-2", retried)
    apply_callback(engine.database, "desk", [status], NOT_REGISTERED)
    resume(engine.database, "desk", "ada")
    assert retry(engine.database, "ada", [retried])[0].done
    report(engine, "failed", retried)
    apply_callback(engine.database, "desk", [status], NOT_REGISTERED)
    engine.run_due()
    assert engine.show(retried)["external_id"] == f"sms-{retried}-3"


def test_message_that_arrives_after_all_is_followed_up_as_a_success(engine: Engine) -> None:
    delivery_id = engine.deliver("send", on_success=True)
    engine.run_due()
    planned: list[tuple[Any, Any]] = []

    def plan(
        event: Event, delivery: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        planned.append((delivery["state"], delivery["reason"]))
        return "rules", ()

    follow_up_deliveries(engine.database, plan)
    report(engine, "undelivered", delivery_id)
    follow_up_deliveries(engine.database, plan)
    report(engine, "delivered", delivery_id)
    follow_up_deliveries(engine.database, plan)
    assert engine.show(delivery_id)["message_status"] == "delivered"
    assert planned == [("succeeded", None), ("failed", "account"), ("succeeded", None)]
