"""Texts through the real SDK, over real HTTP, to a Twilio that is as strict as the real one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from bridge.connector import Context
from bridge.errors import (
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

PERSON = "+12125550167"
CREATE = "*/Messages.json"
TEXT = {"body": "Hi Ines, we tried to reach you. Reply STOP to opt out."}
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
def busy(clock: Clock) -> Event:
    return event("call.busy", {"metadata.contactPhone": PERSON}, clock=clock)


@pytest.fixture
def context(busy: Event, clock: Clock) -> Context:
    return build_context(busy, twilio.actions["send_sms"], now=clock.now())


def other_context(busy: Event, clock: Clock) -> Context:
    return build_context(
        busy,
        twilio.actions["send_sms"],
        now=clock.now(),
        delivery="dlv_other",
        idempotency_key="another effect",
    )


def test_a_text_goes_to_the_person_from_our_number_with_a_callback(
    account: Connected, sandbox: RunningSandbox, busy: Event
) -> None:
    sent = account.run("send_sms", TEXT, event=busy)

    [message] = sandbox.twilio.messages
    assert (message.to, message.from_, message.body) == (PERSON, "+12125550100", TEXT["body"])
    assert message.parameters["StatusCallback"] == (
        "https://bridge.example.com/webhooks/twilio/status?delivery=dlv_test"
    )
    assert (sent.id, sent.detail, sent.message_status) == (message.sid, "1 segment", "queued")


def test_a_messaging_service_chooses_the_sender(sandbox: RunningSandbox, busy: Event) -> None:
    environ = sandbox.environment | {
        "TWILIO_FROM": "",
        "TWILIO_MESSAGING_SERVICE_SID": "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e",
    }
    with connect(twilio, environ) as account:
        assert account.run("send_sms", TEXT, event=busy).message_status == "queued"
        assert account.check().startswith("account active, messaging service with a sender found")

    [message] = sandbox.twilio.messages
    assert message.parameters["MessagingServiceSid"] == "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e"
    assert "From" not in message.parameters


def test_a_sender_is_required_and_the_error_says_which_variables(sandbox: RunningSandbox) -> None:
    with pytest.raises(ConfigError, match=r"set TWILIO_FROM or TWILIO_MESSAGING_SERVICE_SID"):
        connect(twilio, sandbox.environment | {"TWILIO_FROM": ""})


def test_a_second_account_reads_its_own_variables(sandbox: RunningSandbox, busy: Event) -> None:
    environ = {name.replace("TWILIO_", "TWILIO_EU_"): value for name, value in sandbox.environment.items()}
    with connect(twilio, environ, "twilio_eu") as account:
        account.run("send_sms", TEXT, event=busy)
    [message] = sandbox.twilio.messages
    assert "/webhooks/twilio_eu/status" in message.parameters["StatusCallback"]


def test_the_sdk_reads_no_variables_behind_our_back(
    sandbox: RunningSandbox, busy: Event, monkeypatch: pytest.MonkeyPatch
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
        account.run("send_sms", TEXT, event=busy)
    assert len(sandbox.twilio.messages) == 1


# ------------------------------------------------------------ validity


def test_a_queued_text_does_not_arrive_at_night(
    account: Connected, sandbox: RunningSandbox, busy: Event
) -> None:
    account.run("send_sms", TEXT, event=busy)
    assert sandbox.twilio.messages[0].parameters["ValidityPeriod"] == "3600"


def test_twilio_never_keeps_a_text_longer_than_its_delivery_lives(
    account: Connected, sandbox: RunningSandbox, busy: Event, clock: Clock
) -> None:
    now = clock.now()
    context = build_context(busy, twilio.actions["send_sms"], now=now, expires_at=now + timedelta(minutes=10))
    account.run("send_sms", TEXT, context=context)
    assert sandbox.twilio.messages[0].parameters["ValidityPeriod"] == "600"


@pytest.mark.parametrize(
    ("minutes", "validity"),
    [(600, "3600"), (20, "1200"), (0, "60")],
    ids=["by day", "in the evening", "just now"],
)
def test_twilio_never_keeps_a_text_into_the_quiet_hours(
    account: Connected, sandbox: RunningSandbox, busy: Event, clock: Clock, minutes: int, validity: str
) -> None:
    now = clock.now()
    quiet_hours_start = now + timedelta(minutes=minutes)
    context = build_context(busy, twilio.actions["send_sms"], now=now, quiet_hours_start=quiet_hours_start)
    account.run("send_sms", TEXT, context=context)
    assert sandbox.twilio.messages[0].parameters["ValidityPeriod"] == validity


def test_a_text_that_has_expired_is_not_sent(
    account: Connected, sandbox: RunningSandbox, busy: Event, clock: Clock
) -> None:
    context = build_context(busy, twilio.actions["send_sms"], now=clock.now(), expires_at=clock.now())
    with pytest.raises(PermanentError, match="expired"):
        account.run("send_sms", TEXT, context=context)
    assert sandbox.requests == []


def test_the_sdks_own_scheduling_is_never_used(
    account: Connected, sandbox: RunningSandbox, busy: Event
) -> None:
    account.run("send_sms", TEXT, event=busy)
    assert not {"SendAt", "ScheduleType"} & set(sandbox.twilio.messages[0].parameters)


# ------------------------------------------------------------ what a text costs


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("x" * 160, "1 segment"),
        ("x" * 161, "2 segments"),
        ("x" * 158 + "€", "1 segment"),
        ("x" * 159 + "€", "2 segments"),
        ("it’s", "1 segment in UCS-2: 70 characters each, because one is special"),
        ("👋" * 36, "2 segments in UCS-2: 70 characters each, because one is special"),
    ],
)
def test_the_log_says_how_many_segments_were_billed(
    account: Connected, busy: Event, body: str, detail: str
) -> None:
    assert account.run("send_sms", {"body": body}, event=busy).detail == detail


# ------------------------------------------------------------ Twilio's words for no


def test_a_person_who_said_stop_is_reported_as_opted_out(
    account: Connected, sandbox: RunningSandbox, busy: Event
) -> None:
    sandbox.twilio.opt_out(PERSON)
    with pytest.raises(PermanentError, match="Twilio error 21610: the person has replied STOP") as refused:
        account.run("send_sms", TEXT, event=busy)
    assert refused.value.opted_out
    assert refused.value.code == "21610"
    assert sandbox.twilio.messages == []


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        (20003, 401, AuthenticationError, "does not accept the account SID"),
        (20008, 403, AuthenticationError, "test credentials"),
        (21211, 400, PermanentError, "cannot be texted"),
        (21408, 400, PermanentError, "geo permissions"),
        (21606, 400, PermanentError, "check TWILIO_FROM"),
        (21614, 400, PermanentError, "not a mobile"),
        (21617, 400, PermanentError, "1600 characters"),
        (21635, 400, PermanentError, "landline"),
        (21703, 400, PermanentError, "no sender"),
        (21999, 400, PermanentError, "https://www.twilio.com/docs/errors/21999"),
        (30999, 400, PermanentError, "https://www.twilio.com/docs/errors/30999"),
        (30410, 400, OutcomeUnknown, "did not answer Twilio in time"),
        (20500, 500, OutcomeUnknown, "20500"),
        (21610, 500, OutcomeUnknown, "21610"),
    ],
)
def test_each_error_code_means_what_twilio_says(
    account: Connected, sandbox: RunningSandbox, busy: Event, code: int, status: int, kind: type, words: str
) -> None:
    body = {"code": code, "message": f"about {PERSON}", "more_info": "", "status": status}
    sandbox.fault("twilio", path=CREATE, status=status, body=body)
    with pytest.raises(kind, match=words) as caught:
        account.run("send_sms", TEXT, event=busy)
    assert PERSON not in str(caught.value)
    assert "\033" not in str(caught.value)


def test_the_table_has_every_code_that_a_text_commonly_meets() -> None:
    module = sys.modules[twilio.actions["send_sms"].run.__module__]
    final = "21211 21217 21614 21635 21408 21612 21606 21659 21703 21610 21617"
    by_callback = "30001 30003 30004 30005 30006 30007 30008 30032 30034 30035"
    for code in map(int, f"{final} {by_callback}".split()):
        assert code in module.ERRORS
        assert type(module.meaning(code)) is PermanentError
        assert module.meaning(code).opted_out is (code == 21610)


def test_an_error_in_the_newer_format_is_read_too(
    account: Connected, sandbox: RunningSandbox, busy: Event
) -> None:
    body = {
        "type": "https://www.twilio.com/docs/errors/21211",
        "title": f"Invalid number {PERSON}",
        "status": 400,
        "code": 21211,
        "detail": PERSON,
    }
    sandbox.fault("twilio", path=CREATE, status=400, body=body)
    with pytest.raises(PermanentError, match="21211: the number cannot be texted") as caught:
        account.run("send_sms", TEXT, event=busy)
    assert PERSON not in str(caught.value)


@pytest.mark.parametrize("code", ["21211", None, {"a": 1}, 404])
def test_an_error_without_a_code_of_twilios_is_judged_by_its_status(
    account: Connected, sandbox: RunningSandbox, busy: Event, code: object
) -> None:
    sandbox.fault("twilio", path=CREATE, status=404, body={"code": code, "message": "?"})
    with pytest.raises(PermanentError, match="Twilio answered 404"):
        account.run("send_sms", TEXT, event=busy)


def test_too_many_requests_wait_as_long_as_twilio_says(
    account: Connected, sandbox: RunningSandbox, busy: Event
) -> None:
    sandbox.fault("twilio", path=CREATE, status=429, retry_after=4)
    with pytest.raises(RateLimited) as limited:
        account.run("send_sms", TEXT, event=busy)
    assert limited.value.retry_after == timedelta(seconds=4)


# ------------------------------------------------------------ no answer


def test_the_sdk_repeats_nothing_by_itself(account: Connected, sandbox: RunningSandbox, busy: Event) -> None:
    sandbox.fault("twilio", path=CREATE, status=503, times=5)
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, event=busy)
    assert len(sandbox.requests_to("twilio")) == 1


def test_a_hanging_twilio_is_left_at_the_deadline(
    account: Connected, sandbox: RunningSandbox, busy: Event
) -> None:
    sandbox.fault("twilio", path=CREATE, hang=True)
    with pytest.raises(OutcomeUnknown) as unknown:
        account.run("send_sms", TEXT, event=busy, seconds=0.5)
    assert unknown.value.reason == "timeout"


def test_after_the_deadline_nothing_leaves(account: Connected, sandbox: RunningSandbox, busy: Event) -> None:
    with pytest.raises(TransientError):
        account.run("send_sms", TEXT, event=busy, seconds=0)
    assert sandbox.requests == []


@pytest.mark.parametrize("answer", ["<html>welcome</html>", "", "null", "[]", '"queued"'])
def test_a_success_that_is_not_twilios_is_unknown(busy: Event, answer: str) -> None:
    with StubServer() as proxy:
        proxy.otherwise = Reply(201, answer)
        environ = {
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "t",
            "TWILIO_FROM": "+12125550100",
            "TWILIO_URL": f"{proxy.url}/a/prefix",
        }
        with connect(twilio, environ) as account, pytest.raises(OutcomeUnknown, match="not Twilio's"):
            account.run("send_sms", TEXT, event=busy)
        assert proxy.requests[0].path.startswith("/a/prefix/2010-04-01/Accounts/AC0")


# ------------------------------------------------------------ the lookup


def test_a_text_whose_answer_was_lost_is_found(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    sandbox.fault("twilio", path=CREATE, drop="after")
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, context=context)
    found = account.find("send_sms", TEXT, context=context)
    assert found is not None
    assert found.id == sandbox.twilio.messages[0].sid


def test_a_text_that_never_arrived_is_absent(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    sandbox.fault("twilio", path=CREATE, drop="before")
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, context=context)
    assert account.find("send_sms", TEXT, context=context) is None


def test_the_lookup_asks_without_a_date_that_would_hide_what_is_queued(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    account.run("send_sms", TEXT, context=context)
    sandbox.clear_requests()
    assert sandbox.twilio.messages[0].sent_at is None
    assert account.find("send_sms", TEXT, context=context) is not None
    assert [request.query for request in sandbox.requests] == [{"To": PERSON, "PageSize": "100"}]


def test_a_lookup_leaves_alone_what_another_delivery_holds(
    account: Connected, sandbox: RunningSandbox, context: Context, busy: Event, clock: Clock
) -> None:
    """The same words to the same person, from two events: the other's text is not ours."""
    theirs = account.run("send_sms", TEXT, context=other_context(busy, clock))
    ours = Context(**{**vars(context), "ids_used_by_others": lambda ids: {theirs.id} & set(ids)})
    assert account.find("send_sms", TEXT, context=ours) is None


