"""Twilio accounts as they really are: API keys, senders, trials, suspensions and unregistered numbers."""

from __future__ import annotations

import base64

import httpx
import pytest
from twilio.request_validator import RequestValidator

from bridge.connector import OptOut, StatusUpdate
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    DeliveryError,
    PermanentError,
    QuotaExhausted,
)
from bridge.sandbox import RunningSandbox
from bridge.sandbox.twilio.account import (
    ACCOUNT_SID,
    API_KEY_SECRET,
    API_KEY_SID,
    AUTH_TOKEN,
    NUMBER,
    SERVICE_SID,
)
from bridge.testing import Connected, connect, event, load_connector

PHONE = "+12125550167"
STATUS_URL = "https://bridge.example.com/webhooks/twilio/status?delivery=dlv_1"
TEXT = {"body": "Hi Ines", "to": PHONE}
INBOUND = "https://bridge.example.com/webhooks/twilio/inbound"
SERVICE = {"MESSAGING_SERVICE_SID": SERVICE_SID, "FROM": ""}
twilio = load_connector("twilio")


@pytest.fixture
def sandbox(sandbox: RunningSandbox) -> RunningSandbox:
    sandbox.twilio.inbound_url = INBOUND
    return sandbox


def account(sandbox: RunningSandbox, **variables: str) -> Connected:
    """An account that sends texts only, unless the variables say otherwise."""
    changes = {f"TWILIO_{name}": value for name, value in ({"WHATSAPP_FROM": ""} | variables).items()}
    return connect(twilio, sandbox.environment | changes)


def refusal(sandbox: RunningSandbox, **variables: str) -> DeliveryError:
    with account(sandbox, **variables) as connected, pytest.raises(DeliveryError) as caught:
        connected.run("send_sms", TEXT, event=event())
    assert PHONE not in str(caught.value)
    return caught.value


# ------------------------------------------------------------ API keys


def test_sandbox_lets_a_standard_key_use_everything_but_the_account(sandbox: RunningSandbox) -> None:
    root = f"{sandbox.url}/twilio/2010-04-01/Accounts/{ACCOUNT_SID}"
    key, token = (API_KEY_SID, API_KEY_SECRET), (ACCOUNT_SID, AUTH_TOKEN)
    statuses = [
        httpx.get(f"{root}{path}.json", auth=auth).status_code
        for path in ("", "/Messages")
        for auth in (key, token, (API_KEY_SID, "wrong"), (API_KEY_SID, ""), ("SK" + "0" * 32, API_KEY_SECRET))
    ]
    assert statuses == [401, 200, 401, 401, 401, 200, 200, 401, 401, 401]


def test_requests_log_in_with_the_api_key_and_the_token_is_for_signatures(sandbox: RunningSandbox) -> None:
    with account(sandbox) as connected:
        assert connected.check() == "account active, API key accepted, sender found"
        connected.run("send_sms", TEXT, event=event())
        connected.find("send_sms", TEXT, event=event())
        assert API_KEY_SECRET not in repr(connected.settings)
    sandbox.twilio.standard_keys.clear()
    error = refusal(sandbox)
    assert isinstance(error, AuthenticationError)
    assert "each belongs to one account and one region" in error.fix

    form = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": PHONE}
    with account(sandbox) as connected:
        signature = RequestValidator(AUTH_TOKEN).compute_signature(STATUS_URL, form)
        reply = connected.callback(
            "status", url=STATUS_URL, form=form, headers={"x-twilio-signature": signature}
        )
    assert [type(item) for item in reply.learned] == [StatusUpdate]


def test_account_without_an_api_key_is_used_with_its_token(sandbox: RunningSandbox) -> None:
    sandbox.twilio.standard_keys.clear()
    with account(sandbox, API_KEY_SID="", API_KEY_SECRET="") as connected:
        assert connected.check() == (
            "account active, requests log in with the auth token: better create a Standard API key, sender found"
        )
        connected.run("send_sms", TEXT, event=event())
    assert len(sandbox.twilio.messages) == 1


