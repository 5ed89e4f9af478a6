"""Twilio callbacks: message statuses and replies, signed over the exact public URL."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping
from hashlib import sha256

import pytest
from twilio.request_validator import RequestValidator

from bridge.connector import OptIn, OptOut, StatusUpdate
from bridge.errors import Refused
from bridge.testing import Connected, connect, load_connector

TOKEN = "the-auth-token-of-the-account"
STATUS_URL = "https://bridge.example.com/webhooks/twilio/status?delivery=dlv_1"
INBOUND_URL = "https://bridge.example.com/webhooks/twilio/inbound"
PHONE = "+12125550167"
ENVIRON = {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "TWILIO_FROM": "+12125550100",
}


@pytest.fixture
def account() -> Iterator[Connected]:
    with connect(load_connector("twilio"), ENVIRON) as connected:
        yield connected


def signature_headers(url: str, form: Mapping[str, str], token: str = TOKEN) -> dict[str, str]:
    return {"X-Twilio-Signature": RequestValidator(token).compute_signature(url, dict(form))}


def status_form(status: str, **more: str) -> dict[str, str]:
    return {"MessageSid": "SM1", "MessageStatus": status, "To": PHONE, "From": "+12125550100"} | more


def post(account: Connected, name: str, url: str, form: Mapping[str, str]) -> list[object]:
    return list(account.callback(name, url=url, form=form, headers=signature_headers(url, form)).learned)


# ------------------------------------------------------------ signatures


def test_signed_status_callback_is_answered_with_empty_twiml(account: Connected) -> None:
    form = status_form("delivered")
    reply = account.callback("status", url=STATUS_URL, form=form, headers=signature_headers(STATUS_URL, form))
    assert list(reply.learned) == [StatusUpdate("delivered", "SM1", "dlv_1")]
    assert (reply.media_type, reply.body) == (
        "text/xml",
        '<?xml version="1.0" encoding="UTF-8"?><Response/>',
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Twilio-Signature": ""},
        {"X-Twilio-Signature": "AAAA"},
        {"X-Twilio-Signature": "é" * 28},
        signature_headers(STATUS_URL, status_form("delivered"), token="another token"),
        signature_headers(STATUS_URL, status_form("failed")),
        signature_headers(STATUS_URL.replace("dlv_1", "dlv_2"), status_form("delivered")),
        signature_headers(
            "https://elsewhere.example.com/webhooks/twilio/status?delivery=dlv_1", status_form("delivered")
        ),
    ],
)
def test_missing_or_wrong_signature_is_rejected_with_403(account: Connected, headers: dict[str, str]) -> None:
    with pytest.raises(Refused) as caught:
        account.callback("status", url=STATUS_URL, form=status_form("delivered"), headers=headers)
    assert caught.value.status == 403


@pytest.mark.parametrize(("signed_scheme", "seen_scheme"), [("https", "http"), ("http", "https")])
def test_signature_is_valid_behind_tls_terminating_proxy(
    account: Connected, signed_scheme: str, seen_scheme: str
) -> None:
    form = status_form("sent")
    url = STATUS_URL.replace("https://", f"{signed_scheme}://")
    reply = account.callback(
        "status",
        url=STATUS_URL.replace("https://", f"{seen_scheme}://"),
        form=form,
        headers=signature_headers(url, form),
    )
    assert list(reply.learned) == [StatusUpdate("sent", "SM1", "dlv_1")]


def test_signature_covers_unstripped_and_unknown_fields(account: Connected) -> None:
    form = {"From": PHONE, "Body": "  stop \n", "UnknownParameter": " x ", "Empty": ""}
    assert post(account, "inbound", INBOUND_URL, form) == [OptOut("sms", PHONE)]


def test_signature_covers_both_values_of_repeated_field(account: Connected) -> None:
    class Fields(dict[str, list[str]]):
        getlist = dict.__getitem__

    fields = Fields({"From": [PHONE], "Body": ["STOP"], "MediaUrl": ["b", "a"]})
    signature = RequestValidator(TOKEN).compute_signature(INBOUND_URL, fields)
    pairs = [(name, value) for name, values in fields.items() for value in values]
    reply = account.callback(
        "inbound", url=INBOUND_URL, form=pairs, headers={"X-Twilio-Signature": signature}
    )
    assert list(reply.learned) == [OptOut("sms", PHONE)]


def test_lone_surrogate_is_rejected(account: Connected) -> None:
    with pytest.raises(Refused):
        account.callback(
            "status", url=STATUS_URL, form={"Body": "\ud800"}, body=b"x", headers={"X-Twilio-Signature": "x"}
        )


def test_shared_key_signature_uses_sha256(account: Connected) -> None:
    form = status_form("sent")
    text = STATUS_URL + "".join(name + form[name] for name in sorted(form))
    mac = hmac.new(b"the-shared-key", text.encode(), sha256).digest()
    headers = {
        "X-Twilio-Signature": base64.b64encode(mac).decode(),
        "X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256",
    }
    with connect(load_connector("twilio"), ENVIRON | {"TWILIO_SHARED_KEY": "the-shared-key"}) as shared:
        reply = shared.callback("status", url=STATUS_URL, form=form, headers=headers)
        assert list(reply.learned) == [StatusUpdate("sent", "SM1", "dlv_1")]
        # A signature by the auth token is still valid: Twilio migrates callback by callback.
        assert post(shared, "status", STATUS_URL, form)
    with pytest.raises(Refused):
        account.callback("status", url=STATUS_URL, form=form, headers=headers)
    for algorithm in ("HMAC_MD5", "none"):
        headers["X-Twilio-Webhooks-Signature-Settings"] = f"key=k,algorithm={algorithm}"
        with pytest.raises(Refused):
            account.callback("status", url=STATUS_URL, form=form, headers=headers)


# ------------------------------------------------------------ message status


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("accepted", "queued"),
        ("scheduled", "queued"),
        ("queued", "queued"),
        ("sending", "queued"),
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "delivered"),
        ("undelivered", "undelivered"),
        ("failed", "failed"),
        ("canceled", "failed"),
    ],
)
def test_twilio_status_is_mapped_to_message_status(account: Connected, status: str, state: str) -> None:
    [update] = post(account, "status", STATUS_URL, status_form(status))
    assert isinstance(update, StatusUpdate)
    assert update.state == state


@pytest.mark.parametrize("form", [status_form("levitating"), {"MessageSid": "SM1"}, {}])
def test_unknown_status_is_ignored(account: Connected, form: dict[str, str]) -> None:
    assert post(account, "status", STATUS_URL, form) == []


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("30003", "Twilio error 30003: the phone was off or out of reach"),
        ("30007", "filtered the message"),
        ("30034", "register for A2P 10DLC"),
        ("30032", "verify the toll-free number"),
        ("39999", "https://www.twilio.com/docs/errors/39999"),
        ("0", ""),
        ("", ""),
        ("9" * 30, ""),
        ("½", ""),
    ],
)
def test_undelivered_message_states_reason(account: Connected, code: str, detail: str) -> None:
    [update] = post(account, "status", STATUS_URL, status_form("undelivered", ErrorCode=code))
    assert isinstance(update, StatusUpdate)
    assert (detail in update.detail) if detail else update.detail == ""


def test_status_callback_with_code_21610_records_opt_out(account: Connected) -> None:
    """With a messaging service, code 21610 arrives after the message was accepted."""
    updates = post(account, "status", STATUS_URL, status_form("failed", ErrorCode="21610"))
    assert updates[1:] == [OptOut("sms", PHONE)]


# ------------------------------------------------------------ replies


STOP_WORDS = "STOP stop Stop! STOPALL stop-all UNSUBSCRIBE END QUIT CANCEL REVOKE OPTOUT opt_out"


@pytest.mark.parametrize("body", STOP_WORDS.split())
def test_stop_keyword_opts_out(account: Connected, body: str) -> None:
    assert post(account, "inbound", INBOUND_URL, {"From": PHONE, "Body": body}) == [OptOut("sms", PHONE)]


@pytest.mark.parametrize("body", ["START", "start.", "UNSTOP"])
def test_start_keyword_opts_in(account: Connected, body: str) -> None:
    assert post(account, "inbound", INBOUND_URL, {"From": PHONE, "Body": body}) == [OptIn("sms", PHONE)]


@pytest.mark.parametrize("body", ["YES", "yes please", "Don't stop", "the end", "", "😀", "help"])
def test_other_reply_is_ignored(account: Connected, body: str) -> None:
    assert post(account, "inbound", INBOUND_URL, {"From": PHONE, "Body": body}) == []


@pytest.mark.parametrize(
    ("opt_out_type", "expected"),
    [("STOP", [OptOut("sms", PHONE)]), ("START", [OptIn("sms", PHONE)]), ("HELP", [])],
)
def test_opt_out_type_takes_precedence_over_body(
    account: Connected, opt_out_type: str, expected: list[object]
) -> None:
    """Twilio's Advanced Opt-Out has configurable keywords in any language."""
    body = "STOP" if opt_out_type == "HELP" else "BASTA"
    form = {"From": PHONE, "Body": body, "OptOutType": opt_out_type}
    assert post(account, "inbound", INBOUND_URL, form) == expected


@pytest.mark.parametrize("sender", ["", "HARBOUR", "72727", "whatsapp:+12125550167", "+1212555 0167"])
def test_stop_from_invalid_number_is_ignored(account: Connected, sender: str) -> None:
    assert post(account, "inbound", INBOUND_URL, {"From": sender, "Body": "STOP"}) == []
