"""Twilio callbacks: message statuses and replies, signed over the exact public URL."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping
from hashlib import sha256

import pytest
from twilio.request_validator import RequestValidator

from bridge.connector import InboundMessage, OptOut, StatusUpdate
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


def received(account: Connected, form: Mapping[str, str]) -> InboundMessage:
    [message] = post(account, "inbound", INBOUND_URL, form)
    assert isinstance(message, InboundMessage)
    return message


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
    assert received(account, form).text == "  stop \n"


def test_signature_covers_both_values_of_repeated_field(account: Connected) -> None:
    class Fields(dict[str, list[str]]):
        getlist = dict.__getitem__

    fields = Fields({"From": [PHONE], "Body": ["STOP"], "MediaUrl": ["b", "a"]})
    signature = RequestValidator(TOKEN).compute_signature(INBOUND_URL, fields)
    pairs = [(name, value) for name, values in fields.items() for value in values]
    reply = account.callback(
        "inbound", url=INBOUND_URL, form=pairs, headers={"X-Twilio-Signature": signature}
    )
    assert len(reply.learned) == 1


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
def test_unknown_status_is_reported_as_a_problem(account: Connected, form: dict[str, str]) -> None:
    reply = account.callback("status", url=STATUS_URL, form=form, headers=signature_headers(STATUS_URL, form))
    assert list(reply.learned) == []
    assert reply.problem == f"unknown MessageStatus `{form.get('MessageStatus', '')}`"


def test_opt_out_of_an_unreadable_number_is_reported_as_a_problem(account: Connected) -> None:
    form = status_form("failed", ErrorCode="21610") | {"To": "the visitor"}
    reply = account.callback("status", url=STATUS_URL, form=form, headers=signature_headers(STATUS_URL, form))
    assert [type(item) for item in reply.learned] == [StatusUpdate]
    assert reply.problem == "the recipient opted out, but `To` is not a phone number"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("30003", "Twilio error 30003: the phone was off or out of reach"),
        ("30007", "filtered the message"),
        ("30034", "in no A2P 10DLC campaign"),
        ("30032", "the toll-free number is not verified"),
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
    assert update.undeliverable is (code == "30006")


def test_status_callback_with_code_21610_records_opt_out(account: Connected) -> None:
    """With a messaging service, code 21610 arrives after the message was accepted."""
    updates = post(account, "status", STATUS_URL, status_form("failed", ErrorCode="21610"))
    assert updates[1:] == [OptOut("sms", PHONE)]


def test_opt_out_of_whatsapp_is_recorded_for_whatsapp(account: Connected) -> None:
    form = status_form("failed", ErrorCode="21610", To=f"whatsapp:{PHONE}")
    assert post(account, "status", STATUS_URL, form)[1:] == [OptOut("whatsapp", PHONE)]


def test_opt_out_of_an_rcs_recipient_is_one_of_texts(account: Connected) -> None:
    form = status_form("failed", ErrorCode="21610", To=f"rcs:{PHONE}")
    assert post(account, "status", STATUS_URL, form)[1:] == [OptOut("sms", PHONE)]


# ------------------------------------------------------------ replies


def test_text_is_reported_as_it_came(account: Connected) -> None:
    form = {"MessageSid": "SM1", "From": PHONE, "To": "+12125550100", "Body": "Call me at 5", "NumMedia": "0"}
    assert received(account, form) == InboundMessage("SM1", "sms", PHONE, "+12125550100", "Call me at 5")


def test_whatsapp_message_has_its_channel_and_the_profile_name(account: Connected) -> None:
    form = {
        "MessageSid": "SM1", "From": f"whatsapp:{PHONE}", "To": "whatsapp:+12125550100", "Body": "Hi",
        "ProfileName": "Ines",
    }  # fmt: skip
    assert received(account, form) == InboundMessage(
        "SM1", "whatsapp", PHONE, "+12125550100", "Hi", sender_name="Ines"
    )


@pytest.mark.parametrize(
    ("sender", "channel", "address"),
    [
        (f"rcs:{PHONE}", "sms", PHONE),
        (f"RCS:{PHONE}", "sms", PHONE),
        (f"WhatsApp:{PHONE}", "whatsapp", PHONE),
        ("messenger:12125550167", "sms", "messenger:12125550167"),
    ],
)
def test_channel_of_a_sender_is_what_twilio_writes_before_it(
    account: Connected, sender: str, channel: str, address: str
) -> None:
    """Twilio delivers a text to a phone that has RCS through it, and the person replies through it."""
    form = {"MessageSid": "SM1", "From": sender, "To": "rcs:harbor_light_agent", "Body": "Stop please"}
    message = received(account, form)
    assert (message.channel, message.sender, message.to) == (channel, address, "harbor_light_agent")


def test_pictures_are_a_list_of_urls(account: Connected) -> None:
    urls = {f"MediaUrl{number}": f"https://api.twilio.com/media/{number}" for number in range(2)}
    form = {"MessageSid": "MM1", "From": PHONE, "Body": "", "NumMedia": "2"} | urls
    assert list(received(account, form).media) == list(urls.values())


@pytest.mark.parametrize(
    ("opt_out_type", "keyword"),
    [("STOP", "stop"), ("START", "start"), ("HELP", "help"), ("stop", "stop"), ("", None), ("NEW", None)],
)
def test_opt_out_type_names_the_kind_of_keyword(
    account: Connected, opt_out_type: str, keyword: str | None
) -> None:
    """Twilio's Advanced Opt-Out has configurable keywords in any language."""
    form = {"MessageSid": "SM1", "From": PHONE, "Body": "BASTA", "OptOutType": opt_out_type}
    assert received(account, form).keyword == keyword


def test_text_without_sid_is_identified_by_its_request(account: Connected) -> None:
    first, same, other = (received(account, {"From": PHONE, "Body": body}) for body in ("a", "a", "b"))
    assert first.id == same.id != other.id
