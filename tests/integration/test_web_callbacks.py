"""What partners post back, over HTTP and into the store, on both databases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from twilio.request_validator import RequestValidator

from bridge.connector import OptIn, OptOut, StatusUpdate
from bridge.errors import OutcomeUnknown, PermanentError, StoreUnavailable
from bridge.rules.model import Planned
from bridge.store.database import Database
from bridge.store.delivery_status import learn
from bridge.store.follow_ups import follow_up_deliveries
from bridge.store.opt_outs import opt_outs
from bridge.store.results import finish
from bridge.testing import Connected, connect, load_connector
from bridge.web.app import _unavailable
from bridge.web.callbacks import callback_routes
from tests.asgi_server import serving
from tests.integration.engine import Engine

PUBLIC = "https://bridge.example.com"
PERSON = "+12125550167"
TOKEN = "the-auth-token-of-the-account"
ENVIRON = {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "TWILIO_FROM": "+12125550100",
}


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


@pytest.fixture
def twilio() -> Iterator[Connected]:
    with connect(load_connector("twilio"), ENVIRON) as connected:
        yield connected


@pytest.fixture
def client(database: Database, twilio: Connected) -> Iterator[httpx.Client]:
    routes = callback_routes(database, {"twilio": twilio}, PUBLIC)
    app = Starlette(routes=routes, exception_handlers={StoreUnavailable: _unavailable})
    with serving(app) as url, httpx.Client(base_url=url) as client:
        yield client


def post(client: httpx.Client, path: str, form: dict[str, str], *, signed_as: str | None = None) -> Any:
    signature = RequestValidator(TOKEN).compute_signature(signed_as or f"{PUBLIC}{path}", form)
    return client.post(path, data=form, headers={"X-Twilio-Signature": signature})


def text(engine: Engine, **planned: Any) -> str:
    """A delivery of the connection `twilio`, carried out by the partner in memory."""
    return engine.deliver("send", connection="twilio", **planned)


def sent_text(engine: Engine) -> str:
    """A text that was sent over the connection `desk`."""
    ident = engine.deliver("send")
    engine.lookup_delay()
    return ident


def report(engine: Engine, state: Any, delivery: str, ident: str | None = None, detail: str = "") -> Any:
    return learn(engine.database, "desk", [StatusUpdate(state, ident or f"sms-{delivery}", delivery, detail)])


# ------------------------------------------------------------ over HTTP


def test_a_signed_receipt_is_on_disk_before_the_partner_is_answered(
    client: httpx.Client, engine: Engine
) -> None:
    ident = text(engine)
    with engine.database.write() as connection:
        connection.exec_driver_sql("UPDATE deliveries SET state='succeeded', first_attempt_at=1")
    answer = post(
        client,
        f"/webhooks/twilio/status?delivery={ident}",
        {"MessageSid": "SM1", "MessageStatus": "delivered"},
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert answer.text == '<?xml version="1.0" encoding="UTF-8"?><Response/>'
    shown = engine.show(ident)
    assert (shown["message_status"], shown["external_id"]) == ("delivered", "SM1")


def test_stop_and_start_come_in_as_opt_out_and_opt_in(client: httpx.Client, database: Database) -> None:
    post(client, "/webhooks/twilio/inbound", {"From": PERSON, "Body": " Stop. "})
    assert [(row["address"], row["source"]) for row in opt_outs(database)] == [(PERSON, "STOP to twilio")]
    post(client, "/webhooks/twilio/inbound", {"From": PERSON, "Body": "START"})
    assert opt_outs(database) == []


@pytest.mark.parametrize(
    "headers", [{}, {"X-Twilio-Signature": "nonsense"}, {"X-Twilio-Signature": "é".encode()}]
)
def test_an_unsigned_callback_is_refused_and_teaches_nothing(
    client: httpx.Client, database: Database, headers: Any
) -> None:
    answer = client.post("/webhooks/twilio/inbound", data={"From": PERSON, "Body": "STOP"}, headers=headers)
    assert (answer.status_code, answer.text) == (403, "")
    assert opt_outs(database) == []


def test_the_signature_covers_the_public_address_and_not_a_forged_one(client: httpx.Client) -> None:
    form = {"From": PERSON, "Body": "hello"}
    elsewhere = "https://evil.example/webhooks/twilio/inbound"
    signature = RequestValidator(TOKEN).compute_signature(elsewhere, form)
    forged = {"X-Twilio-Signature": signature, "Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    assert client.post("/webhooks/twilio/inbound", data=form, headers=forged).status_code == 403


def test_the_query_is_signed_exactly_as_it_was_called(client: httpx.Client) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "sent"}
    assert post(client, "/webhooks/twilio/status?delivery=dlv%5F1&b=&a=%20x+y", form).status_code == 200


def test_fields_are_complete_and_not_stripped(client: httpx.Client) -> None:
    form = {"From": PERSON, "Body": "  two  spaces \n", "Empty": "", "Emoji": "✅", "Plus": "a+b"}
    assert post(client, "/webhooks/twilio/inbound", form).status_code == 200


def test_a_service_behind_a_path_is_called_by_its_public_address(
    database: Database, twilio: Connected
) -> None:
    routes = callback_routes(database, {"twilio": twilio}, f"{PUBLIC}/hooks/")
    with serving(Starlette(routes=routes)) as url, httpx.Client(base_url=url) as client:
        path = "/webhooks/twilio/inbound"
        answer = post(client, path, {"From": PERSON}, signed_as=f"{PUBLIC}/hooks{path}")
    assert answer.status_code == 200


def test_without_a_public_address_the_request_names_its_own(database: Database, twilio: Connected) -> None:
    routes = callback_routes(database, {"twilio": twilio}, None)
    with serving(Starlette(routes=routes)) as url, httpx.Client(base_url=url) as client:
        path = "/webhooks/twilio/inbound"
        answer = post(client, path, {"From": PERSON}, signed_as=f"{url}{path}")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * (64 * 1024 + 1), 413),
        (b"&".join(b"a=1" for _ in range(1001)), 400),
        (b"\xff\xfe=%zz&=&&;\x00", 403),
        (b"", 403),
    ],
)
def test_whatever_a_stranger_sends_is_refused(client: httpx.Client, body: bytes, status: int) -> None:
    headers = {"X-Twilio-Signature": "x", "Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/webhooks/twilio/inbound", content=body, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/webhooks/twilio/status", 405),
        ("POST", "/webhooks/twilio/nothing", 404),
        ("POST", "/webhooks/nobody/status", 404),
    ],
)
def test_only_declared_callbacks_of_connections_in_use_are_there(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    assert client.request(method, path).status_code == status


def test_a_callback_is_not_answered_200_when_it_cannot_be_written(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise StoreUnavailable("no disk")

    monkeypatch.setattr(database, "write", broken)
    assert post(client, "/webhooks/twilio/inbound", {"From": PERSON, "Body": "STOP"}).status_code == 503


def test_an_unknown_delivery_is_answered_200(client: httpx.Client) -> None:
    form = {"MessageSid": "SM404", "MessageStatus": "delivered"}
    assert post(client, "/webhooks/twilio/status?delivery=dlv_404", form).status_code == 200


# ------------------------------------------------------------ receipts


@pytest.mark.parametrize(
    "order",
    [
        *itertools.permutations(["queued", "sent", "delivered"]),
        ("delivered",) * 3,
        ("sent", "sent", "delivered"),
    ],
)
def test_receipts_in_any_order_and_repeated_end_the_same(engine: Engine, order: tuple[str, ...]) -> None:
    ident = sent_text(engine)
    for state in order:
        assert report(engine, state, ident) == []
    assert engine.show(ident)["message_status"] == "delivered"


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.permutations(["delivered", "undelivered", "failed"], 2))
)
def test_the_first_final_receipt_stays(engine: Engine, first: str, second: str) -> None:
    ident = sent_text(engine)
    report(engine, first, ident)
    report(engine, second, ident)
    assert engine.show(ident)["message_status"] == first


def test_a_receipt_is_found_by_the_partners_id_alone(engine: Engine) -> None:
    ident = sent_text(engine)
    assert learn(engine.database, "desk", [StatusUpdate("delivered", f"sms-{ident}")]) == []
    assert engine.show(ident)["message_status"] == "delivered"


def test_a_receipt_of_another_connection_or_of_nobody_changes_nothing(engine: Engine) -> None:
    ident = sent_text(engine)
    receipt = StatusUpdate("delivered", f"sms-{ident}", ident)
    assert [item.update for item in learn(engine.database, "twilio_eu", [receipt])] == [receipt]
    assert (
        len(
            learn(
                engine.database,
                "desk",
                [StatusUpdate("delivered"), StatusUpdate("delivered", "SM404", "dlv_404")],
            )
        )
        == 2
    )
    assert engine.show(ident)["message_status"] == "queued"


def test_a_second_message_of_one_delivery_is_told_and_not_mixed_up(engine: Engine) -> None:
    ident = sent_text(engine)
    [unmatched] = report(engine, "failed", ident, "SM-other")
    assert "one too many" in unmatched.why
    assert engine.show(ident)["message_status"] == "queued"


def test_a_receipt_of_a_delivery_that_was_never_attempted_proves_nothing(engine: Engine) -> None:
    ident = engine.deliver("send")
    assert len(report(engine, "delivered", ident)) == 1
    assert engine.show(ident)["state"] == "pending"


# ------------------------------------------------------------ receipts as proof


def unknown_text(engine: Engine, **planned: Any) -> str:
    """A text that went out, of which the bridge does not know."""

    def drop() -> None:
        engine.partner.after = None
        raise OutcomeUnknown("no answer")

    engine.partner.after = drop
    ident = engine.deliver("send", **planned)
    engine.lookup_delay()
    return ident


def test_a_receipt_proves_an_attempt_of_unknown_outcome(engine: Engine) -> None:
    ident = unknown_text(engine)
    assert engine.show(ident)["state"] == "retrying"
    assert report(engine, "sent", ident) == []
    engine.run_for(minutes=5)
    shown = engine.show(ident)
    assert (shown["state"], shown["external_id"], shown["message_status"]) == (
        "succeeded",
        f"sms-{ident}",
        "sent",
    )
    assert shown["finished_at"] is not None
    assert len(engine.partner.texts) == 1
    assert len(shown["attempt_history"]) == 1, "nothing was looked up or tried again"


def test_the_effect_of_a_proven_delivery_is_held_against_a_replay(engine: Engine) -> None:
    event = engine.event()
    first = engine.deliver("send", event)
    engine.partner.before = lambda: (_ for _ in ()).throw(PermanentError("no such number"))
    engine.lookup_delay()
    assert engine.show(first)["state"] == "failed"
    engine.partner.before = None
    report(engine, "delivered", first)
    assert engine.show(first)["state"] == "succeeded"
    second = engine.deliver("send", event)
    engine.lookup_delay()
    assert (engine.show(second)["state"], engine.show(second)["reason"]) == ("suppressed", "duplicate")
    assert engine.partner.texts == []


def test_a_receipt_settles_a_review(engine: Engine) -> None:
    engine.partner.can_tell = False
    ident = unknown_text(engine)
    engine.run_for(seconds=30)
    assert engine.show(ident)["state"] == "needs_review"
    report(engine, "delivered", ident)
    assert engine.show(ident)["state"] == "succeeded"
    assert engine.show(ident)["reason"] is None


@pytest.mark.parametrize("outcome", ["succeeded", "unknown"])
@pytest.mark.parametrize("state", ["delivered", "undelivered"])
def test_a_receipt_that_outruns_its_attempt_is_not_lost(engine: Engine, outcome: str, state: str) -> None:
    ident = engine.deliver("send")
    [call] = engine.claim()
    engine.partner.after = lambda: report(engine, state, ident, detail="Twilio error 30006: a landline")
    [ended] = engine.attempt(call)
    if outcome == "unknown":
        engine.partner.after = lambda: (_ for _ in ()).throw(OutcomeUnknown("no answer"))
        [ended] = engine.attempt(call)
    assert engine.show(ident)["state"] == "running"
    finish(engine.database, [ended])
    shown = engine.show(ident)
    assert (shown["state"], shown["message_status"], shown["external_id"]) == (
        "succeeded",
        state,
        f"sms-{ident}",
    )
    assert shown["needs_follow_up"] is (state == "undelivered")
    assert shown["outcome_unknown_since"] is None
    if state == "undelivered":
        assert shown["detail"] == "Twilio error 30006: a landline"


@pytest.mark.parametrize("state", ["undelivered", "failed"])
def test_a_message_that_was_not_received_is_followed_up_once(engine: Engine, state: str) -> None:
    ident = sent_text(engine)
    told: list[dict[str, Any]] = []

    def plan(event: Any, delivery: Any, now: Any) -> tuple[str, list[Planned]]:
        told.append(dict(delivery))
        return "hash", []

    woken: list[frozenset[str]] = []
    engine.database.on_change.append(woken.append)
    for _ in range(3):
        report(engine, state, ident, detail="Twilio error 30003: +12125550167 cannot be reached")
        follow_up_deliveries(engine.database, plan)
    [delivery] = told
    assert (delivery["state"], delivery["message_status"], delivery["reason"]) == ("succeeded", state, state)
    assert f"was {state}" in delivery["message"]
    assert PERSON not in delivery["detail"]
    assert frozenset(["events"]) in woken


def test_a_follow_up_that_fails_is_not_followed_up(engine: Engine) -> None:
    ident = engine.deliver("send", origin="on_failure")
    engine.lookup_delay()
    report(engine, "failed", ident)
    assert engine.show(ident)["needs_follow_up"] is False


def test_what_one_callback_teaches_is_written_together(engine: Engine) -> None:
    ident = sent_text(engine)
    learn(engine.database, "desk", [StatusUpdate("failed", None, ident), OptOut("sms", PERSON)])
    assert engine.show(ident)["message_status"] == "failed"
    assert [row["address"] for row in opt_outs(engine.database)] == [PERSON]
    learn(engine.database, "desk", [OptIn("sms", PERSON)])
    assert opt_outs(engine.database) == []
