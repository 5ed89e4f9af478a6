"""Zendesk tickets: the requester, one ticket per conversation, its recording, and what a lost response leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from bridge.cli.account_check import check_accounts
from bridge.connector import Success
from bridge.connector.steps import Steps
from bridge.errors import (
    AccountError,
    AuthenticationError,
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
from bridge.sandbox.zendesk.account import API_TOKEN, Zendesk
from bridge.sandbox.zendesk.account import EMAIL as EMAIL_OF_BRIDGE
from bridge.testing import connect, event, load_connector
from tests.integration.crm import CrmConnection

PHONE = "+12125550123"
EMAIL = "maya.lindqvist@example.com"
RECORDING = {"recording_url": "https://recordings.example.com/1.mp3", "transcript": "Agent: Good morning."}


@pytest.fixture
def account(sandbox: RunningSandbox) -> Zendesk:
    return sandbox.zendesk


@pytest.fixture
def zendesk(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("zendesk", sandbox)
    yield connection
    connection.close()


def call(zendesk: CrmConnection, conversation: str = "conv_1", **changes: Any) -> Event:
    values = {
        "conversationId": conversation,
        "metadata.contactPhone": PHONE,
        "metadata.contactName": "Maya Lindqvist",
        "metadata.contactEmail": None,
        "summary": "The bike rattles.\nWants a repair.",
    }
    return event("call.completed", values | changes, clock=zendesk.clock)


def by_email(zendesk: CrmConnection, conversation: str = "conv_1", **changes: Any) -> Event:
    return call(
        zendesk, conversation, **{"metadata.contactPhone": None, "metadata.contactEmail": EMAIL, **changes}
    )


def attempts(
    zendesk: CrmConnection, action: str, source: Event, params: dict[str, Any], **fields: Any
) -> Callable[[], Success]:
    """Return a function that makes the next attempt of one delivery, which knows the steps of those before."""
    steps = Steps.in_memory()

    def attempt() -> Success:
        nonlocal steps
        steps = steps.next_attempt()
        return zendesk.deliver(action, source, params, steps=steps, **fields)

    return attempt


def end_users(account: Zendesk) -> list[dict[str, Any]]:
    return account.records()["users"]


# ---------------------------------------------------------------- requester


def test_stranger_becomes_a_user_with_name_and_number(zendesk: CrmConnection, account: Zendesk) -> None:
    result = zendesk.deliver("create_ticket", call(zendesk))
    [user] = end_users(account)
    [ticket] = account.tickets.values()
    assert (user["name"], user["phone"], user["role"]) == ("Maya Lindqvist", PHONE, "end-user")
    assert (result.id, ticket["requester_id"]) == (str(ticket["id"]), user["id"])
    assert "created a new user" in result.detail
    assert ticket["subject"] == "The bike rattles."
    assert not ticket["is_public"]
    assert ticket["description"].startswith("The bike rattles.\nWants a repair.\n\n")
    assert "Conversation: conv_1" in ticket["description"]


@pytest.mark.parametrize("stored", ["(212) 555-0123", "+1 212 555 0123", "212.555.0123"])
def test_caller_is_found_by_number_in_any_spelling(
    zendesk: CrmConnection, account: Zendesk, stored: str
) -> None:
    maya = account.add_user(name="Maya Lindqvist", phone=stored)
    zendesk.deliver("create_ticket", call(zendesk))
    [ticket] = account.tickets.values()
    assert ticket["requester_id"] == maya["id"]
    assert len(end_users(account)) == 1


def test_number_with_the_same_last_digits_is_another_person(zendesk: CrmConnection, account: Zendesk) -> None:
    other = account.add_user(name="Ines Okafor", phone="+442125550123")
    zendesk.deliver("create_ticket", call(zendesk))
    [ticket] = account.tickets.values()
    assert ticket["requester_id"] != other["id"]


@pytest.mark.parametrize(
    ("addresses", "source"),
    [({"emails": ["m@lindqvist.example", EMAIL]}, by_email), ({"phones": ["+12125550199", PHONE]}, call)],
)
def test_user_is_found_by_an_additional_address(
    zendesk: CrmConnection, account: Zendesk, addresses: dict[str, Any], source: Any
) -> None:
    first = {"emails": {"email": "m@lindqvist.example"}, "phones": {"phone": "+12125550199"}}
    maya = account.add_user(name="Maya Lindqvist", **addresses, **first[next(iter(addresses))])
    zendesk.deliver("create_ticket", source(zendesk))
    [ticket] = account.tickets.values()
    assert ticket["requester_id"] == maya["id"]


def test_of_two_users_with_the_number_the_newest_is_used_or_the_operator_asked(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    account.add_user(name="Maya Lindqvist", phone=PHONE, updated_at="2026-01-01T00:00:00Z")
    newest = account.add_user(name="Maya L.", phone=PHONE, updated_at="2026-02-01T00:00:00Z")
    with pytest.raises(LookupInconclusive, match="2 records have this phone"):
        zendesk.deliver("create_ticket", call(zendesk), {"on_multiple": "review"})
    result = zendesk.deliver("create_ticket", call(zendesk))
    [ticket] = account.tickets.values()
    assert ticket["requester_id"] == newest["id"]
    assert "2 records have this phone" in result.detail


def test_second_person_at_a_shared_number_is_named_in_the_ticket(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    account.add_user(name="Ines Okafor", phone=PHONE)
    zendesk.deliver("create_ticket", call(zendesk))
    assert "Name given: Maya Lindqvist" in account.comments(1)[0]["body"]


def test_stranger_who_calls_again_before_the_index_shows_them_stays_one_user(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox
) -> None:
    sandbox.fault("zendesk", lag=120)
    for number in "12":
        zendesk.contact_cache.ids.clear()
        zendesk.deliver("create_ticket", call(zendesk, f"conv_{number}"))
    assert len(end_users(account)) == 1
    assert {ticket["requester_id"] for ticket in account.tickets.values()} == {end_users(account)[0]["id"]}


def test_known_caller_costs_one_request(zendesk: CrmConnection, account: Zendesk) -> None:
    account.add_user(name="Maya Lindqvist", phone=PHONE)
    zendesk.deliver("create_ticket", call(zendesk))
    zendesk.requests()
    zendesk.deliver("create_ticket", call(zendesk, "conv_2"))
    assert zendesk.requests() == ["POST /api/v2/tickets"]


def test_cached_user_who_was_deleted_is_searched_for_again(zendesk: CrmConnection, account: Zendesk) -> None:
    maya = account.add_user(name="Maya Lindqvist", phone=PHONE)
    zendesk.deliver("create_ticket", call(zendesk))
    maya["active"] = False
    merged = account.add_user(name="Maya Lindqvist", phone=PHONE)
    with pytest.raises(TransientError, match="deleted or merged in Zendesk, and is searched for again"):
        zendesk.deliver("create_ticket", call(zendesk, "conv_2"))
    zendesk.deliver("create_ticket", call(zendesk, "conv_2"))
    assert account.tickets[2]["requester_id"] == merged["id"]


def test_suspended_requester_fails_with_what_to_do(zendesk: CrmConnection, account: Zendesk) -> None:
    account.add_user(name="Maya Lindqvist", phone=PHONE, suspended=True)
    with pytest.raises(PermanentError, match="suspended in Zendesk: unsuspend the user") as raised:
        zendesk.deliver("create_ticket", call(zendesk))
    assert "Maya" not in str(raised.value)


def test_event_without_an_address_becomes_a_ticket_without_a_customer(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    anonymous = call(zendesk, **{"metadata.contactPhone": None})
    result = zendesk.deliver("create_ticket", anonymous)
    assert end_users(account) == []
    assert account.tickets[1]["requester_id"] == account.acting_user()["id"]
    assert "without a contact: the event has neither phone nor email" in result.detail


def test_unknown_caller_is_skipped_if_the_rule_says_so(zendesk: CrmConnection, account: Zendesk) -> None:
    result = zendesk.deliver("create_ticket", call(zendesk), {"on_missing": "skip"})
    assert (result.id, account.tickets) == (None, {})
    assert result.detail == "no ticket: Zendesk has no such user"


@pytest.mark.parametrize("email", [EMAIL, None])
def test_number_that_zendesk_refuses_does_not_cost_the_ticket(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox, email: str | None
) -> None:
    body = {"error": "RecordInvalid", "details": {"phone": [{"description": "Phone: is invalid"}]}}
    sandbox.fault("zendesk", path="/api/v2/users/create_or_update", status=422, body=body)
    result = zendesk.deliver("create_ticket", call(zendesk, **{"metadata.contactEmail": email}))
    assert "phone number" in result.detail
    assert [user["email"] for user in end_users(account)] == ([EMAIL] if email else [])
    assert len(account.tickets) == 1


# ---------------------------------------------------------------- ticket


def test_names_of_the_account_become_ids_and_custom_fields_get_their_type(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    params = {
        "group": "billing",
        "brand": "Harbor Bikes",
        "form": "502",
        "assignee": "ada@harbourlight.example",
        "status": "Waiting for parts",
        "priority": "high",
        "type": "question",
        "tags": ["Heppu", "call back"],
        "custom_fields": {
            "Order number": 1042,
            "602": "E-bike",
            "Callback wanted": "yes",
            "Rating": "5",
            "Topics": "Brakes, Gears",
            "Callback date": "2026-12-01",
        },
    }
    zendesk.deliver("create_ticket", call(zendesk), params)
    ticket = account.tickets[1]
    expected = {
        "group_id": 302, "brand_id": 402, "ticket_form_id": 502, "assignee_id": 9002, "status": "hold",
        "custom_status_id": 711, "priority": "high", "type": "question", "tags": ["call_back", "heppu"],
    }  # fmt: skip
    assert {name: ticket[name] for name in expected} == expected
    values = {field["id"]: field["value"] for field in ticket["custom_fields"]}
    assert values == {
        601: "1042", 602: "area_ebike", 603: True, 604: 5, 605: ["topic_brakes", "topic_gears"], 607: "2026-12-01",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"group": "Nobody"}, "no group `Nobody`"),
        ({"assignee": EMAIL}, "no agent of Zendesk"),
        ({"status": "Waiting"}, "no ticket status `Waiting`"),
        ({"custom_fields": {"Old field": "x"}}, "no custom ticket field `Old field`"),
    ],
)
def test_unknown_name_fails_before_anything_is_written(
    zendesk: CrmConnection, account: Zendesk, params: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PermanentError, match=problem):
        zendesk.deliver("create_ticket", call(zendesk), params)
    assert account.tickets == {}


def test_value_that_does_not_fit_costs_no_ticket(zendesk: CrmConnection, account: Zendesk) -> None:
    fields = {"Product area": "Boat", "Rating": "good", "Order number": 1042}
    result = zendesk.deliver("create_ticket", call(zendesk), {"custom_fields": fields})
    assert [field["value"] for field in account.tickets[1]["custom_fields"] if field["value"]] == ["1042"]
    assert "without `Product area`, which takes one of City bike, E-bike" in result.detail
    assert "without `Rating`, which takes a whole number" in result.detail
    update = {"ticket": "1", "custom_fields": {"Rating": "good"}}
    assert (
        "without `Rating`"
        in zendesk.deliver("update_ticket", call(zendesk), update | {"status": "open"}).detail
    )
    with pytest.raises(PermanentError, match="nothing to update: without `Rating`"):
        zendesk.deliver("update_ticket", call(zendesk), update)


def test_recording_becomes_a_voice_comment_with_the_transcript(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    source = call(zendesk, direction="inbound", agentNumber="+12125550100", duration=125)
    result = zendesk.deliver("create_ticket", source, RECORDING)
    comment, voice = account.comments(1)
    start = source.occurred_at - timedelta(seconds=125)
    assert voice["data"] == {
        "from": PHONE,
        "to": "+12125550100",
        "recording_url": RECORDING["recording_url"],
        "started_at": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "call_duration": 125,
        "transcription_text": "Agent: Good morning.",
        "public": False,
    }
    assert (comment["public"], voice["public"]) == (False, False)
    assert "Good morning" not in comment["body"]
    assert "with the recording" in result.detail


@pytest.mark.parametrize(
    ("params", "changes"),
    [
        (RECORDING | {"recording_url": None}, {}),
        (RECORDING, {"agentNumber": None}),
        (RECORDING | {"recording_url": "sftp://recordings.example.com/1"}, {}),
    ],
)
def test_without_a_playable_recording_the_comment_has_the_transcript(
    zendesk: CrmConnection, account: Zendesk, params: dict[str, Any], changes: dict[str, Any]
) -> None:
    zendesk.deliver("create_ticket", call(zendesk, **changes), params)
    [comment] = account.comments(1)
    assert comment["body"].endswith("Transcript:\nAgent: Good morning.")
    if params["recording_url"]:
        assert f"Recording: {params['recording_url']}" in comment["body"]


def test_refused_recording_does_not_cost_the_ticket(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox
) -> None:
    details = {"voice_comment": [{"description": "recording_url: is invalid"}]}
    sandbox.fault("zendesk", method="PUT", status=422, body={"error": "RecordInvalid", "details": details})
    result = zendesk.deliver("create_ticket", call(zendesk), RECORDING)
    assert "without the recording: Zendesk refuses the values of: voice_comment" in result.detail
    assert len(account.tickets) == 1


@pytest.mark.parametrize("with_recording", [True, False])
def test_long_transcript_is_cut_and_the_result_says_so(
    zendesk: CrmConnection, account: Zendesk, with_recording: bool
) -> None:
    params = {"transcript": "word " * 20_000} | (
        {} if not with_recording else {"recording_url": "https://a.example/1"}
    )
    result = zendesk.deliver("create_ticket", call(zendesk), params)
    assert "the transcript was shortened" in result.detail
    assert any(comment["body"].endswith("…") for comment in account.comments(1))


def test_long_text_is_cut_by_bytes_and_keeps_the_details(zendesk: CrmConnection, account: Zendesk) -> None:
    result = zendesk.deliver("create_ticket", call(zendesk, summary="ä" * 70_000))
    [comment] = account.comments(1)
    assert "ä…\n\n" in comment["body"]
    assert comment["body"].endswith("Conversation: conv_1")
    assert "the text was shortened" in result.detail


def test_long_subject_is_cut_and_the_result_says_so(zendesk: CrmConnection, account: Zendesk) -> None:
    result = zendesk.deliver("create_ticket", call(zendesk), {"subject": "word " * 40})
    assert len(account.tickets[1]["subject"]) <= 150
    assert "the subject was shortened" in result.detail


# ---------------------------------------------------------------- later events


def test_later_event_of_the_conversation_adds_a_comment_and_leaves_what_agents_set(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    first = zendesk.deliver("create_ticket", call(zendesk), {"priority": "low"})
    account.tickets[1] |= {"priority": "urgent", "status": "solved", "subject": "Bent wheel"}
    later = call(zendesk, summary="Called again.")
    result = zendesk.deliver("create_ticket", later, {"priority": "low"}, existing_id=first.id)
    assert (result.id, result.detail) == (first.id, "comment added")
    ticket = account.tickets[1]
    assert (ticket["priority"], ticket["status"], ticket["subject"]) == ("urgent", "solved", "Bent wheel")
    assert [comment["body"].split("\n")[0] for comment in account.comments(1)] == [
        "The bike rattles.",
        "Called again.",
    ]


def test_later_event_on_a_closed_ticket_becomes_its_follow_up(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    first = zendesk.deliver("create_ticket", call(zendesk))
    account.close(1)
    result = zendesk.deliver("create_ticket", call(zendesk, summary="Again."), existing_id=first.id)
    assert (result.id, result.detail) == ("2", "follow-up of the closed ticket 1")
    assert account.tickets[1]["followup_ids"] == [2]
    assert account.tickets[2]["requester_id"] == account.tickets[1]["requester_id"]
    assert account.tickets[2]["subject"] == account.tickets[1]["subject"]


def test_later_event_of_a_ticket_that_agents_deleted_creates_another(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    first = zendesk.deliver("create_ticket", call(zendesk))
    account.delete(1)
    later = call(zendesk, summary="Called again.")
    result = zendesk.deliver("create_ticket", later, existing_id=first.id)
    assert (result.id, list(account.tickets)) == ("2", [2])
    assert account.tickets[2]["subject"] == "Called again."


# ---------------------------------------------------------------- lost responses


@pytest.mark.parametrize("drop", ["before", "after"])
@pytest.mark.parametrize("path", ["/api/v2/users/create_or_update", "/api/v2/tickets", "/api/v2/tickets/1"])
def test_lost_response_of_a_write_never_doubles_it(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox, path: str, drop: Any
) -> None:
    sandbox.fault("zendesk", path=path, drop=drop)
    attempt = attempts(zendesk, "create_ticket", call(zendesk), RECORDING)
    with pytest.raises(OutcomeUnknown):
        attempt()
    assert attempt().id == "1"
    assert len(end_users(account)) == len(account.tickets) == 1
    assert [comment["type"] for comment in account.comments(1)] == ["Comment", "VoiceComment"]


@pytest.mark.parametrize("hours", [0, 3])
def test_lost_response_of_a_new_ticket_is_found_among_others(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox, hours: int
) -> None:
    """The idempotency key lives two hours; then only the external ID shows that the ticket exists."""
    account.page_size = 2
    zendesk.deliver("create_ticket", call(zendesk, "conv_other"))
    sandbox.fault("zendesk", path="/api/v2/tickets", method="POST", drop="after")
    attempt = attempts(zendesk, "create_ticket", call(zendesk), {})
    with pytest.raises(OutcomeUnknown):
        attempt()
    zendesk.clock.shift += timedelta(hours=hours)
    assert attempt().id == "2"
    assert len(account.tickets) == 2


def test_limit_between_two_writes_continues_after_the_first(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox
) -> None:
    sandbox.fault("zendesk", path="/api/v2/tickets/1", status=429, retry_after=3)
    attempt = attempts(zendesk, "create_ticket", call(zendesk), RECORDING)
    with pytest.raises(RateLimited):
        attempt()
    zendesk.requests()
    attempt()
    assert [request for request in zendesk.requests() if "GET" not in request] == ["PUT /api/v2/tickets/1"]
    assert len(account.comments(1)) == 2


def test_key_that_was_used_with_another_body_leads_to_its_ticket(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    source = call(zendesk)
    first = zendesk.deliver("create_ticket", source)
    second = zendesk.deliver("create_ticket", source, {"priority": "high"})
    assert (first.id, len(account.tickets)) == (second.id, 1)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("drop", ["before", "after"])
def test_lost_response_of_a_later_event_never_doubles_its_comment(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox, closed: bool, drop: Any
) -> None:
    first = zendesk.deliver("create_ticket", call(zendesk))
    if closed:
        account.close(1)
    sandbox.fault("zendesk", method="POST" if closed else "PUT", path="/api/v2/tickets*", drop=drop)
    later = call(zendesk, summary="Again.")
    attempt = attempts(zendesk, "create_ticket", later, {}, existing_id=first.id)
    with pytest.raises(OutcomeUnknown):
        attempt()
    assert attempt().id == ("2" if closed else "1")
    assert sum(len(account.comments(ticket)) for ticket in account.tickets) == 2


# ---------------------------------------------------------------- account


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (402, {"error": "PaymentRequired"}, AccountError, "suspended or has expired"),
        (423, {"error": "Locked"}, AccountError, "suspended or has expired"),
        (401, {"error": "Couldn't authenticate you"}, AuthenticationError, "returned 401"),
        (
            403,
            {"error": "Forbidden", "description": "You are missing the following required scopes: write"},
            AccountError,
            "lacks a scope",
        ),
        (403, {"error": {"title": "Forbidden"}}, AccountError, "lacks a permission"),
        (
            404,
            {"error": {"title": "No help desk at x.zendesk.com", "message": "There is no help desk here"}},
            AccountError,
            "no Zendesk account at this address",
        ),
        (409, {"error": "DatabaseConflict"}, TransientError, "changed at the same time"),
        (
            422,
            {"error": "RecordInvalid", "details": {"priority": [{"description": "x"}]}},
            PermanentError,
            "priority",
        ),
        (429, {"error": "TooManyRequests"}, RateLimited, "too many requests"),
    ],
)
def test_error_is_classified(
    zendesk: CrmConnection,
    account: Zendesk,
    sandbox: RunningSandbox,
    status: int,
    body: Any,
    error: type[DeliveryError],
    words: str,
) -> None:
    account.add_user(name="Maya Lindqvist", phone=PHONE)
    sandbox.fault("zendesk", method="POST", path="/api/v2/tickets", status=status, body=body, times=2)
    with pytest.raises(error, match=words) as raised:
        zendesk.deliver("create_ticket", call(zendesk))
    assert type(raised.value) is error


@pytest.mark.parametrize("expires", [True, False])
def test_access_token_that_expires_or_is_revoked_is_replaced(
    zendesk: CrmConnection, account: Zendesk, expires: bool
) -> None:
    zendesk.deliver("create_ticket", call(zendesk))
    if expires:
        zendesk.clock.shift += timedelta(hours=1)
    else:
        account.revoke_tokens()
    zendesk.deliver("create_ticket", call(zendesk, "conv_2"))
    assert len(account.tickets) == 2
    assert zendesk.requests().count("POST /oauth/tokens") == 2


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"ZENDESK_CLIENT_SECRET": "wrong"}, "invalid_client"),
        ({"ZENDESK_SCOPE": "tickets:read"}, "invalid_scope"),
    ],
)
def test_refused_login_says_what_to_do(
    sandbox: RunningSandbox, environ: dict[str, str], problem: str
) -> None:
    connection = CrmConnection("zendesk", sandbox, environ)
    with pytest.raises(AuthenticationError, match=problem) as raised:
        connection.deliver("create_ticket", call(connection))
    assert raised.value.fix
    connection.close()


def test_check_says_who_the_bridge_is(zendesk: CrmConnection) -> None:
    assert zendesk.connected.check() == "authenticated at 127.0.0.1 as Bridge (admin)"


def test_client_without_the_scope_of_lookups_fails_the_check(
    sandbox: RunningSandbox, account: Zendesk
) -> None:
    account.scopes = {"tickets:read", "tickets:write", "users:read", "users:write"}
    account.add_ticket(subject="Help")
    connection = CrmConnection("zendesk", sandbox, {"ZENDESK_SCOPE": " ".join(sorted(account.scopes))})
    with pytest.raises(AccountError, match="lacks a scope"):
        connection.connected.check()
    connection.close()


def test_address_of_a_page_is_refused() -> None:
    environ = {"ZENDESK_URL": "https://acme.zendesk.com/agent/home", "ZENDESK_CLIENT_ID": "b"}
    with pytest.raises(ConfigError, match=r"must be the address without a page: https://acme.zendesk.com"):
        connect(load_connector("zendesk"), environ | {"ZENDESK_CLIENT_SECRET": "c"})


def test_user_who_is_not_an_agent_fails_the_check(zendesk: CrmConnection, account: Zendesk) -> None:
    account.acting_user()["role"] = "end-user"
    with pytest.raises(AccountError, match="is not an agent") as raised:
        zendesk.connected.check()
    assert "role" in raised.value.fix


def test_api_token_works_until_zendesk_ends_it_and_the_check_warns(
    sandbox: RunningSandbox, account: Zendesk
) -> None:
    own = {"ZENDESK_EMAIL": EMAIL_OF_BRIDGE, "ZENDESK_API_TOKEN": API_TOKEN, "ZENDESK_CLIENT_ID": ""}
    environ = own | {"ZENDESK_CLIENT_SECRET": ""}
    connection = CrmConnection("zendesk", sandbox, environ)
    connection.deliver("create_ticket", call(connection))
    [warning] = connection.connected.check_rules(("create_ticket", {}))
    assert (warning.level, "April 30, 2027" in warning.text) == ("warning", True)
    [result] = check_accounts({"zendesk": connection.connector}, {}, {**sandbox.environment, **environ})
    assert (result.ok, f"{warning.text}: {warning.hint}" in result.text) == (True, True)
    account.accepts_api_tokens = False
    with pytest.raises(AuthenticationError):
        connection.deliver("create_ticket", call(connection, "conv_2"))
    connection.close()


@pytest.mark.parametrize(
    "environ",
    [
        {"ZENDESK_CLIENT_ID": "bridge"},
        {"ZENDESK_EMAIL": "a@b.example"},
        {
            "ZENDESK_CLIENT_ID": "b",
            "ZENDESK_CLIENT_SECRET": "c",
            "ZENDESK_API_TOKEN": "t",
            "ZENDESK_EMAIL": "a@b.example",
        },
    ],
)
def test_incomplete_or_double_credentials_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"ZENDESK_CLIENT_ID"):
        connect(load_connector("zendesk"), {"ZENDESK_URL": "https://acme.zendesk.com", **environ})
