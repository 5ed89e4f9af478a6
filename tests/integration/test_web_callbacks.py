"""Provider callbacks, over HTTP and into the store, on both databases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from twilio.request_validator import RequestValidator

from bridge.connector import OptIn, OptOut, StatusUpdate
from bridge.errors import OutcomeUnknown, PermanentError, StoreUnavailable
from bridge.rules.model import PlannedDelivery
from bridge.store.database import Database
from bridge.store.delivery_status import apply_callback
from bridge.store.follow_ups import follow_up_deliveries
from bridge.store.opt_out_list import list_opt_outs
from bridge.store.results import record_results
from bridge.telemetry.metrics import Metrics
from bridge.testing import Connected, connect, load_connector
from bridge.web.app import _store_unavailable
from bridge.web.callbacks import callback_routes
from bridge.web.rejection_log import RejectionLog
from tests.asgi_server import serving
from tests.integration.engine import Engine

PUBLIC = "https://bridge.example.com"
PHONE = "+12125550167"
TOKEN = "the-auth-token-of-the-account"
ENVIRON = {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "TWILIO_FROM": "+12125550100",
}


@pytest.fixture
def twilio() -> Iterator[Connected]:
    with connect(load_connector("twilio"), ENVIRON) as connected:
        yield connected


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def client(database: Database, twilio: Connected, metrics: Metrics) -> Iterator[httpx.Client]:
    routes = callback_routes(database, {"twilio": twilio}.get, PUBLIC, metrics, RejectionLog(metrics))
    app = Starlette(routes=routes, exception_handlers={StoreUnavailable: _store_unavailable})
    with serving(app) as url, httpx.Client(base_url=url) as client:
        yield client


def post(client: httpx.Client, path: str, form: dict[str, str], *, signed_as: str | None = None) -> Any:
    signature = RequestValidator(TOKEN).compute_signature(signed_as or f"{PUBLIC}{path}", form)
    return client.post(path, data=form, headers={"X-Twilio-Signature": signature})


def test_callback_that_cannot_be_read_is_logged(client: httpx.Client) -> None:
    with structlog.testing.capture_logs() as logs:
        assert post(
            client, "/webhooks/twilio/status", {"MessageSid": "SM1", "MessageStatus": "levitating"}
        ).is_success
    (entry,) = [entry for entry in logs if entry["event"] == "callback could not be read"]
    assert (entry["connection"], entry["detail"]) == ("twilio", "unknown MessageStatus `levitating`")


def _raise_unavailable(limit: float | None = None) -> Any:
    raise StoreUnavailable("no disk")


def twilio_delivery(engine: Engine, **planned: Any) -> str:
    """Return a delivery over the connection `twilio`; the in-memory provider would run it."""
    return engine.deliver("send", connection="twilio", **planned)


def sent_message(engine: Engine) -> str:
    """Return a message that was sent over the connection `desk`."""
    delivery_id = engine.deliver("send")
    engine.run_due()
    return delivery_id


def report(
    engine: Engine, state: Any, delivery: str, external_id: str | None = None, detail: str = ""
) -> Any:
    return apply_callback(
        engine.database, "desk", [StatusUpdate(state, external_id or f"sms-{delivery}", delivery, detail)]
    )


# ------------------------------------------------------------ over HTTP


def test_signed_status_is_stored_before_the_response(client: httpx.Client, engine: Engine) -> None:
    delivery_id = twilio_delivery(engine)
    with engine.database.write() as conn:
        conn.exec_driver_sql("UPDATE deliveries SET state='succeeded', first_attempt_at=1")
    response = post(
        client,
        f"/webhooks/twilio/status?delivery={delivery_id}",
        {"MessageSid": "SM1", "MessageStatus": "delivered"},
    )
    assert (response.status_code, response.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert response.text == '<?xml version="1.0" encoding="UTF-8"?><Response/>'
    shown = engine.show(delivery_id)
    assert (shown["message_status"], shown["external_id"]) == ("delivered", "SM1")


def test_stop_and_start_are_stored_as_opt_out_and_opt_in(client: httpx.Client, database: Database) -> None:
    post(client, "/webhooks/twilio/inbound", {"From": PHONE, "Body": " Stop. "})
    assert [(row["address"], row["source"]) for row in list_opt_outs(database).items] == [
        (PHONE, "STOP to twilio")
    ]
    post(client, "/webhooks/twilio/inbound", {"From": PHONE, "Body": "START"})
    assert list_opt_outs(database).items == []


def test_callbacks_are_counted_by_response_status(
    client: httpx.Client, database: Database, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/webhooks/twilio/inbound"
    post(client, path, {"From": PHONE, "Body": "hello"})
    post(client, path, {"From": PHONE}, signed_as="https://elsewhere.example.com")
    client.post("/webhooks/twilio/nothing")
    monkeypatch.setattr(database, "write", _raise_unavailable)
    post(client, path, {"From": PHONE, "Body": "hello"})
    counts = {
        (sample.labels["callback"], sample.labels["status"]): sample.value
        for family in metrics.web.callbacks.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert counts == {("inbound", "200"): 1, ("inbound", "403"): 1, ("inbound", "503"): 1}


@pytest.mark.parametrize(
    "headers", [{}, {"X-Twilio-Signature": "nonsense"}, {"X-Twilio-Signature": "é".encode()}]
)
def test_unsigned_callback_is_rejected_and_stores_nothing(
    client: httpx.Client, database: Database, headers: Any
) -> None:
    response = client.post("/webhooks/twilio/inbound", data={"From": PHONE, "Body": "STOP"}, headers=headers)
    assert (response.status_code, response.text) == (403, "")
    assert list_opt_outs(database).items == []


def test_signature_is_checked_against_the_public_url(client: httpx.Client) -> None:
    form = {"From": PHONE, "Body": "hello"}
    elsewhere = "https://evil.example/webhooks/twilio/inbound"
    signature = RequestValidator(TOKEN).compute_signature(elsewhere, form)
    forged = {"X-Twilio-Signature": signature, "Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    assert client.post("/webhooks/twilio/inbound", data=form, headers=forged).status_code == 403


def test_query_is_part_of_the_signature_exactly_as_sent(client: httpx.Client) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "sent"}
    assert post(client, "/webhooks/twilio/status?delivery=dlv%5F1&b=&a=%20x+y", form).status_code == 200


def test_form_fields_are_complete_and_not_stripped(client: httpx.Client) -> None:
    form = {"From": PHONE, "Body": "  two  spaces \n", "Empty": "", "Emoji": "✅", "Plus": "a+b"}
    assert post(client, "/webhooks/twilio/inbound", form).status_code == 200


def test_public_url_with_path_is_part_of_the_signature(
    database: Database, twilio: Connected, metrics: Metrics
) -> None:
    routes = callback_routes(
        database, {"twilio": twilio}.get, f"{PUBLIC}/hooks/", metrics, RejectionLog(metrics)
    )
    with serving(Starlette(routes=routes)) as url, httpx.Client(base_url=url) as client:
        path = "/webhooks/twilio/inbound"
        response = post(client, path, {"From": PHONE}, signed_as=f"{PUBLIC}/hooks{path}")
    assert response.status_code == 200


def test_request_url_is_used_without_a_public_url(
    database: Database, twilio: Connected, metrics: Metrics
) -> None:
    routes = callback_routes(database, {"twilio": twilio}.get, None, metrics, RejectionLog(metrics))
    with serving(Starlette(routes=routes)) as url, httpx.Client(base_url=url) as client:
        path = "/webhooks/twilio/inbound"
        response = post(client, path, {"From": PHONE}, signed_as=f"{url}{path}")
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * (64 * 1024 + 1), 413),
        (b"&".join(b"a=1" for _ in range(1001)), 400),
        (b"\xff\xfe=%zz&=&&;\x00", 403),
        (b"", 403),
    ],
)
def test_malformed_or_oversized_request_is_rejected_and_counted(
    client: httpx.Client, metrics: Metrics, body: bytes, status: int
) -> None:
    headers = {"X-Twilio-Signature": "x", "Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/webhooks/twilio/inbound", content=body, headers=headers).status_code == status
    labels = {"connection": "twilio", "callback": "inbound", "status": str(status)}
    assert metrics.web.registry.get_sample_value("bridge_callbacks_total", labels) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/webhooks/twilio/status", 405),
        ("POST", "/webhooks/twilio/nothing", 404),
        ("POST", "/webhooks/unknown/status", 404),
    ],
)
def test_only_declared_callbacks_of_used_connections_exist(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    assert client.request(method, path).status_code == status


def test_callback_that_cannot_be_stored_gets_503(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "write", _raise_unavailable)
    assert post(client, "/webhooks/twilio/inbound", {"From": PHONE, "Body": "STOP"}).status_code == 503


def test_status_of_unknown_delivery_gets_200(client: httpx.Client) -> None:
    form = {"MessageSid": "SM404", "MessageStatus": "delivered"}
    assert post(client, "/webhooks/twilio/status?delivery=dlv_404", form).status_code == 200


# ------------------------------------------------------------ message statuses


@pytest.mark.parametrize(
    "order",
    [
        *itertools.permutations(["queued", "sent", "delivered"]),
        ("delivered",) * 3,
        ("sent", "sent", "delivered"),
    ],
)
def test_statuses_in_any_order_end_in_the_same_status(engine: Engine, order: tuple[str, ...]) -> None:
    delivery_id = sent_message(engine)
    for state in order:
        assert report(engine, state, delivery_id) == []
    assert engine.show(delivery_id)["message_status"] == "delivered"


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.permutations(["delivered", "undelivered", "failed"], 2))
)
def test_first_final_status_stays(engine: Engine, first: str, second: str) -> None:
    delivery_id = sent_message(engine)
    report(engine, first, delivery_id)
    report(engine, second, delivery_id)
    assert engine.show(delivery_id)["message_status"] == first


def test_status_is_matched_by_external_id_alone(engine: Engine) -> None:
    delivery_id = sent_message(engine)
    assert apply_callback(engine.database, "desk", [StatusUpdate("delivered", f"sms-{delivery_id}")]) == []
    assert engine.show(delivery_id)["message_status"] == "delivered"


def test_status_of_other_connection_or_unknown_delivery_changes_nothing(engine: Engine) -> None:
    delivery_id = sent_message(engine)
    status_update = StatusUpdate("delivered", f"sms-{delivery_id}", delivery_id)
    assert [item.update for item in apply_callback(engine.database, "twilio_eu", [status_update])] == [
        status_update
    ]
    assert (
        len(
            apply_callback(
                engine.database,
                "desk",
                [StatusUpdate("delivered"), StatusUpdate("delivered", "SM404", "dlv_404")],
            )
        )
        == 2
    )
    assert engine.show(delivery_id)["message_status"] == "queued"


def test_status_of_a_second_message_is_reported_as_unmatched(engine: Engine) -> None:
    delivery_id = sent_message(engine)
    [unmatched] = report(engine, "failed", delivery_id, "SM-other")
    assert "one message too many" in unmatched.reason
    assert engine.show(delivery_id)["message_status"] == "queued"


def test_status_of_delivery_without_attempt_is_unmatched(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    assert len(report(engine, "delivered", delivery_id)) == 1
    assert engine.show(delivery_id)["state"] == "pending"


# ------------------------------------------------------------ statuses as confirmation


def message_with_unknown_outcome(engine: Engine, **planned: Any) -> str:
    """Return a message that was sent, but whose response was lost."""

    def lose_response() -> None:
        engine.provider.after = None
        raise OutcomeUnknown("no answer")

    engine.provider.after = lose_response
    delivery_id = engine.deliver("send", **planned)
    engine.run_due()
    return delivery_id


def test_status_confirms_attempt_with_unknown_outcome(engine: Engine) -> None:
    delivery_id = message_with_unknown_outcome(engine)
    assert engine.show(delivery_id)["state"] == "retrying"
    assert report(engine, "sent", delivery_id) == []
    engine.run_for(minutes=5)
    shown = engine.show(delivery_id)
    assert (shown["state"], shown["external_id"], shown["message_status"]) == (
        "succeeded",
        f"sms-{delivery_id}",
        "sent",
    )
    assert shown["finished_at"] is not None
    assert len(engine.provider.messages) == 1
    assert len(shown["attempt_history"]) == 1, "there was no lookup and no further attempt"


def test_confirmed_delivery_suppresses_a_second_one(engine: Engine) -> None:
    event = engine.event()
    first = engine.deliver("send", event)
    engine.provider.before = lambda: (_ for _ in ()).throw(PermanentError("no such number"))
    engine.run_due()
    assert engine.show(first)["state"] == "failed"
    engine.provider.before = None
    report(engine, "delivered", first)
    assert engine.show(first)["state"] == "succeeded"
    second = engine.deliver("send", event)
    engine.run_due()
    assert (engine.show(second)["state"], engine.show(second)["reason"]) == ("suppressed", "duplicate")
    assert engine.provider.messages == []


def test_status_resolves_a_review(engine: Engine) -> None:
    engine.provider.lookup_works = False
    delivery_id = message_with_unknown_outcome(engine)
    engine.run_for(seconds=30)
    assert engine.show(delivery_id)["state"] == "needs_review"
    report(engine, "delivered", delivery_id)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert engine.show(delivery_id)["reason"] is None


@pytest.mark.parametrize("outcome", ["succeeded", "unknown"])
@pytest.mark.parametrize("state", ["delivered", "undelivered"])
def test_status_that_arrives_during_the_attempt_is_kept(engine: Engine, outcome: str, state: str) -> None:
    delivery_id = engine.deliver("send")
    [call] = engine.claim()
    engine.provider.after = lambda: report(
        engine, state, delivery_id, detail="Twilio error 30006: a landline"
    )
    [result] = engine.attempt(call)
    if outcome == "unknown":
        engine.provider.after = lambda: (_ for _ in ()).throw(OutcomeUnknown("no answer"))
        [result] = engine.attempt(call)
    assert engine.show(delivery_id)["state"] == "running"
    record_results(engine.database, [result])
    shown = engine.show(delivery_id)
    assert (shown["state"], shown["message_status"], shown["external_id"]) == (
        "succeeded",
        state,
        f"sms-{delivery_id}",
    )
    assert shown["needs_follow_up"] is (state == "undelivered")
    assert shown["outcome_unknown_since"] is None
    if state == "undelivered":
        assert shown["detail"] == "Twilio error 30006: a landline"


@pytest.mark.parametrize("state", ["undelivered", "failed"])
def test_undelivered_message_is_followed_up_once(engine: Engine, state: str) -> None:
    delivery_id = sent_message(engine)
    planned_for: list[dict[str, Any]] = []

    def plan(event: Any, delivery: Any, now: Any) -> tuple[str, list[PlannedDelivery]]:
        planned_for.append(dict(delivery))
        return "hash", []

    published: list[frozenset[str]] = []
    engine.database.listeners.append(published.append)
    for _ in range(3):
        report(engine, state, delivery_id, detail="Twilio error 30003: +12125550167 cannot be reached")
        follow_up_deliveries(engine.database, plan)
    [delivery] = planned_for
    assert (delivery["state"], delivery["message_status"], delivery["reason"]) == ("succeeded", state, state)
    assert f"was {state}" in delivery["message"]
    assert PHONE not in delivery["detail"]
    assert frozenset(["events"]) in published


@pytest.mark.parametrize(("trigger", "is_alerted"), [("on_failure", True), ("alert", False)])
def test_failed_follow_up_is_alerted_and_failed_alert_is_not(
    engine: Engine, trigger: str, is_alerted: bool
) -> None:
    delivery_id = engine.deliver("send", trigger=trigger)
    engine.run_due()
    report(engine, "failed", delivery_id)
    assert engine.show(delivery_id)["needs_follow_up"] is is_alerted


def test_events_of_one_callback_are_stored_together(engine: Engine) -> None:
    delivery_id = sent_message(engine)
    apply_callback(engine.database, "desk", [StatusUpdate("failed", None, delivery_id), OptOut("sms", PHONE)])
    assert engine.show(delivery_id)["message_status"] == "failed"
    assert [row["address"] for row in list_opt_outs(engine.database).items] == [PHONE]
    apply_callback(engine.database, "desk", [OptIn("sms", PHONE)])
    assert list_opt_outs(engine.database).items == []
