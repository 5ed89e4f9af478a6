"""AccountError: anything wrong with the account pauses its connection, as rejected credentials do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bridge.clock import uptime
from bridge.connector import (
    CallbackReply,
    CallbackRequest,
    Connector,
    ConnectorSettings,
    MessageStatus,
    StatusUpdate,
)
from bridge.errors import AccountError, AuthenticationError
from bridge.store.connection_status import all_connections
from bridge.store.connections import register_accounts, resume
from bridge.store.database import Database
from bridge.store.delivery_status import apply_callback
from bridge.store.operator_actions import retry
from bridge.telemetry.metrics import Metrics
from bridge.testing import Connected
from bridge.web.callbacks import callback_routes
from bridge.web.rejection_log import RejectionLog
from bridge.worker.account import Account
from tests.asgi_server import serving
from tests.integration.engine import Engine, raising

NOT_REGISTERED = AccountError("the number is not registered (30034)", fix="register it at the provider")


@pytest.mark.parametrize(
    ("error", "cause"),
    [(AccountError("the sender is suspended"), "account"), (AuthenticationError("no such token"), "auth")],
)
def test_account_error_pauses_the_connection_and_consumes_no_attempt(
    engine: Engine, error: AccountError, cause: str
) -> None:
    delivery_id = engine.deliver("post")

    engine.provider.before = raising(error)
    engine.run_for(minutes=5)

    assert (connection(engine)["pause_cause"], connection(engine)["pause_reason"]) == (cause, error.detail)
    assert len(engine.provider.calls) == 1  # nothing is sent while the connection is paused
    delivery = engine.show(delivery_id)
    assert (delivery["state"], delivery["attempts"], delivery["reason"]) == ("retrying", 0, cause)

    engine.provider.before = None
    resume(engine.database, "desk", "ada")
    engine.run_for(minutes=1)
    assert engine.show(delivery_id)["state"] == "succeeded"


def test_pause_says_what_to_do_and_masks_addresses(engine: Engine) -> None:
    engine.provider.before = raising(
        AccountError("+14155550123 is not a sender of this account", fix="set DESK_FROM")
    )
    engine.deliver("post")
    engine.run_due()
    assert connection(engine)["pause_reason"] == "+141***23 is not a sender of this account; set DESK_FROM"


def test_error_names_the_variables_of_a_second_account(engine: Engine) -> None:
    engine.deliver("post")
    [call] = engine.claim()

    engine.provider.before = raising(AccountError("the sender is wrong", fix="set DESK_FROM"))
    second = Account("desk_eu", engine.connector, ConnectorSettings())
    [error] = engine.attempts.run(second, call, uptime() + 5)
    assert isinstance(error, AccountError)
    assert error.fix == "set DESK_EU_FROM"


def test_changed_settings_end_the_pause(engine: Engine) -> None:
    register_accounts(engine.database, {"desk": "old"})
    apply_callback(engine.database, "desk", [], NOT_REGISTERED)
    register_accounts(engine.database, {"desk": "old"})
    assert connection(engine)["pause_cause"] == "account"
    register_accounts(engine.database, {"desk": "new"})
    assert connection(engine)["pause_cause"] is None


def report(engine: Engine, state: MessageStatus, delivery_id: str) -> None:
    """Report the status of the first message of a delivery; the number is not registered."""
    failed = state in ("failed", "undelivered")
    status = StatusUpdate(state, f"sms-{delivery_id}", delivery_id, "30034")
    apply_callback(engine.database, "desk", [status], NOT_REGISTERED if failed else None)


def messages(engine: Engine) -> list[str]:
    return [delivery_id for delivery_id, _ in engine.provider.messages]


def test_callback_about_the_account_pauses_the_connection_and_its_message_can_be_retried(
    engine: Engine,
) -> None:
    sent = engine.deliver("send")
    engine.run_due()
    waiting = engine.deliver("send")
    report(engine, "undelivered", sent)

    row = connection(engine)
    assert (row["pause_cause"], row["alert_due"]) == ("account", True)
    assert row["pause_reason"] == "the number is not registered (30034); register it at the provider"
    engine.run_for(minutes=10)
    assert messages(engine) == [sent]
    shown = engine.show(sent)
    assert (shown["state"], shown["reason"], shown["detail"]) == ("failed", "account", "30034")
    assert (shown["message_status"], shown["needs_follow_up"]) == ("undelivered", True)
    assert engine.show(waiting)["state"] == "pending"

    resume(engine.database, "desk", "ada")
    engine.run_for(minutes=1)
    assert messages(engine) == [sent, waiting]  # nothing is sent again unasked
    assert retry(engine.database, "ada", [sent])[0].done
    engine.run_due()
    assert messages(engine) == [sent, waiting, sent]
    shown = engine.show(sent)
    assert (shown["state"], shown["message_status"]) == ("succeeded", "queued")


@pytest.mark.parametrize("repeated", ["undelivered", "failed", "sent", "queued"])
def test_repeated_or_late_status_changes_nothing(engine: Engine, repeated: MessageStatus) -> None:
    sent = engine.deliver("send")
    engine.run_due()
    report(engine, "undelivered", sent)
    resume(engine.database, "desk", "ada")
    report(engine, repeated, sent)
    assert connection(engine)["pause_cause"] is None
    assert engine.show(sent)["state"] == "failed"
    assert retry(engine.database, "ada", [sent])[0].done
    report(engine, repeated, sent)
    assert engine.show(sent)["state"] == "pending"
    engine.run_due()
    assert messages(engine) == [sent, sent]


def test_message_that_arrived_after_all_is_not_sent_again(engine: Engine) -> None:
    sent = engine.deliver("send")
    engine.run_due()
    report(engine, "undelivered", sent)
    report(engine, "delivered", sent)
    assert engine.show(sent)["state"] == "succeeded"
    assert not retry(engine.database, "ada", [sent])[0].done


def test_callback_during_the_attempt_counts_the_message_as_undelivered(engine: Engine) -> None:
    sent = engine.deliver("send")
    engine.provider.after = lambda: report(engine, "undelivered", sent)
    engine.step()
    shown = engine.show(sent)
    assert (shown["state"], shown["message_status"], shown["needs_follow_up"]) == (
        "succeeded",
        "undelivered",
        True,
    )
    assert connection(engine)["pause_cause"] == "account"


@pytest.fixture
def client(database: Database) -> Iterator[httpx.Client]:
    connector = Connector("desk", settings=ConnectorSettings)

    @connector.callback("status")
    def status(settings: Any, request: CallbackRequest) -> CallbackReply:
        return CallbackReply(account_error=NOT_REGISTERED)

    metrics = Metrics()
    routes = callback_routes(
        database, {"desk": Connected(connector, {})}.get, None, metrics, RejectionLog(metrics)
    )
    with serving(Starlette(routes=routes)) as url, httpx.Client(base_url=url) as client:
        yield client


def test_callback_with_nothing_but_an_account_error_pauses_the_connection(
    client: httpx.Client, engine: Engine
) -> None:
    assert client.post("/webhooks/desk/status").status_code == 200
    assert connection(engine)["pause_cause"] == "account"


def connection(engine: Engine) -> dict[str, Any]:
    [row] = all_connections(engine.database)
    return row