@pytest.mark.parametrize(
    ("variables", "fix"),
    [
        ({"API_KEY_SECRET": "QX02ZJVK"}, "check TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET"),
        ({"AUTH_TOKEN": "QX02ZJVK"}, "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
        ({"ACCOUNT_SID": "AC" + "0" * 32}, "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
    ],
)
def test_check_says_which_credential_is_wrong(
    sandbox: RunningSandbox, variables: dict[str, str], fix: str
) -> None:
    with account(sandbox, **variables) as connected, pytest.raises(AuthenticationError) as caught:
        connected.check()
    assert fix in caught.value.fix
    assert "QX02" not in caught.value.pause_reason


@pytest.mark.parametrize("half", ["API_KEY_SID", "API_KEY_SECRET"])
def test_half_an_api_key_is_reported(sandbox: RunningSandbox, half: str) -> None:
    with pytest.raises(ConfigError, match="set both TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET"):
        account(sandbox, **{half: ""})


def test_key_of_another_account_is_an_account_error(sandbox: RunningSandbox) -> None:
    error = refusal(sandbox, ACCOUNT_SID="AC" + "0" * 32)
    assert isinstance(error, AccountError)
    assert "20404" in error.detail


# ------------------------------------------------------------ senders


def test_check_validates_both_kinds_of_sender(sandbox: RunningSandbox) -> None:
    with account(sandbox, MESSAGING_SERVICE_SID=SERVICE_SID) as connected:
        assert connected.check() == "account active, API key accepted, messaging service with a sender found"
    sandbox.twilio.numbers.append("+12125550101")
    with account(sandbox, MESSAGING_SERVICE_SID=SERVICE_SID, FROM="+12125550101") as connected:
        with pytest.raises(ConfigError, match="TWILIO_FROM is not in the sender pool"):
            connected.check()
        with pytest.raises(AccountError, match="21712: the sender is not in the sender pool"):
            connected.run("send_sms", TEXT, event=event())


def test_check_reports_numbers_that_cannot_text(sandbox: RunningSandbox) -> None:
    sandbox.twilio.voice_only.add(NUMBER)
    with account(sandbox) as connected:
        with pytest.raises(ConfigError, match="cannot send text messages"):
            connected.check()
        with pytest.raises(AccountError, match="21661"):
            connected.run("send_sms", TEXT, event=event())


def test_check_knows_short_codes_and_sender_ids(sandbox: RunningSandbox) -> None:
    with account(sandbox, FROM="72345") as connected:
        with pytest.raises(ConfigError, match="not a short code of this account"):
            connected.check()
        sandbox.twilio.short_codes.append("72345")
        assert connected.check().endswith("short code found")
    with account(sandbox, FROM="Harbour") as connected:
        assert "the sender ID cannot be checked" in connected.check()


def test_check_warns_of_a_service_without_a_campaign(sandbox: RunningSandbox) -> None:
    sandbox.twilio.a2p_registered = False
    with account(sandbox, **SERVICE) as connected:
        assert "it has no A2P 10DLC campaign" in connected.check()
    sandbox.twilio.pool = ["+447700900100"]
    with account(sandbox, **SERVICE) as connected:
        assert "A2P" not in connected.check()


def test_check_finds_senders_in_the_rules_that_the_account_lacks(sandbox: RunningSandbox) -> None:
    sandbox.twilio.numbers += ["+12125550101", "+12125550102"]
    sandbox.twilio.voice_only.add("+12125550102")
    texts = [
        {"body": "Hi"},
        {"body": "Hi", "sender": "+12125550101"},
        {"body": "Hi", "sender": "+12125550102"},
        {"body": "Hi", "sender": "+12125550199"},
        {"body": "Hi", "sender": "{{ event.metadata.sender }}"},
    ]
    with account(sandbox) as connected:
        problems = connected.check_rules(*(("send_sms", params) for params in texts))
    assert [(problem.text, problem.location) for problem in problems] == [
        ("`sender` is a number that cannot send text messages", ("sender",)),
        ("`sender` is not a number of this account", ("sender",)),
    ]


# ------------------------------------------------------------ account problems


def test_trial_account_texts_verified_numbers_only(sandbox: RunningSandbox) -> None:
    sandbox.twilio.type = "Trial"
    error = refusal(sandbox)
    assert isinstance(error, AccountError)
    assert "upgrade the account" in error.fix
    sandbox.twilio.verified.add(PHONE)
    with account(sandbox) as connected:
        assert "trial: only verified numbers can be texted" in connected.check()
        connected.run("send_sms", TEXT, event=event())


def test_account_is_configured_over_http(sandbox: RunningSandbox) -> None:
    url = f"{sandbox.url}/_sandbox/twilio/configure"
    assert httpx.post(url, json={"type": "Trial", "verified": ["+12125550168"], "pool": []}).is_success
    assert "21608" in str(refusal(sandbox))
    assert httpx.post(url, json={"color": "red"}).status_code == 400


def test_suspended_account_is_an_account_error(sandbox: RunningSandbox) -> None:
    sandbox.twilio.status = "suspended"
    error = refusal(sandbox)
    assert isinstance(error, AccountError)
    assert "reactivate" in error.fix
    with account(sandbox) as connected, pytest.raises(AccountError, match="the Twilio account is suspended"):
        connected.check()


def test_empty_pool_and_missing_service_are_account_errors(sandbox: RunningSandbox) -> None:
    sandbox.twilio.pool.clear()
    assert "21703" in str(refusal(sandbox, **SERVICE))
    other = {"MESSAGING_SERVICE_SID": "MG" + "0" * 32, "FROM": ""}
    for variables in (SERVICE, other):
        assert isinstance(refusal(sandbox, **variables), AccountError)


def test_daily_limit_of_the_account_is_a_quota(sandbox: RunningSandbox) -> None:
    body = {"code": 63038, "message": "Account exceeded the 50 daily messages limit", "status": 429}
    sandbox.fault("twilio", path="*/Messages.json", status=429, body=body)
    assert isinstance(refusal(sandbox), QuotaExhausted)


@pytest.mark.parametrize(
    ("code", "words"), [(30002, "suspended"), (30034, "A2P 10DLC"), (30032, "toll-free")]
)
def test_status_callback_about_the_account_pauses_it(sandbox: RunningSandbox, code: int, words: str) -> None:
    reply = callback(sandbox, code)
    [update] = reply.learned
    assert isinstance(update, StatusUpdate)
    assert (update.state, update.undeliverable) == ("undelivered", False)
    assert reply.account_error is not None
    assert words in reply.account_error.pause_reason


@pytest.mark.parametrize("code", [30003, 30006, 30007, 21610, 21614, 39999])
def test_status_callback_about_the_recipient_pauses_nothing(sandbox: RunningSandbox, code: int) -> None:
    reply = callback(sandbox, code)
    assert reply.account_error is None
    update = reply.learned[0]
    assert isinstance(update, StatusUpdate)
    assert update.undeliverable is (code in (30006, 21614))
    assert list(reply.learned[1:]) == ([OptOut("sms", PHONE)] if code == 21610 else [])


def callback(sandbox: RunningSandbox, code: int):  # type: ignore[no-untyped-def]
    form = {"MessageSid": "SM1", "MessageStatus": "undelivered", "To": PHONE, "ErrorCode": str(code)}
    signature = RequestValidator(AUTH_TOKEN).compute_signature(STATUS_URL, form)
    with account(sandbox) as connected:
        return connected.callback(
            "status", url=STATUS_URL, form=form, headers={"x-twilio-signature": signature}
        )


def test_landline_is_undeliverable_when_sending(sandbox: RunningSandbox) -> None:
    sandbox.twilio.add_landline(PHONE)
    error = refusal(sandbox)
    assert isinstance(error, PermanentError)
    assert error.undeliverable


def test_secret_never_leaves_but_in_the_login(sandbox: RunningSandbox) -> None:
    with account(sandbox) as connected:
        connected.run("send_sms", TEXT, event=event())
    [request] = sandbox.requests_to("twilio")
    shown = f"{request.path}{request.query}{request.raw!r}{request.headers}"
    for secret in (
        API_KEY_SECRET,
        AUTH_TOKEN,
        base64.b64encode(f"{API_KEY_SID}:{API_KEY_SECRET}".encode()).decode(),
    ):
        assert secret not in shown
