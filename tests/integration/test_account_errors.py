"""AccountError: anything wrong with the account pauses its connection, as rejected credentials do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bridge.clock import uptime
from bridge.connector import CallbackReply, CallbackRequest, Connector, ConnectorSettings, StatusUpdate
from bridge.errors import AccountError, AuthenticationError
from bridge.store.connections import all_connections, register_accounts, resume
from bridge.store.database import Database
from bridge.store.delivery_status import apply_callback
from bridge.telemetry import Metrics
from bridge.testing import Connected
from bridge.web.callbacks import callback_routes
from bridge.worker.account import Account
from tests.asgi_server import serving
from tests.integration.engine import Engine

NOT_REGISTERED = AccountError("the number is not registered (30034)", fix="register it at the provider")


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


@pytest.mark.parametrize(
    ("error", "cause"),
    [(AccountError("the sender is suspended"), "account"), (AuthenticationError("no such token"), "auth")],
)
def test_account_error_pauses_the_connection_and_consumes_no_attempt(
    engine: Engine, error: AccountError, cause: str
) -> None:
    delivery_id = engine.deliver("post")

    def fail() -> None:
        raise error

    engine.provider.before = fail
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
    def fail() -> None:
        raise AccountError("+14155550123 is not a sender of this account", fix="set DESK_FROM")

    engine.provider.before = fail
    engine.deliver("post")
    engine.run_due()
    assert connection(engine)["pause_reason"] == "+141***23 is not a sender of this account; set DESK_FROM"


def test_error_names_the_variables_of_a_second_account(engine: Engine) -> None:
    engine.deliver("post")
    [call] = engine.claim()

    def fail() -> None:
        raise AccountError("the sender is wrong", fix="set DESK_FROM")

    engine.provider.before = fail
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


def test_callback_about_the_account_pauses_the_connection_and_the_message_stays_undelivered(
    engine: Engine,
) -> None:
    sent = engine.deliver("send")
    engine.run_due()
    waiting = engine.deliver("send")
    status = StatusUpdate("undelivered", f"sms-{sent}", sent, "30034")
    apply_callback(engine.database, "desk", [status], NOT_REGISTERED)

    row = connection(engine)
    assert (row["pause_cause"], row["alert_due"]) == ("account", True)
    assert row["pause_reason"] == "the number is not registered (30034); register it at the provider"
    engine.run_for(minutes=10)
    assert [delivery_id for delivery_id, _ in engine.provider.messages] == [sent]
    assert engine.show(sent)["message_status"] == "undelivered"
    assert engine.show(waiting)["state"] == "pending"

    resume(engine.database, "desk", "ada")
    apply_callback(engine.database, "desk", [status], NOT_REGISTERED)  # the provider repeats it
    assert connection(engine)["pause_cause"] is None
    engine.run_for(minutes=1)
    assert [delivery_id for delivery_id, _ in engine.provider.messages] == [sent, waiting]


@pytest.fixture
def client(database: Database) -> Iterator[httpx.Client]:
    connector = Connector("desk", settings=ConnectorSettings)

    @connector.callback("status")
    def status(settings: Any, request: CallbackRequest) -> CallbackReply:
        return CallbackReply(account_error=NOT_REGISTERED)

    routes = callback_routes(database, {"desk": Connected(connector, {})}.get, None, Metrics())
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
