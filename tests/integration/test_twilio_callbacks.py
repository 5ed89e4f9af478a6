"""What Twilio posts back: receipts and replies, signed over the exact public URL."""

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
STATUS = "https://bridge.example.com/webhooks/twilio/status?delivery=dlv_1"
INBOUND = "https://bridge.example.com/webhooks/twilio/inbound"
PERSON = "+12125550167"
ENVIRON = {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "TWILIO_FROM": "+12125550100",
}


@pytest.fixture
def account() -> Iterator[Connected]:
    with connect(load_connector("twilio"), ENVIRON) as connected:
        yield connected


def signed(url: str, form: Mapping[str, str], token: str = TOKEN) -> dict[str, str]:
    return {"X-Twilio-Signature": RequestValidator(token).compute_signature(url, dict(form))}


def receipt(status: str, **more: str) -> dict[str, str]:
    return {"MessageSid": "SM1", "MessageStatus": status, "To": PERSON, "From": "+12125550100"} | more


def post(account: Connected, name: str, url: str, form: Mapping[str, str]) -> list[object]:
    return list(account.callback(name, url=url, form=form, headers=signed(url, form)).learned)


# ------------------------------------------------------------ signatures


def test_a_signed_receipt_is_taken_and_answered_with_empty_twiml(account: Connected) -> None:
    form = receipt("delivered")
    reply = account.callback("status", url=STATUS, form=form, headers=signed(STATUS, form))
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
        signed(STATUS, receipt("delivered"), token="another token"),
        signed(STATUS, receipt("failed")),
        signed(STATUS.replace("dlv_1", "dlv_2"), receipt("delivered")),
        signed("https://elsewhere.example.com/webhooks/twilio/status?delivery=dlv_1", receipt("delivered")),
    ],
)
def test_a_missing_or_wrong_signature_is_refused_with_403(
    account: Connected, headers: dict[str, str]
) -> None:
    with pytest.raises(Refused) as refused:
        account.callback("status", url=STATUS, form=receipt("delivered"), headers=headers)
    assert refused.value.status == 403


@pytest.mark.parametrize(("called", "told"), [("https", "http"), ("http", "https")])
def test_a_proxy_that_ends_tls_does_not_break_the_signature(
    account: Connected, called: str, told: str
) -> None:
    form = receipt("sent")
    url = STATUS.replace("https://", f"{called}://")
    reply = account.callback(
        "status", url=STATUS.replace("https://", f"{told}://"), form=form, headers=signed(url, form)
    )
    assert list(reply.learned) == [StatusUpdate("sent", "SM1", "dlv_1")]


def test_the_signature_covers_every_value_unstripped_and_unknown_ones_too(account: Connected) -> None:
    form = {"From": PERSON, "Body": "  stop \n", "ParameterOfNextYear": " x ", "Empty": ""}
    assert post(account, "inbound", INBOUND, form) == [OptOut("sms", PERSON)]


def test_a_field_that_comes_twice_is_signed_with_both_values(account: Connected) -> None:
    class Fields(dict[str, list[str]]):
        getlist = dict.__getitem__

    fields = Fields({"From": [PERSON], "Body": ["STOP"], "MediaUrl": ["b", "a"]})
    signature = RequestValidator(TOKEN).compute_signature(INBOUND, fields)
    pairs = [(name, value) for name, values in fields.items() for value in values]
    reply = account.callback("inbound", url=INBOUND, form=pairs, headers={"X-Twilio-Signature": signature})
    assert list(reply.learned) == [OptOut("sms", PERSON)]


def test_a_lone_surrogate_is_refused_and_not_an_error(account: Connected) -> None:
    with pytest.raises(Refused):
        account.callback(
            "status", url=STATUS, form={"Body": "\ud800"}, body=b"x", headers={"X-Twilio-Signature": "x"}
        )


