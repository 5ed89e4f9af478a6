"""The Teams connector: posts cards through a workflow over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.connector.provider_records import RecordLink
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
)
from bridge.sandbox import RunningSandbox
from bridge.sandbox.teams import MAX_MESSAGE_BYTES, TeamsMessage
from bridge.testing import Connected, connect, event, load_connector
from bridge.testing.connection import build_context

teams = load_connector("teams")
post = teams.actions["post"]
message_of = post.run.__globals__["_message"]
HOST = "https://default0a1b.02.environment.api.powerplatform.com"
PATH = "/powerautomate/automations/direct/workflows/0a1b/triggers/manual/paths/invoke"
RECORD = RecordLink("Open in HubSpot", "https://app.hubspot.com/contacts/1/record/0-1/77")


@pytest.fixture
def channel(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(teams, sandbox.environment) as connected:
        yield connected


def posted(sandbox: RunningSandbox) -> TeamsMessage:
    assert sandbox.teams.failed_runs == []
    [message] = sandbox.teams.messages
    return message


def test_post_shows_title_text_facts_color_and_buttons(channel: Connected, sandbox: RunningSandbox) -> None:
    params = {
        "title": "Missed call from {{ contact.name }}",
        "text": "**Call back** today.\nSee [the list](https://crm.example/list).",
        "facts": {
            "Phone": "{{ contact.phone }}",
            "Length": 5,
            "Outcome": "{{ event.outcome | default('') }}",
        },
        "severity": "critical",
    }
    about = event("call.no-answer", {"metadata.contactName": "Maya Lindqvist", "outcome": None})
    context = build_context(about, post, find_crm_record=lambda: RECORD)
    result = channel.run("post", params, event=about, context=context)
    message = posted(sandbox)
    assert result.detail == "the workflow has started"
    assert message.texts == [
        "Missed call from Maya Lindqvist",
        "**Call back** today.\n\nSee [the list](https://crm.example/list).",
    ]
    assert message.facts == {"Phone": about.contact.phone, "Length": "5"}
    assert message.style == "attention"
    assert message.buttons == {
        "Open event": "https://bridge.example.com/events/evt_test", RECORD.label: RECORD.url
    }  # fmt: skip


def test_post_without_links_and_title(channel: Connected, sandbox: RunningSandbox) -> None:
    channel.run("post", {"text": "Hello", "links": False, "severity": "success"})
    message = posted(sandbox)
    assert (message.texts, message.buttons, message.style) == (["Hello"], {}, "good")


def test_name_of_a_visitor_is_text(channel: Connected, sandbox: RunningSandbox) -> None:
    visitor = event("chat.abandoned", {"metadata.contactName": "<at>Team</at> [Bank](https://evil.example)"})
    params = {
        "text": "{{ contact.name }} left",
        "title": "{{ contact.name }}",
        "facts": {"Name": "{{ contact.name }}"},
    }
    channel.run("post", params, event=visitor)
    message = posted(sandbox)
    escaped = r"\<at\>Team\</at\> \[Bank\]\(https://evil.example\)"
    assert message.texts == [escaped, f"{escaped} left"]
    assert message.facts == {"Name": escaped}


def test_lines_stay_apart_and_lists_together(channel: Connected, sandbox: RunningSandbox) -> None:
    visitor = event("chat.abandoned", {"summary": "- not a list\nsecond"})
    channel.run("post", {"text": "One\nTwo:\n- a\n- b\n\n1. c\n{{ event.summary }}"}, event=visitor)
    assert posted(sandbox).texts == ["One\n\nTwo:\n- a\n- b\n\n1. c\n\n\\- not a list\n\nsecond"]


@pytest.mark.parametrize(
    "text", ["x" * 50_000, "ä" * 40_000, "😀" * 30_000, '"\\' * 30_000, "[" * 30_000, "a\n" * 30_000]
)
def test_long_text_is_shortened_to_what_teams_accepts(
    channel: Connected, sandbox: RunningSandbox, text: str
) -> None:
    facts = {f"Fact {number}": text for number in range(20)}
    about = event("chat.abandoned", {"summary": text})
    result = channel.run("post", {"text": "{{ event.summary }}", "title": text, "facts": facts}, event=about)
    assert result.detail == "the workflow has started, shortened"
    message = posted(sandbox)
    assert message.texts[1].endswith("…")
    assert all(value.endswith("…") for value in message.facts.values())


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.integers(1, 400))
def test_message_of_any_text_is_within_the_size(text: str, times: int) -> None:
    params = post.params.model_validate({"text": f"x{text * times}", "facts": {"a": text * times}})
    message, _ = message_of(params, build_context(event(), post))
    assert (
        len(json.dumps(json.dumps(message, ensure_ascii=False), ensure_ascii=False).encode())
        <= MAX_MESSAGE_BYTES
    )


@pytest.mark.parametrize(
    ("status", "body", "error_type", "message"),
    [
        (400, {"error": {"code": "WorkflowTriggerIsNotEnabled", "message": "x"}}, AccountError, "is not on"),
        (404, {"error": {"code": "WorkflowNotFound"}}, AccountError, "does not exist"),
        (404, "<html>gone</html>", AccountError, "404"),
        (410, "", AccountError, "410"),
        (401, {"error": {"code": "DirectApiAuthorizationRequired"}}, AuthenticationError, "DirectApi"),
        (403, {"error": {"code": "AuthorizationFailed"}}, AuthenticationError, "AuthorizationFailed"),
        (
            400,
            {"error": {"code": "TriggerInputSchemaMismatch"}},
            PermanentError,
            "TriggerInputSchemaMismatch",
        ),
        (400, {"error": {"code": "<b>"}}, PermanentError, "400"),
        (413, "too large", PermanentError, "too large"),
        (502, {"error": {"code": "NoResponse"}}, OutcomeUnknown, "502"),
        (504, "", OutcomeUnknown, "504"),
        (204, "", OutcomeUnknown, "204"),
        (200, "<html>login</html>", OutcomeUnknown, "not JSON"),
        (302, "", OutcomeUnknown, "302"),
    ],
)
def test_post_maps_error_response(
    channel: Connected,
    sandbox: RunningSandbox,
    status: int,
    body: Any,
    error_type: type[DeliveryError],
    message: str,
) -> None:
    sandbox.fault("teams", status=status, body=body)
    with pytest.raises(error_type, match=message) as caught:
        channel.run("post", {"text": "Hello"})
    assert type(caught.value) is error_type
    assert "html" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 202])
def test_accepted_message_is_a_success(channel: Connected, sandbox: RunningSandbox, status: int) -> None:
    sandbox.fault("teams", status=status, body="")
    assert channel.run("post", {"text": "Hello"}).detail == "the workflow has started"


def test_post_keeps_retry_after(channel: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("teams", status=429, retry_after=30)
    with pytest.raises(RateLimited) as caught:
        channel.run("post", {"text": "Hello"})
    assert caught.value.retry_after == timedelta(seconds=30)


@pytest.mark.parametrize("state", ["off", "deleted"])
def test_workflow_that_is_not_on_says_how_to_fix_it(
    channel: Connected, sandbox: RunningSandbox, state: Any
) -> None:
    sandbox.teams.state = state
    with pytest.raises(AccountError) as caught:
        channel.run("post", {"text": "Hello"})
    assert "turn the workflow on" in caught.value.fix
    assert "TEAMS_WEBHOOK_URL" in caught.value.fix


def test_check_starts_no_workflow(channel: Connected, sandbox: RunningSandbox) -> None:
    assert channel.check().startswith("Microsoft answers")
    assert (sandbox.teams.messages, sandbox.teams.failed_runs) == ([], [])
    assert "sig=" not in sandbox.requests_to("teams")[0].query


def test_check_reports_a_deleted_workflow(channel: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("teams", status=404, body={"error": {"code": "WorkflowNotFound"}})
    with pytest.raises(AccountError, match="does not exist"):
        channel.check()


def test_check_of_an_address_without_signature_sends_nothing(sandbox: RunningSandbox) -> None:
    with connect(teams, {"TEAMS_WEBHOOK_URL": f"{sandbox.url}/teams/relay?key=hidden"}) as connected:
        assert connected.check().startswith("the URL is valid")
    assert sandbox.requests_to("teams") == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://acme.webhook.office.com/webhookb2/hidden-part", "Office 365 connector"),
        ("https://outlook.office.com/webhook/hidden-part", "Office 365 connector"),
        (f"{HOST}{PATH}?api-version=1&sv=hidden-part", "not the whole URL"),
        ("https://prod-1.westeurope.logic.azure.com:443/workflows/hidden-part", "not the whole URL"),
        ("https://make.powerautomate.com/environments/hidden-part", "URL of a page"),
        ("https://teams.microsoft.com/l/channel/hidden-part", "URL of a page"),
        ("http://teams.example/hidden-part?sig=1", "must be https"),
    ],
)
def test_other_address_is_refused_with_the_reason(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        connect(teams, {"TEAMS_WEBHOOK_URL": url})
    assert "hidden-part" not in str(caught.value)


def test_address_of_a_workflow_is_accepted() -> None:
    connect(
        teams,
        {
            "TEAMS_WEBHOOK_URL": f"{HOST}:443{PATH}?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=a-b_c"
        },
    )