def test_of_two_alike_texts_the_lookup_takes_the_one_that_nobody_holds(
    account: Connected, sandbox: RunningSandbox, context: Context, busy: Event, clock: Clock
) -> None:
    theirs = account.run("send_sms", TEXT, context=other_context(busy, clock))
    sandbox.fault("twilio", path=CREATE, drop="after")
    with pytest.raises(OutcomeUnknown):
        account.run("send_sms", TEXT, context=context)
    ours = Context(**{**vars(context), "ids_used_by_others": lambda ids: {theirs.id} & set(ids)})
    found = account.find("send_sms", TEXT, context=ours)
    assert found is not None
    assert found.id == sandbox.twilio.messages[1].sid


def test_without_knowing_what_others_hold_the_lookup_cannot_tell(
    account: Connected, context: Context
) -> None:
    with pytest.raises(LookupInconclusive):
        account.find("send_sms", TEXT, context=Context(**{**vars(context), "ids_used_by_others": None}))


def test_an_older_text_with_the_same_words_is_not_ours(
    account: Connected, sandbox: RunningSandbox, clock: Clock, context: Context, busy: Event
) -> None:
    account.run("send_sms", TEXT, context=context)
    clock.advance(hours=1)
    assert account.find("send_sms", TEXT, context=other_context(busy, clock)) is None