def test_a_shared_key_signs_with_sha256(account: Connected) -> None:
    form = receipt("sent")
    text = STATUS + "".join(name + form[name] for name in sorted(form))
    mac = hmac.new(b"the-shared-key", text.encode(), sha256).digest()
    headers = {
        "X-Twilio-Signature": base64.b64encode(mac).decode(),
        "X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256",
    }
    with connect(load_connector("twilio"), ENVIRON | {"TWILIO_SHARED_KEY": "the-shared-key"}) as shared:
        reply = shared.callback("status", url=STATUS, form=form, headers=headers)
        assert list(reply.learned) == [StatusUpdate("sent", "SM1", "dlv_1")]
        # A signature by the auth token is still good: Twilio changes over callback by callback.
        assert post(shared, "status", STATUS, form)
    with pytest.raises(Refused):
        account.callback("status", url=STATUS, form=form, headers=headers)
    for algorithm in ("HMAC_MD5", "none"):
        headers["X-Twilio-Webhooks-Signature-Settings"] = f"key=k,algorithm={algorithm}"
        with pytest.raises(Refused):
            account.callback("status", url=STATUS, form=form, headers=headers)


# ------------------------------------------------------------ receipts


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("accepted", "queued"),
        ("scheduled", "queued"),
        ("queued", "queued"),
        ("running", "queued"),
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "delivered"),
        ("undelivered", "undelivered"),
        ("failed", "failed"),
        ("canceled", "failed"),
    ],
)
def test_each_status_is_one_of_our_receipts(account: Connected, status: str, state: str) -> None:
    [found] = post(account, "status", STATUS, receipt(status))
    assert isinstance(found, StatusUpdate)
    assert found.state == state


@pytest.mark.parametrize("form", [receipt("levitating"), {"MessageSid": "SM1"}, {}])
def test_a_status_of_next_year_teaches_nothing(account: Connected, form: dict[str, str]) -> None:
    assert post(account, "status", STATUS, form) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("30003", "Twilio error 30003: the phone was off or out of reach"),
        ("30007", "filtered"),
        ("30034", "register it for A2P 10DLC"),
        ("30032", "verify the toll-free number"),
        ("39999", "https://www.twilio.com/docs/errors/39999"),
        ("0", ""),
        ("", ""),
        ("9" * 30, ""),
        ("½", ""),
    ],
)
def test_a_text_that_was_not_delivered_says_why(account: Connected, code: str, words: str) -> None:
    [found] = post(account, "status", STATUS, receipt("undelivered", ErrorCode=code))
    assert isinstance(found, StatusUpdate)
    assert (words in found.detail) if words else found.detail == ""


def test_an_opt_out_that_only_the_callback_tells_is_remembered(account: Connected) -> None:
    """With a messaging service, 21610 comes after the text was accepted."""
    found = post(account, "status", STATUS, receipt("failed", ErrorCode="21610"))
    assert found[1:] == [OptOut("sms", PERSON)]


# ------------------------------------------------------------ replies


STOP_WORDS = "STOP stop Stop! STOPALL stop-all UNSUBSCRIBE END QUIT CANCEL REVOKE OPTOUT opt_out"


@pytest.mark.parametrize("body", STOP_WORDS.split())
def test_every_word_for_stop_opts_out(account: Connected, body: str) -> None:
    assert post(account, "inbound", INBOUND, {"From": PERSON, "Body": body}) == [OptOut("sms", PERSON)]


@pytest.mark.parametrize("body", ["START", "start.", "UNSTOP"])
def test_start_opts_in_again(account: Connected, body: str) -> None:
    assert post(account, "inbound", INBOUND, {"From": PERSON, "Body": body}) == [OptIn("sms", PERSON)]


@pytest.mark.parametrize("body", ["YES", "yes please", "Don't stop", "the end", "", "😀", "help"])
def test_other_words_change_nothing(account: Connected, body: str) -> None:
    assert post(account, "inbound", INBOUND, {"From": PERSON, "Body": body}) == []


@pytest.mark.parametrize(
    ("kind", "learned"),
    [("STOP", [OptOut("sms", PERSON)]), ("START", [OptIn("sms", PERSON)]), ("HELP", [])],
)
def test_twilios_own_reading_of_a_reply_wins(account: Connected, kind: str, learned: list[object]) -> None:
    """Advanced opt-out has words of its own, in any language."""
    form = {"From": PERSON, "Body": "STOP" if kind == "HELP" else "BASTA", "OptOutType": kind}
    assert post(account, "inbound", INBOUND, form) == learned


@pytest.mark.parametrize("sender", ["", "HARBOUR", "72727", "whatsapp:+12125550167", "+1212555 0167"])
def test_a_reply_from_no_phone_number_is_nobodys_opt_out(account: Connected, sender: str) -> None:
    assert post(account, "inbound", INBOUND, {"From": sender, "Body": "STOP"}) == []
