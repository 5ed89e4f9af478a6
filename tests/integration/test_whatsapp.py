"""WhatsApp over Twilio: free text within 24 hours of the person's last message, templates, statuses and replies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from twilio.request_validator import RequestValidator

from bridge.connector import CallbackReply, Context, InboundMessage, StatusUpdate, Success
from bridge.errors import (
    AccountError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    TransientError,
)
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.sandbox.twilio.account import AUTH_TOKEN, SERVICE_SID, WHATSAPP_NUMBER
from bridge.sandbox.twilio.templates import MISSED_CALL
from bridge.testing import Connected, Reply, StubServer, build_context, connect, event, load_connector

PHONE = "+12125550167"
TEMPLATE = {"template": "missed_call", "variables": {"1": "Ines"}}
RENDERED = MISSED_CALL.body.replace("{{1}}", "Ines")
FREE = {"body": "Thanks. We call you back today."}
twilio = load_connector("twilio")
ACTION = twilio.actions["send_whatsapp"]


@pytest.fixture
def account(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(twilio, sandbox.environment) as connected:
        yield connected


@pytest.fixture
def missed_call() -> Event:
    return event("call.no-answer", {"metadata.contactPhone": PHONE})


def context(missed_call: Event, *, wrote_ago: timedelta | None = None, **changes: Any) -> Context:
    """The context of a delivery to a person who last wrote so long ago, or never."""
    plain = build_context(missed_call, ACTION, **changes)
    last = None if wrote_ago is None else plain.now - wrote_ago
    return build_context(missed_call, ACTION, **(changes | {"last_inbound_at": lambda _phone, _to: last}))


def template(name: str = "missed_call", *, body: str = MISSED_CALL.body, **fields: Any) -> dict[str, Any]:
    return {"sid": MISSED_CALL.sid, "friendly_name": name, "body": body, **fields}


def failure(account: Connected, params: dict[str, Any], context: Context) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        account.run("send_whatsapp", params, context=context)
    return caught.value


# ------------------------------------------------------------ free text or template


def test_free_text_goes_to_a_person_who_has_just_written(
    account: Connected, sandbox: RunningSandbox, missed_call: Event
) -> None:
    sandbox.twilio.receive(f"whatsapp:{PHONE}", "Hello?")
    result = account.run(
        "send_whatsapp", FREE | TEMPLATE, context=context(missed_call, wrote_ago=timedelta())
    )
    [message] = sandbox.twilio.messages
    assert (message.to, message.from_) == (f"whatsapp:{PHONE}", f"whatsapp:{WHATSAPP_NUMBER}")
    assert (message.body, message.parameters.get("ContentSid")) == (FREE["body"], None)
    assert (result.id, result.detail, result.message_status) == (message.sid, "free text", "queued")


@pytest.mark.parametrize("wrote_ago", [None, timedelta(hours=24), timedelta(hours=23, minutes=59)])
def test_template_goes_to_a_person_who_has_not_written_for_a_day(
    account: Connected, sandbox: RunningSandbox, missed_call: Event, wrote_ago: timedelta | None
) -> None:
    result = account.run("send_whatsapp", FREE | TEMPLATE, context=context(missed_call, wrote_ago=wrote_ago))
    [message] = sandbox.twilio.messages
    assert "Body" not in message.parameters
    assert (message.parameters["ContentSid"], message.body) == (MISSED_CALL.sid, RENDERED)
    assert json.loads(message.parameters["ContentVariables"]) == {"1": "Ines"}
    assert (result.detail, message.refusal) == ("template missed_call (en)", None)


def test_free_text_alone_fails_outside_the_window_before_it_is_sent(
    account: Connected, sandbox: RunningSandbox, missed_call: Event
) -> None:
    error = failure(account, FREE, context(missed_call))
    assert isinstance(error, PermanentError)
    assert error.code == "outside_window"
    assert error.detail == (
        "the person has not written by WhatsApp in the last 24 hours, so WhatsApp takes no free text: add a "
        "`template` to the rule, or send a text instead under `on_failure`"
    )
    assert sandbox.requests_to("twilio") == []


def test_template_is_named_by_its_sid_and_read_once(
    account: Connected, sandbox: RunningSandbox, missed_call: Event
) -> None:
    for _ in range(3):
        account.run("send_whatsapp", TEMPLATE | {"template": MISSED_CALL.sid}, context=context(missed_call))
    paths = [request.path for request in sandbox.requests_to("twilio") if request.method == "GET"]
    assert [path.partition("/Content/")[2] for path in paths] == [
        MISSED_CALL.sid,
        f"{MISSED_CALL.sid}/ApprovalRequests",
    ]
    assert len(sandbox.twilio.messages) == 3


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("unsubmitted", "was not submitted to WhatsApp: submit it for approval"),
        ("pending", "is pending at WhatsApp: wait for its approval"),
        ("rejected", "is rejected at WhatsApp"),
        ("paused", "is paused by WhatsApp because of its quality"),
    ],
)
def test_template_begins_a_conversation_only_if_whatsapp_has_approved_it(
    account: Connected, sandbox: RunningSandbox, missed_call: Event, status: str, words: str
) -> None:
    sandbox.twilio.configure(templates=[template(status=status)])
    error = failure(account, TEMPLATE, context(missed_call))
    assert isinstance(error, PermanentError)
    assert error.code == "template_not_approved"
    assert words in error.detail
    account.run("send_whatsapp", TEMPLATE, context=context(missed_call, wrote_ago=timedelta(hours=1)))
    sandbox.twilio.configure(templates=[template()])
    account.run("send_whatsapp", TEMPLATE, context=context(missed_call))
    assert len(sandbox.twilio.messages) == 2


def test_language_chooses_between_templates_of_one_name(
    account: Connected, sandbox: RunningSandbox, missed_call: Event
) -> None:
    swedish = template(body="Hej {{1}}!", language="sv") | {"sid": "HX" + "5" * 32}
    similar = template("missed_call_2") | {"sid": "HX" + "6" * 32}
    sandbox.twilio.configure(templates=[template(), swedish, similar])
    error = failure(account, TEMPLATE, context(missed_call))
    assert error.detail == "several templates are named `missed_call`: set `language` to one of `en`, `sv`"
    error = failure(account, TEMPLATE | {"language": "de"}, context(missed_call))
    assert error.detail == "the template `missed_call` has no language `de`, but `en`, `sv`"
    account.run("send_whatsapp", TEMPLATE | {"language": "sv"}, context=context(missed_call))
    assert [message.body for message in sandbox.twilio.messages] == ["Hej Ines!"]


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"template": "missed_calls"}, "template_not_found", "the account has no template `missed_calls`"),
        ({"template": "HX" + "0" * 32}, "template_not_found", "does not exist in this account"),
        ({"template": "missed_call"}, "template_variables", "needs `1` in `variables`"),
        (TEMPLATE | {"variables": {"1": "a", "x": "b"}}, "template_variables", "has no `x`: remove it"),
        (TEMPLATE | {"variables": {"1": "a" * 1000}}, "too_long", "has 1,088 characters with its variables"),
    ],
)
def test_wrong_template_or_variables_fail_before_a_message_is_sent(
    account: Connected,
    sandbox: RunningSandbox,
    missed_call: Event,
    params: dict[str, Any],
    code: str,
    words: str,
) -> None:
    error = failure(account, params, context(missed_call))
    assert isinstance(error, PermanentError)
    assert error.code == code
    assert words in error.detail
    assert sandbox.twilio.messages == []


def test_variables_are_put_on_one_line(
    account: Connected, sandbox: RunningSandbox, missed_call: Event
) -> None:
    """Twilio refuses line breaks, tabs and five spaces in a variable (21656)."""
    text = {"variables": {"1": "Ines,\n\tof     Okafor "}}
    account.run("send_whatsapp", TEMPLATE | text, context=context(missed_call))
    assert sandbox.twilio.messages[0].body.startswith("Hi Ines, of Okafor, we tried")


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({}, "write `body` for people who have written in the last 24 hours, `template` for all others"),
        ({"body": "Hi", "variables": {"1": "a"}}, "belong to a template: write `template` as well"),
        ({"template": "missed call!"}, "String should match pattern"),
        (TEMPLATE | {"variables": {"1": " "}}, "must not be empty"),
        (TEMPLATE | {"variables": {"id name": "a"}}, "is not the name of a placeholder"),
        (TEMPLATE | {"variables": {"1": "a" * 1601}}, "at most 1600"),
    ],
)
def test_invalid_params_say_what_to_write(params: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ACTION.params.model_validate({"to": PHONE} | params)


# ------------------------------------------------------------ sender


def test_sender_is_the_number_or_chosen_by_the_service(sandbox: RunningSandbox, missed_call: Event) -> None:
    asked: list[str | None] = []

    def wrote(_phone: str, to: str | None) -> None:
        asked.append(to)

    changes = {"TWILIO_MESSAGING_SERVICE_SID": SERVICE_SID}
    for environ in (changes, changes | {"TWILIO_WHATSAPP_FROM": ""}):
        with connect(twilio, sandbox.environment | environ) as account:
            account.run(
                "send_whatsapp", TEMPLATE, context=build_context(missed_call, ACTION, last_inbound_at=wrote)
            )
    number, service = (message.parameters for message in sandbox.twilio.messages)
    assert (number["From"], "MessagingServiceSid" in number) == (f"whatsapp:{WHATSAPP_NUMBER}", False)
    assert ("From" in service, service["MessagingServiceSid"]) == (False, SERVICE_SID)
    assert asked == [WHATSAPP_NUMBER, None]


def test_account_without_a_sender_of_this_kind_fails_the_message_only(
    sandbox: RunningSandbox, missed_call: Event
) -> None:
    with connect(twilio, sandbox.environment | {"TWILIO_WHATSAPP_FROM": ""}) as account:
        with pytest.raises(PermanentError, match="no WhatsApp sender is set: set TWILIO_WHATSAPP_FROM"):
            account.run("send_whatsapp", TEMPLATE, context=context(missed_call))
        settings = account.settings
    assert ACTION.run_check_params
    assert "no WhatsApp sender" in str(ACTION.run_check_params(settings, {"sender": None, "template": "a"}))
    assert ACTION.run_check_params(settings, {"template": "a"}) is None  # the sender is a template
    with connect(twilio, sandbox.environment | {"TWILIO_FROM": ""}) as account:
        with pytest.raises(PermanentError, match="no sender of texts is set"):
            account.run("send_sms", {"body": "Hi"}, event=missed_call)
        account.run("send_whatsapp", TEMPLATE, context=context(missed_call))


def test_rule_without_content_is_reported() -> None:
    settings = twilio.settings.model_construct(whatsapp_from="whatsapp:+12125550109")
    assert ACTION.run_check_params
    nothing = {"body": None, "template": None, "sender": None}
    assert "write `body` for people" in str(ACTION.run_check_params(settings, nothing))
    assert ACTION.run_check_params(settings, {"template": None, "sender": None}) is None  # body is a template


@pytest.mark.parametrize("status", ["OFFLINE", None])
def test_unusable_sender_pauses_the_connection_with_advice(
    sandbox: RunningSandbox, missed_call: Event, status: str | None
) -> None:
    sandbox.twilio.configure(whatsapp_senders={WHATSAPP_NUMBER: status} if status else {})
    with connect(twilio, sandbox.environment) as account:
        error = failure(account, TEMPLATE, context(missed_call))
    assert isinstance(error, AccountError)
    assert "set TWILIO_WHATSAPP_FROM to a WhatsApp sender of this account that is online" in error.fix


@pytest.mark.parametrize("status", [500, 503, 429, 401])
def test_template_that_cannot_be_read_leaves_no_unknown_outcome(missed_call: Event, status: int) -> None:
    with StubServer() as server:
        server.otherwise = Reply(status, {"code": 20000 + status % 500, "message": "no"})
        with connect(twilio, environment_of(server.url)) as account:
            error = failure(account, TEMPLATE, context(missed_call))
    assert not isinstance(error, OutcomeUnknown)
    assert isinstance(error, AccountError if status == 401 else TransientError)


@pytest.mark.parametrize(
    "body", [{"contents": 1}, {}, {"contents": [{"sid": "HX1", "friendly_name": "missed_call"}]}]
)
def test_foreign_answer_instead_of_a_template_is_transient(missed_call: Event, body: Any) -> None:
    with StubServer() as server:
        server.otherwise = Reply(200, body)
        with connect(twilio, environment_of(server.url)) as account:
            assert isinstance(
                failure(account, TEMPLATE, context(missed_call)), TransientError | PermanentError
            )
    assert all(request.method == "GET" for request in server.requests)


def environment_of(url: str) -> dict[str, str]:
    return {
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "secret-auth-token",
        "TWILIO_WHATSAPP_FROM": "+12125550109",
        "TWILIO_URL": url,
    }


# ------------------------------------------------------------ lookup


@pytest.mark.parametrize(("params", "wrote_ago"), [(FREE | TEMPLATE, timedelta()), (FREE | TEMPLATE, None)])
def test_message_whose_response_was_lost_is_found(
    account: Connected,
    sandbox: RunningSandbox,
    missed_call: Event,
    params: dict[str, Any],
    wrote_ago: timedelta | None,
) -> None:
    ours = context(missed_call, wrote_ago=wrote_ago)
    sandbox.fault("twilio", method="POST", path="*/Messages.json", drop="after")
    with pytest.raises(OutcomeUnknown):
        account.run("send_whatsapp", params, context=ours)
    found = account.find(
        "send_whatsapp", params, context=context(missed_call)
    )  # the window may have closed since
    [message] = sandbox.twilio.messages
    assert isinstance(found, Success)
    assert (found.id, found.detail) == (
        message.sid,
        "free text" if wrote_ago is not None else "template missed_call (en)",
    )


def test_lookup_takes_no_other_message_for_its_own(account: Connected, missed_call: Event) -> None:
    assert account.find("send_whatsapp", TEMPLATE, context=context(missed_call)) is None
    account.run("send_sms", {"body": RENDERED}, event=missed_call)
    account.run("send_whatsapp", TEMPLATE | {"variables": {"1": "Maya"}}, context=context(missed_call))
    assert account.find("send_whatsapp", TEMPLATE, context=context(missed_call)) is None
    used = account.run("send_whatsapp", TEMPLATE, context=context(missed_call)).id
    others = context(missed_call, ids_used_by_others=lambda ids: {used}.intersection(ids))
    assert account.find("send_whatsapp", TEMPLATE, context=others) is None


def test_message_without_a_text_at_twilio_is_left_for_review(
    account: Connected, sandbox: RunningSandbox, missed_call: Event
) -> None:
    account.run("send_whatsapp", TEMPLATE, context=context(missed_call))
    sandbox.twilio.messages[0].body = ""
    with pytest.raises(LookupInconclusive, match="does not show the text"):
        account.find("send_whatsapp", TEMPLATE, context=context(missed_call))
    with pytest.raises(LookupInconclusive, match="cannot be compared: the account has no template"):
        account.find("send_whatsapp", {"template": "deleted"}, context=context(missed_call))


# ------------------------------------------------------------ statuses


@pytest.mark.parametrize(
    ("setup", "params", "code"),
    [
        ({}, FREE, 63016),
        ({"no_whatsapp": [PHONE]}, TEMPLATE, 63003),
        ({"templates": [template(status="paused")]}, TEMPLATE, 63016),
    ],
)
def test_sandbox_accepts_what_whatsapp_refuses_and_reports_it_later(
    account: Connected,
    sandbox: RunningSandbox,
    missed_call: Event,
    setup: dict[str, Any],
    params: dict[str, Any],
    code: int,
) -> None:
    sandbox.twilio.configure(**setup)
    account.run("send_whatsapp", params, context=context(missed_call, wrote_ago=timedelta()))
    sandbox.twilio.send_status_callbacks()
    [message] = sandbox.twilio.messages
    assert (message.status, message.error_code) == ("failed", code)


@pytest.mark.parametrize(
    ("code", "words", "undeliverable"),
    [
        (63003, "the number cannot receive WhatsApp messages", True),
        (63024, "because of an old version of the app", False),
        (63014, "blocked the sender", False),
        (63016, "has not written in the last 24 hours", False),
        (63018, "the limit of new conversations", False),
        (63021, "up to 1024 characters", False),
        (63032, "does not deliver marketing", False),
        (63049, "does not deliver this marketing template", False),
    ],
)
def test_refusal_by_whatsapp_is_explained(
    account: Connected, code: int, words: str, undeliverable: bool
) -> None:
    reply = reported(account, MessageStatus="failed", ErrorCode=str(code))
    [update] = reply.learned
    assert isinstance(update, StatusUpdate)
    assert words in update.detail
    assert (update.state, update.undeliverable, reply.account_error) == ("failed", undeliverable, None)


@pytest.mark.parametrize(
    ("code", "words"), [(63007, "no such WhatsApp sender"), (63051, "locked"), (63112, "disabled")]
)
def test_problem_of_the_sender_pauses_the_connection(account: Connected, code: int, words: str) -> None:
    problem = reported(account, MessageStatus="failed", ErrorCode=str(code)).account_error
    assert problem is not None
    assert problem.fix
    assert words in problem.pause_reason


def test_read_message_is_delivered(account: Connected) -> None:
    assert reported(account, MessageStatus="read").learned == [StatusUpdate("delivered", "SM1", "dlv_1")]


def test_rate_of_whatsapp_makes_the_connection_wait(missed_call: Event) -> None:
    with StubServer() as server:
        server.otherwise = Reply(400, {"code": 63018, "message": "Rate limit exceeded for Channel"})
        with connect(twilio, environment_of(server.url)) as account:
            assert isinstance(
                failure(account, FREE, context(missed_call, wrote_ago=timedelta())), RateLimited
            )


def reported(account: Connected, **fields: str) -> CallbackReply:
    """Return what the connector reads from a status callback."""
    form = {"MessageSid": "SM1", "To": f"whatsapp:{PHONE}", "From": f"whatsapp:{WHATSAPP_NUMBER}", **fields}
    return signed(account, "status?delivery=dlv_1", form)


def signed(account: Connected, path: str, form: dict[str, str]) -> CallbackReply:
    url = f"https://bridge.example.com/webhooks/twilio/{path}"
    headers = {"X-Twilio-Signature": RequestValidator(AUTH_TOKEN).compute_signature(url, form)}
    return account.callback(path.partition("?")[0], url=url, form=form, headers=headers)


# ------------------------------------------------------------ replies


def test_button_and_place_are_in_the_message(account: Connected) -> None:
    tapped = inbound(
        account, Body="Call me", ButtonText="Call me", ButtonPayload="call_me", ProfileName="Ines"
    )
    assert (tapped.channel, tapped.text, tapped.button, tapped.sender_name) == (
        "whatsapp",
        "Call me",
        "call_me",
        "Ines",
    )
    shared = inbound(account, Body="", Latitude="59.91", Longitude="10.75", Label="Harbour", Address="Pier 1")
    assert (shared.text, shared.button) == ("Harbour, Pier 1, 59.91 10.75", None)


def inbound(account: Connected, **fields: str) -> InboundMessage:
    form = {"MessageSid": "SM1", "From": f"whatsapp:{PHONE}", "To": f"whatsapp:{WHATSAPP_NUMBER}", **fields}
    [message] = signed(account, "inbound", form).learned
    assert isinstance(message, InboundMessage)
    return message


# ------------------------------------------------------------ check


def test_check_names_the_whatsapp_sender_and_its_webhook(sandbox: RunningSandbox) -> None:
    with connect(twilio, sandbox.environment) as account:
        assert "WhatsApp sender online, but replies are not forwarded" in account.check()
        sandbox.twilio.configure(inbound_url="https://bridge.example.com/webhooks/twilio/inbound")
        assert account.check().endswith("WhatsApp sender online")
        sandbox.twilio.configure(whatsapp_senders={WHATSAPP_NUMBER: "PENDING_VERIFICATION"})
        with pytest.raises(
            ConfigError, match=r"is a WhatsApp sender that is not online \(PENDING_VERIFICATION\)"
        ):
            account.check()
    with (
        connect(twilio, sandbox.environment | {"TWILIO_WHATSAPP_FROM": "+12125550199"}) as account,
        pytest.raises(ConfigError, match="TWILIO_WHATSAPP_FROM is not a WhatsApp sender of this account"),
    ):
        account.check()
    with connect(twilio, sandbox.environment | {"TWILIO_WHATSAPP_FROM": "whatsapp:+14155238886"}) as account:
        assert "only phones that have joined it" in account.check()


def test_check_finds_templates_and_senders_in_the_rules_that_will_be_refused(sandbox: RunningSandbox) -> None:
    pending = template("survey", status="pending") | {"sid": "HX" + "5" * 32, "body": "How was it?"}
    sandbox.twilio.configure(templates=[template(), pending])
    steps: list[dict[str, Any]] = [
        FREE,
        TEMPLATE | {"variables": {"1": "{{ contact.first_name | default('there') }}"}},
        {"template": "missed_call"},
        {"template": "survey"},
        {"template": "missed_calls"},
        {"template": "{{ event.metadata.template }}"},
        FREE | {"sender": "+12125550199"},
    ]
    with connect(twilio, sandbox.environment) as account:
        problems = account.check_rules(*(("send_whatsapp", params) for params in steps))
    assert [(problem.text, problem.location) for problem in problems] == [
        (
            "the template `missed_call` needs `1` in `variables`: without a value, the person gets the sample",
            ("variables",),
        ),
        (
            "the template `survey` is pending at WhatsApp: wait for its approval, or use another one",
            ("template",),
        ),
        (
            "the account has no template `missed_calls`: create it in the Content Template Builder",
            ("template",),
        ),
        ("`sender` is not a WhatsApp sender of this account", ("sender",)),
    ]
