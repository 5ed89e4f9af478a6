"""The Twilio connector: messages sent through the real SDK over real HTTP to a strict sandbox."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from bridge.connector import Context
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    TransientError,
)
from bridge.events import Event
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.sandbox.twilio.account import SERVICE_SID
from bridge.testing import Clock, Connected, Reply, StubServer, build_context, connect, event, load_connector

PHONE = "+12125550167"
CREATE = "*/Messages.json"
TEXT = {"body": "Hi Ines, we tried to reach you. Reply STOP to opt out."}
TEXTS_ONLY = {"TWILIO_WHATSAPP_FROM": ""}
twilio = load_connector("twilio")


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[RunningSandbox]:
    with start_sandbox(clock=clock) as running:
        yield running


@pytest.fixture
def account(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(twilio, sandbox.environment) as connected:
        yield connected


@pytest.fixture
def busy_call(clock: Clock) -> Event:
    return event("call.busy", {"metadata.contactPhone": PHONE}, clock=clock)


@pytest.fixture
def context(busy_call: Event, clock: Clock) -> Context:
    return build_context(busy_call, twilio.actions["send_sms"], now=clock.now())


def other_context(busy_call: Event, clock: Clock) -> Context:
    return build_context(
        busy_call,
        twilio.actions["send_sms"],
        now=clock.now(),
        delivery="dlv_other",
        idempotency_key="another key",
    )


def test_send_sms_from_number_with_status_callback(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    result = account.run("send_sms", TEXT, event=busy_call)

    [message] = sandbox.twilio.messages
    assert (message.to, message.from_, message.body) == (PHONE, "+12125550100", TEXT["body"])
    assert message.parameters["StatusCallback"] == (
        "https://bridge.example.com/webhooks/twilio/status?delivery=dlv_test"
    )
    assert (result.id, result.detail, result.message_status) == (message.sid, "1 segment", "queued")


def test_send_sms_with_messaging_service_sends_no_from(sandbox: RunningSandbox, busy_call: Event) -> None:
    environ = sandbox.environment | {
        "TWILIO_FROM": "",
        "TWILIO_MESSAGING_SERVICE_SID": "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e",
    }
    with connect(twilio, environ) as account:
        assert account.run("send_sms", TEXT, event=busy_call).message_status == "queued"
        assert account.check().startswith(
            "account active, API key accepted, messaging service with a sender found"
        )

    [message] = sandbox.twilio.messages
    assert message.parameters["MessagingServiceSid"] == "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e"
    assert "From" not in message.parameters


def test_missing_sender_is_reported_with_variable_names(sandbox: RunningSandbox) -> None:
    with pytest.raises(ConfigError, match=r"set TWILIO_MESSAGING_SERVICE_SID or TWILIO_FROM"):
        connect(twilio, sandbox.environment | TEXTS_ONLY | {"TWILIO_FROM": ""})


def test_second_connection_reads_its_own_variables(sandbox: RunningSandbox, busy_call: Event) -> None:
    environ = {name.replace("TWILIO_", "TWILIO_EU_"): value for name, value in sandbox.environment.items()}
    with connect(twilio, environ, "twilio_eu") as account:
        account.run("send_sms", TEXT, event=busy_call)
    [message] = sandbox.twilio.messages
    assert "/webhooks/twilio_eu/status" in message.parameters["StatusCallback"]


def test_sdk_ignores_environment_variables(
    sandbox: RunningSandbox, busy_call: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "TWILIO_REGION": "ie1",
        "TWILIO_EDGE": "dublin",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    assert os.environ["TWILIO_REGION"] == "ie1"
    with connect(twilio, sandbox.environment) as account:
        account.run("send_sms", TEXT, event=busy_call)
    assert len(sandbox.twilio.messages) == 1


# ------------------------------------------------------------ validity


def test_validity_period_defaults_to_one_hour(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    account.run("send_sms", TEXT, event=busy_call)
    assert sandbox.twilio.messages[0].parameters["ValidityPeriod"] == "3600"


def test_validity_period_ends_when_delivery_expires(
    account: Connected, sandbox: RunningSandbox, busy_call: Event, clock: Clock
) -> None:
    now = clock.now()
    context = build_context(
        busy_call, twilio.actions["send_sms"], now=now, expires_at=now + timedelta(minutes=10)
    )
    account.run("send_sms", TEXT, context=context)
    assert sandbox.twilio.messages[0].parameters["ValidityPeriod"] == "600"


@pytest.mark.parametrize(
    ("minutes", "validity"),
    [(600, "3600"), (20, "1200"), (0, "60")],
    ids=["hours before", "minutes before", "at the start"],
)
def test_validity_period_ends_before_quiet_hours(
    account: Connected, sandbox: RunningSandbox, busy_call: Event, clock: Clock, minutes: int, validity: str
) -> None:
    now = clock.now()
    quiet_hours_start = now + timedelta(minutes=minutes)
    context = build_context(
        busy_call, twilio.actions["send_sms"], now=now, quiet_hours_start=quiet_hours_start
    )
    account.run("send_sms", TEXT, context=context)
    assert sandbox.twilio.messages[0].parameters["ValidityPeriod"] == validity


def test_expired_message_is_not_sent(
    account: Connected, sandbox: RunningSandbox, busy_call: Event, clock: Clock
) -> None:
    context = build_context(busy_call, twilio.actions["send_sms"], now=clock.now(), expires_at=clock.now())
    with pytest.raises(PermanentError, match="expired"):
        account.run("send_sms", TEXT, context=context)
    assert sandbox.requests == []


def test_send_sms_never_uses_twilio_scheduling(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    account.run("send_sms", TEXT, event=busy_call)
    assert not {"SendAt", "ScheduleType"} & set(sandbox.twilio.messages[0].parameters)


# ------------------------------------------------------------ segments


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("x" * 160, "1 segment"),
        ("x" * 161, "2 segments"),
        ("x" * 158 + "€", "1 segment"),
        ("x" * 159 + "€", "2 segments"),
        ("it’s", "1 segment (UCS-2: 70 characters each, because one is special)"),
        ("👋" * 36, "2 segments (UCS-2: 70 characters each, because one is special)"),
    ],
)
def test_detail_states_billed_segments(account: Connected, busy_call: Event, body: str, detail: str) -> None:
    assert account.run("send_sms", {"body": body}, event=busy_call).detail == detail


# ------------------------------------------------------------ error responses


def test_send_sms_to_opted_out_number_reports_opt_out(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    sandbox.twilio.opt_out(PHONE)
    with pytest.raises(PermanentError, match="Twilio error 21610: the recipient has replied STOP") as caught:
        account.run("send_sms", TEXT, event=busy_call)
    assert caught.value.opted_out
    assert caught.value.code == "21610"
    assert sandbox.twilio.messages == []


@pytest.mark.parametrize(
    ("code", "status", "error_type", "message"),
    [
        (20003, 401, AuthenticationError, "does not accept the credentials"),
        (20008, 403, AuthenticationError, "test credentials"),
        (21211, 400, PermanentError, "cannot receive text messages"),
        (21408, 400, PermanentError, "geo permissions"),
        (21606, 400, AccountError, "may not send texts from this number"),
        (21614, 400, PermanentError, "not a mobile"),
        (21617, 400, PermanentError, "1600 characters"),
        (21635, 400, PermanentError, "landline"),
        (21703, 400, AccountError, "no sender"),
        (21999, 400, PermanentError, "https://www.twilio.com/docs/errors/21999"),
        (30999, 400, PermanentError, "https://www.twilio.com/docs/errors/30999"),
        (30410, 400, OutcomeUnknown, "did not answer Twilio in time"),
        (20500, 500, OutcomeUnknown, "20500"),
        (21610, 500, OutcomeUnknown, "21610"),
    ],
)
def test_error_code_is_mapped(
    account: Connected,
    sandbox: RunningSandbox,
    busy_call: Event,
    code: int,
    status: int,
    error_type: type,
    message: str,
) -> None:
    body = {"code": code, "message": f"about {PHONE}", "more_info": "", "status": status}
    sandbox.fault("twilio", path=CREATE, status=status, body=body)
    with pytest.raises(error_type, match=message) as caught:
        account.run("send_sms", TEXT, event=busy_call)
    assert PHONE not in str(caught.value)
    assert "\033" not in str(caught.value)


def test_errors_table_tells_the_recipient_from_the_account() -> None:
    module = sys.modules["bridge_connectors.twilio.errors"]
    recipient = "21211 21217 21614 21635 21408 21612 21610 21617 30001 30003 30004 30005 30006 30007 30008"
    for code in map(int, recipient.split()):
        error = module.error_from_code(code)
        assert type(error) is PermanentError
        assert error.opted_out is (code == 21610)
        assert error.undeliverable is (code in (21211, 21217, 21614, 21635, 30006))
    account = (
        "21212 21603 21606 21608 21609 21659 21660 21661 21701 21702 21703 21704 21705 21706 21707 21708 21709 21710 "
        "21711 21712 20005 20404 30002 30032 30033 30034 30035 63007"
    )
    for code in map(int, account.split()):
        error = module.error_from_code(code)
        assert type(error) is AccountError
        assert error.fix


def test_send_sms_to_landline_reports_undeliverable_number(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    sandbox.twilio.add_landline(PHONE)
    with pytest.raises(
        PermanentError, match="Twilio error 21614: the number is not a mobile number"
    ) as caught:
        account.run("send_sms", TEXT, event=busy_call)
    assert caught.value.undeliverable
    assert not caught.value.opted_out


def test_error_in_problem_details_format_is_mapped(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    body = {
        "type": "https://www.twilio.com/docs/errors/21211",
        "title": f"Invalid number {PHONE}",
        "status": 400,
        "code": 21211,
        "detail": PHONE,
    }
    sandbox.fault("twilio", path=CREATE, status=400, body=body)
    with pytest.raises(PermanentError, match="21211: the number cannot receive text messages") as caught:
        account.run("send_sms", TEXT, event=busy_call)
    assert PHONE not in str(caught.value)


@pytest.mark.parametrize("code", ["21211", None, {"a": 1}, 404])
def test_error_without_twilio_code_is_mapped_by_status(
    account: Connected, sandbox: RunningSandbox, busy_call: Event, code: object
) -> None:
    sandbox.fault("twilio", path=CREATE, status=404, body={"code": code, "message": "?"})
    with pytest.raises(PermanentError, match="Twilio answered 404"):
        account.run("send_sms", TEXT, event=busy_call)


def test_rate_limit_keeps_retry_after(account: Connected, sandbox: RunningSandbox, busy_call: Event) -> None:
    sandbox.fault("twilio", path=CREATE, status=429, retry_after=4)
    with pytest.raises(RateLimited) as caught:
        account.run("send_sms", TEXT, event=busy_call)
    assert caught.value.retry_after == timedelta(seconds=4)


# ------------------------------------------------------------ missing responses


def test_sdk_does_not_retry(account: Connected, sandbox: RunningSandbox, busy_call: Event) -> None:
    sandbox.fault("twilio", path=CREATE, status=503, times=5)
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, event=busy_call)
    assert len(sandbox.requests_to("twilio")) == 1


def test_hanging_request_ends_at_deadline(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    sandbox.fault("twilio", path=CREATE, hang=True)
    with pytest.raises(OutcomeUnknown) as caught:
        account.run("send_sms", TEXT, event=busy_call, seconds=0.5)
    assert caught.value.reason == "timeout"


def test_send_sms_after_deadline_sends_nothing(
    account: Connected, sandbox: RunningSandbox, busy_call: Event
) -> None:
    with pytest.raises(TransientError):
        account.run("send_sms", TEXT, event=busy_call, seconds=0)
    assert sandbox.requests == []


@pytest.mark.parametrize("body", ["<html>welcome</html>", "", "null", "[]", '"queued"'])
def test_success_status_with_foreign_body_raises_outcome_unknown(busy_call: Event, body: str) -> None:
    with StubServer() as proxy:
        proxy.otherwise = Reply(201, body)
        environ = {
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "t",
            "TWILIO_FROM": "+12125550100",
            "TWILIO_URL": f"{proxy.url}/a/prefix",
        }
        with connect(twilio, environ) as account, pytest.raises(OutcomeUnknown, match="not Twilio's"):
            account.run("send_sms", TEXT, event=busy_call)
        assert proxy.requests[0].path.startswith("/a/prefix/2010-04-01/Accounts/AC0")


# ------------------------------------------------------------ lookup


def test_find_sms_after_response_is_lost(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    sandbox.fault("twilio", path=CREATE, drop="after")
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, context=context)
    message = account.find("send_sms", TEXT, context=context)
    assert message is not None
    assert message.id == sandbox.twilio.messages[0].sid


def test_find_sms_returns_none_if_request_was_lost(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    sandbox.fault("twilio", path=CREATE, drop="before")
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, context=context)
    assert account.find("send_sms", TEXT, context=context) is None


def test_find_sms_sends_no_date_filter(account: Connected, sandbox: RunningSandbox, context: Context) -> None:
    account.run("send_sms", TEXT, context=context)
    sandbox.clear_requests()
    assert sandbox.twilio.messages[0].sent_at is None
    assert account.find("send_sms", TEXT, context=context) is not None
    assert [request.query for request in sandbox.requests] == [{"To": PHONE, "PageSize": "100"}]


def test_find_sms_skips_message_of_another_delivery(
    account: Connected, context: Context, busy_call: Event, clock: Clock
) -> None:
    """Two events may send the same text to the same recipient."""
    other = account.run("send_sms", TEXT, context=other_context(busy_call, clock))
    lookup_context = Context(**{**vars(context), "ids_used_by_others": lambda ids: {other.id} & set(ids)})
    assert account.find("send_sms", TEXT, context=lookup_context) is None


def test_find_sms_uses_unclaimed_message_of_two_equal_ones(
    account: Connected, sandbox: RunningSandbox, context: Context, busy_call: Event, clock: Clock
) -> None:
    other = account.run("send_sms", TEXT, context=other_context(busy_call, clock))
    sandbox.fault("twilio", path=CREATE, drop="after")
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, context=context)
    lookup_context = Context(**{**vars(context), "ids_used_by_others": lambda ids: {other.id} & set(ids)})
    message = account.find("send_sms", TEXT, context=lookup_context)
    assert message is not None
    assert message.id == sandbox.twilio.messages[1].sid


def test_find_sms_is_inconclusive_without_ids_used_by_others(account: Connected, context: Context) -> None:
    with pytest.raises(LookupInconclusive):
        account.find("send_sms", TEXT, context=Context(**{**vars(context), "ids_used_by_others": None}))


def test_find_sms_skips_older_message_with_same_body(
    account: Connected, clock: Clock, context: Context, busy_call: Event
) -> None:
    account.run("send_sms", TEXT, context=context)
    clock.advance(hours=1)
    assert account.find("send_sms", TEXT, context=other_context(busy_call, clock)) is None


def test_find_sms_skips_message_with_other_body(account: Connected, context: Context) -> None:
    account.run("send_sms", {"body": "Your table is ready."}, context=context)
    assert account.find("send_sms", TEXT, context=context) is None


@pytest.mark.parametrize(
    "stored",
    ['Sent from your Twilio trial account - "We called" - Harbour Light', '"We called" - Harbour Light'],
)
def test_find_sms_matches_body_rewritten_by_twilio(
    account: Connected, sandbox: RunningSandbox, context: Context, stored: str
) -> None:
    text = {"body": "“We called” – Harbour Light"}
    account.run("send_sms", text, context=context)
    sandbox.twilio.messages[0].body = stored
    assert account.find("send_sms", text, context=context) is not None


def test_find_sms_is_inconclusive_if_body_was_redacted(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    account.run("send_sms", TEXT, context=context)
    sandbox.twilio.messages[0].body = ""
    with pytest.raises(LookupInconclusive, match="does not show the text"):
        account.find("send_sms", TEXT, context=context)


def test_find_sms_is_inconclusive_beyond_one_page(account: Connected, context: Context) -> None:
    for number in range(100):
        account.run("send_sms", {"body": f"Reminder {number}"}, context=context)
    with pytest.raises(LookupInconclusive, match="more messages"):
        account.find("send_sms", TEXT, context=context)


@pytest.mark.parametrize(
    ("status", "error_type"), [(500, OutcomeUnknown), (429, RateLimited), (401, AuthenticationError)]
)
def test_failed_list_request_raises_mapped_error(
    account: Connected, sandbox: RunningSandbox, context: Context, status: int, error_type: type
) -> None:
    """A failed list request raises a plain TwilioException, unlike a failed create request."""
    sandbox.fault("twilio", path=CREATE, method="GET", status=status)
    with pytest.raises(error_type):
        account.find("send_sms", TEXT, context=context)


# ------------------------------------------------------------ check and logging


ADVICE = (
    "set the webhook for incoming messages to BRIDGE_PUBLIC_URL/webhooks/twilio/inbound, so that STOP works at once "
    "and the team sees every answer"
)


@pytest.mark.parametrize("service", [False, True])
@pytest.mark.parametrize(
    ("inbound_url", "note"),
    [
        ("", f", but replies are not forwarded: {ADVICE}"),
        # What a number that was just bought is set to
        (
            "https://demo.twilio.com/welcome/sms/reply/",
            f", but replies go to demo.twilio.com, not to the bridge: {ADVICE}",
        ),
        ("https://bridge.example.com/hooks/webhooks/twilio_eu/inbound", ""),
    ],
)
def test_check_says_whether_replies_reach_the_bridge(
    sandbox: RunningSandbox, inbound_url: str, note: str, service: bool
) -> None:
    sandbox.twilio.inbound_url = inbound_url
    extra = {"TWILIO_MESSAGING_SERVICE_SID": SERVICE_SID} if service else {}
    with connect(twilio, sandbox.environment | TEXTS_ONLY | extra) as account:
        found = "messaging service with a sender found" if service else "sender found"
        assert account.check() == f"account active, API key accepted, {found}{note}"


def test_check_reports_foreign_number(sandbox: RunningSandbox) -> None:
    with (
        connect(twilio, sandbox.environment | {"TWILIO_FROM": "+12125550199"}) as account,
        pytest.raises(ConfigError, match="TWILIO_FROM is not a number of this account"),
    ):
        account.check()


def test_check_reports_foreign_or_empty_messaging_service(sandbox: RunningSandbox) -> None:
    service = {"TWILIO_FROM": "", "TWILIO_MESSAGING_SERVICE_SID": SERVICE_SID}
    environ = sandbox.environment | TEXTS_ONLY | service
    sandbox.twilio.inbound_url = "https://bridge.example.com/webhooks/twilio/inbound"
    with connect(twilio, environ) as account:
        assert account.check() == "account active, API key accepted, messaging service with a sender found"
        sandbox.twilio.pool = []
        with pytest.raises(ConfigError, match="no sender: add one to its sender pool"):
            account.check()
    other = environ | {"TWILIO_MESSAGING_SERVICE_SID": "MG" + "0" * 32}
    with (
        connect(twilio, other) as account,
        pytest.raises(ConfigError, match="SERVICE_SID is not a messaging service"),
    ):
        account.check()


def test_check_reports_wrong_auth_token(sandbox: RunningSandbox) -> None:
    with (
        connect(twilio, sandbox.environment | {"TWILIO_AUTH_TOKEN": "wrong"}) as account,
        pytest.raises(AuthenticationError, match="does not accept"),
    ):
        account.check()


def test_sdk_does_not_log_phone_numbers(
    sandbox: RunningSandbox, context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("twilio.http_client").setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO), connect(twilio, sandbox.environment) as account:
        account.run("send_sms", TEXT, context=context)
        account.find("send_sms", TEXT, context=context)
    messages = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not any(PHONE[1:] in message for message in messages)