def test_other_words_to_the_person_are_not_ours(account: Connected, context: Context) -> None:
    account.run("send_sms", {"body": "Your table is ready."}, context=context)
    assert account.find("send_sms", TEXT, context=context) is None


@pytest.mark.parametrize(
    "stored",
    ['Sent from your Twilio trial account - "We called" - Harbour Light', '"We called" - Harbour Light'],
)
def test_words_that_twilio_changed_are_known_again(
    account: Connected, sandbox: RunningSandbox, context: Context, stored: str
) -> None:
    text = {"body": "“We called” – Harbour Light"}
    account.run("send_sms", text, context=context)
    sandbox.twilio.messages[0].body = stored
    assert account.find("send_sms", text, context=context) is not None


def test_a_text_whose_words_were_removed_leaves_it_to_a_person(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    account.run("send_sms", TEXT, context=context)
    sandbox.twilio.messages[0].body = ""
    with pytest.raises(LookupInconclusive, match="no longer shows the words"):
        account.find("send_sms", TEXT, context=context)


def test_more_texts_than_one_page_leave_it_to_a_person(
    account: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    for number in range(100):
        account.run("send_sms", {"body": f"Reminder {number}"}, context=context)
    with pytest.raises(LookupInconclusive, match="more texts"):
        account.find("send_sms", TEXT, context=context)


@pytest.mark.parametrize(
    ("status", "kind"), [(500, OutcomeUnknown), (429, RateLimited), (401, AuthenticationError)]
)
def test_a_lookup_that_fails_is_no_answer(
    account: Connected, sandbox: RunningSandbox, context: Context, status: int, kind: type
) -> None:
    """A failed list is a plain TwilioException, not the one that a failed create raises."""
    sandbox.fault("twilio", path=CREATE, method="GET", status=status)
    with pytest.raises(kind):
        account.find("send_sms", TEXT, context=context)


# ------------------------------------------------------------ check and log


def test_check_names_what_it_found_and_where_replies_go(account: Connected, sandbox: RunningSandbox) -> None:
    assert account.check() == (
        "account active, sender found, but replies are not passed on: to learn of STOP at once, set its webhook for "
        "incoming messages to BRIDGE_PUBLIC_URL/webhooks/twilio/inbound"
    )
    sandbox.twilio.inbound_url = "https://bridge.example.com/webhooks/twilio/inbound"
    assert account.check() == "account active, sender found"


def test_check_says_when_the_number_is_not_ours(sandbox: RunningSandbox) -> None:
    with (
        connect(twilio, sandbox.environment | {"TWILIO_FROM": "+12125550199"}) as account,
        pytest.raises(ConfigError, match="TWILIO_FROM is no number of this account"),
    ):
        account.check()


def test_check_says_when_the_service_is_not_ours_or_has_no_sender(sandbox: RunningSandbox) -> None:
    environ = sandbox.environment | {"TWILIO_FROM": "", "TWILIO_MESSAGING_SERVICE_SID": SERVICE_SID}
    sandbox.twilio.inbound_url = "https://bridge.example.com/webhooks/twilio/inbound"
    with connect(twilio, environ) as account:
        assert account.check() == "account active, messaging service with a sender found"
        sandbox.twilio.pool = []
        with pytest.raises(ConfigError, match="no sender: add one to its sender pool"):
            account.check()
    other = environ | {"TWILIO_MESSAGING_SERVICE_SID": "MG" + "0" * 32}
    with (
        connect(twilio, other) as account,
        pytest.raises(ConfigError, match="SERVICE_SID is no messaging service"),
    ):
        account.check()


def test_check_says_when_the_token_is_wrong(sandbox: RunningSandbox) -> None:
    with (
        connect(twilio, sandbox.environment | {"TWILIO_AUTH_TOKEN": "wrong"}) as account,
        pytest.raises(AuthenticationError, match="does not accept"),
    ):
        account.check()


def test_the_sdk_does_not_log_numbers(
    sandbox: RunningSandbox, context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("twilio.http_client").setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO), connect(twilio, sandbox.environment) as account:
        account.run("send_sms", TEXT, context=context)
        account.find("send_sms", TEXT, context=context)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not any(PERSON[1:] in line for line in ours)
