"""Updates of Zendesk tickets: fields, comments, tags, closed tickets, limits, and what a lost response leaves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import ProviderRecord, UncertainDelivery
from bridge.errors import OutcomeUnknown, PermanentError, RateLimited, TransientError
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.sandbox.zendesk.account import Zendesk
from bridge.testing import event
from tests.integration.crm import CrmConnection
from tests.integration.test_zendesk_tickets import attempts

RECORDING = "https://recordings.example.com/1.mp3"
SOLVED = {"status": "solved", "comment": "Solved in the chat."}


@pytest.fixture
def account(sandbox: RunningSandbox) -> Zendesk:
    sandbox.zendesk.add_ticket(subject="Brakes", tags=["vip"], requester_id=9002)
    return sandbox.zendesk


@pytest.fixture
def zendesk(account: Zendesk, sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("zendesk", sandbox)
    connection.connected.check()  # logs in
    connection.requests()
    yield connection
    connection.close()


def chat(zendesk: CrmConnection, **changes: Any) -> Event:
    values = {"conversationId": "chat_1", "metadata.ticketId": "1", "metadata.contactPhone": "+12125550123"}
    return event("chat.resolved", values | changes, clock=zendesk.clock)


def call(zendesk: CrmConnection) -> Event:
    changes = {"metadata.ticketId": "1", "metadata.contactPhone": "+12125550123", "direction": "outbound"}
    return event("call.completed", changes | {"agentNumber": "+12125550100"}, clock=zendesk.clock)


def test_ticket_of_the_event_is_solved_with_an_internal_comment(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    result = zendesk.deliver("update_ticket", chat(zendesk), SOLVED)
    assert (result.id, result.detail) == ("1", "updated")
    assert account.tickets[1]["status"] == "solved"
    _, comment = account.comments(1)
    assert (comment["body"], comment["public"]) == ("Solved in the chat.", False)
    assert zendesk.requests() == ["PUT /api/v2/tickets/1"]


def test_public_comment_is_seen_by_the_requester(zendesk: CrmConnection, account: Zendesk) -> None:
    zendesk.deliver("update_ticket", chat(zendesk), {"comment": "Done.", "public": True})
    assert account.comments(1)[1]["public"] is True


def test_placeholder_that_a_visitor_writes_stays_a_text(zendesk: CrmConnection, account: Zendesk) -> None:
    """Zendesk would replace it, in a public comment by the internal notes of the ticket."""
    changes = {"summary": "Asks for {{ticket.comments}}.", "metadata.contactName": "{% if %}"}
    params = {"comment": "{{ event.summary }}", "public": True, "transcript": "Visitor: {{ event.summary }}"}
    zendesk.deliver("update_ticket", chat(zendesk, **changes), params)
    zendesk.deliver("create_ticket", chat(zendesk, **changes))
    written = [comment["body"] for ticket in account.tickets for comment in account.comments(ticket)]
    assert "Asks for { {ticket.comments}}." in written[1]
    assert account.tickets[2]["subject"] == "Asks for { {ticket.comments}}."
    assert not any("{{" in text or "{%" in text for text in written)


def test_recording_is_added_to_an_existing_ticket(zendesk: CrmConnection, account: Zendesk) -> None:
    params = {"recording_url": "https://recordings.example.com/1.mp3", "transcript": "Agent: Hello."}
    result = zendesk.deliver("update_ticket", call(zendesk), params)
    voice = account.comments(1)[1]["data"]
    assert (voice["from"], voice["to"]) == ("+12125550100", "+12125550123")
    assert voice["transcription_text"] == "Agent: Hello."
    assert "with the recording" in result.detail


def test_tags_are_added_to_those_of_the_ticket(zendesk: CrmConnection, account: Zendesk) -> None:
    zendesk.deliver("update_ticket", chat(zendesk), {"tags": ["Call back", "vip"]})
    assert account.tickets[1]["tags"] == ["call_back", "vip"]


def test_ticket_that_has_the_tags_is_not_updated(zendesk: CrmConnection, account: Zendesk) -> None:
    result = zendesk.deliver("update_ticket", chat(zendesk), {"tags": ["VIP"]})
    assert (result.detail, len(account.audits[1])) == ("nothing to change: the ticket has these tags", 1)


def test_tags_never_overwrite_what_an_agent_changes_meanwhile(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox
) -> None:
    stale = dict(account.tickets[1], updated_at="2026-01-01T00:00:00Z", tags=[])
    sandbox.fault("zendesk", method="GET", path="/api/v2/tickets/1", status=200, body={"ticket": stale})
    with pytest.raises(TransientError, match="changed at the same time"):
        zendesk.deliver("update_ticket", chat(zendesk), {"tags": ["heppu"]})
    assert account.tickets[1]["tags"] == ["vip"]
    zendesk.deliver("update_ticket", chat(zendesk), {"tags": ["heppu"]})
    assert account.tickets[1]["tags"] == ["heppu", "vip"]


def test_event_without_a_ticket_fails_with_what_to_do(zendesk: CrmConnection) -> None:
    with pytest.raises(PermanentError, match="set `ticket`, or skip such events with `where`"):
        zendesk.deliver("update_ticket", chat(zendesk, **{"metadata.ticketId": None}), SOLVED)


def test_update_without_changes_fails_with_what_to_do(zendesk: CrmConnection) -> None:
    with pytest.raises(PermanentError, match="nothing to update: set `status`"):
        zendesk.deliver("update_ticket", chat(zendesk))


def test_missing_ticket_is_skipped_unless_it_is_an_error(zendesk: CrmConnection) -> None:
    missing = chat(zendesk, **{"metadata.ticketId": "404"})
    result = zendesk.deliver("update_ticket", missing, SOLVED)
    assert result.detail == "nothing was written: Zendesk has no ticket with this ID"
    with pytest.raises(PermanentError, match="no record with this ID"):
        zendesk.deliver("update_ticket", missing, SOLVED | {"on_missing": "error"})


# ---------------------------------------------------------------- closed tickets


def test_comment_on_a_closed_ticket_becomes_its_follow_up(zendesk: CrmConnection, account: Zendesk) -> None:
    account.close(1)
    result = zendesk.deliver(
        "update_ticket", chat(zendesk), {"comment": "It rattles again.", "tags": ["heppu"]}
    )
    assert (result.id, result.detail) == ("2", "follow-up of the closed ticket 1")
    follow_up = account.tickets[2]
    assert (follow_up["subject"], follow_up["requester_id"], follow_up["tags"]) == ("Brakes", 9002, ["heppu"])
    assert account.comments(2)[0]["body"] == "It rattles again."


def test_comment_on_a_closed_ticket_needs_no_statuses_of_the_account(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox
) -> None:
    account.close(1)
    sandbox.fault("zendesk", path="/api/v2/custom_statuses", status=403, body={"error": "Forbidden"})
    assert zendesk.deliver("update_ticket", chat(zendesk), {"comment": "It rattles again."}).id == "2"


@pytest.mark.parametrize("params", [SOLVED, {"priority": "low"}, {"comment": "x", "on_closed": "skip"}])
def test_closed_ticket_without_anything_to_say_stays_alone(
    zendesk: CrmConnection, account: Zendesk, params: dict[str, Any]
) -> None:
    account.close(1)
    result = zendesk.deliver("update_ticket", chat(zendesk), params)
    assert (result.id, result.detail) == ("1", "nothing was written: the ticket is closed")
    assert len(account.tickets) == 1


def test_closed_ticket_is_an_error_if_the_rule_says_so(zendesk: CrmConnection, account: Zendesk) -> None:
    account.close(1)
    with pytest.raises(PermanentError, match="the ticket is closed"):
        zendesk.deliver("update_ticket", chat(zendesk), {"comment": "x", "on_closed": "error"})


def test_recording_for_a_closed_ticket_is_added_to_its_follow_up(
    zendesk: CrmConnection, account: Zendesk
) -> None:
    account.close(1)
    result = zendesk.deliver("update_ticket", call(zendesk), {"recording_url": RECORDING})
    assert result.detail == "follow-up of the closed ticket 1; with the recording"
    assert account.comments(2)[-1]["data"]["recording_url"] == RECORDING


def test_refused_recording_fails_if_nothing_else_was_written(
    zendesk: CrmConnection, sandbox: RunningSandbox
) -> None:
    body = {"error": "RecordInvalid", "details": {"voice_comment": [{"description": "invalid"}]}}
    sandbox.fault("zendesk", method="PUT", status=422, body=body)
    with pytest.raises(PermanentError, match="voice_comment"):
        zendesk.deliver("update_ticket", call(zendesk), {"recording_url": RECORDING})


def test_own_status_that_solves_needs_no_follow_up(zendesk: CrmConnection, account: Zendesk) -> None:
    account.setup["custom_statuses"].append(
        {
            "id": 720,
            "status_category": "solved",
            "agent_label": "Solved by bot",
            "active": True,
            "default": False,
        }
    )
    account.close(1)
    zendesk.deliver("update_ticket", chat(zendesk), {"status": "solved by bot", "comment": "Done."})
    assert len(account.tickets) == 1


# ---------------------------------------------------------------- lost responses and limits


@pytest.mark.parametrize("drop", ["before", "after"])
def test_lost_response_of_an_update_never_doubles_the_comment(
    zendesk: CrmConnection, account: Zendesk, sandbox: RunningSandbox, drop: Any
) -> None:
    account.page_size = 2
    for number in range(3):
        zendesk.deliver("update_ticket", chat(zendesk, conversationId=f"other_{number}"), SOLVED)
    sandbox.fault("zendesk", method="PUT", drop=drop)
    attempt = attempts(zendesk, "update_ticket", call(zendesk), SOLVED | {"recording_url": RECORDING})
    with pytest.raises(OutcomeUnknown):
        attempt()
    assert attempt().id == "1"
    assert len(account.comments(1)) == 1 + 3 + 2


def test_limit_of_one_ticket_stops_only_its_updates(zendesk: CrmConnection, account: Zendesk) -> None:
    for number in range(30):
        zendesk.deliver("update_ticket", chat(zendesk, conversationId=f"chat_{number}"), SOLVED)
    with pytest.raises(RateLimited) as raised:
        zendesk.deliver("update_ticket", chat(zendesk), SOLVED)
    assert raised.value.per_object
    assert raised.value.retry_after is not None
    assert timedelta(minutes=9) < raised.value.retry_after <= timedelta(minutes=10, seconds=1)


def test_limit_of_all_updates_stops_the_connection(zendesk: CrmConnection, account: Zendesk) -> None:
    for number in range(100):
        account.count_update(number + 2)
    with pytest.raises(RateLimited) as raised:
        zendesk.deliver("update_ticket", chat(zendesk), SOLVED)
    assert (raised.value.per_object, raised.value.retry_after) == (False, timedelta(seconds=60))


@pytest.mark.parametrize(("remaining", "per_object"), [("0", False), ("180", True)])
def test_limit_without_a_name_is_the_account_s_if_that_has_no_requests_left(
    zendesk: CrmConnection, sandbox: RunningSandbox, remaining: str, per_object: bool
) -> None:
    headers = {"Retry-After": "20", "X-Rate-Limit-Remaining": remaining}
    sandbox.fault("zendesk", method="PUT", status=429, headers=headers)
    with pytest.raises(RateLimited) as raised:
        zendesk.deliver("update_ticket", chat(zendesk), SOLVED)
    assert (raised.value.per_object, raised.value.retry_after) == (per_object, timedelta(seconds=20))


# ---------------------------------------------------------------- links and checks


def test_dashboard_links_to_tickets_and_says_where_to_look(zendesk: CrmConnection) -> None:
    connector = zendesk.connector
    settings = connector.settings.model_construct(url="https://acme.zendesk.com")
    assert connector.build_record_url is not None
    assert connector.describe_where_to_look is not None
    url = connector.build_record_url(settings, ProviderRecord("create_ticket", "17"))
    assert url == "https://acme.zendesk.com/agent/tickets/17"
    assert connector.build_record_url(settings, ProviderRecord("create_ticket", "../x")) is None
    token = "0" * 32
    new = connector.describe_where_to_look(settings, UncertainDelivery("create_ticket", {}, token, "chat_1"))
    changed = connector.describe_where_to_look(
        settings, UncertainDelivery("update_ticket", {"ticket": "17"}, token, "chat_1")
    )
    assert f"external_id:{token}" in new.text
    assert changed.url == "https://acme.zendesk.com/agent/tickets/17"


@pytest.mark.parametrize(
    ("params", "text", "hint"),
    [
        ({"group": "Suport"}, "Zendesk has no group `Suport`", "did you mean `Support`?"),
        (
            {"status": "Waiting for part"},
            "no ticket status `Waiting for part`",
            "did you mean `Waiting for parts`?",
        ),
        ({"assignee": "4"}, "no record with this ID", ""),
        ({"assignee": "bob@harbourlight.example"}, "no agent of Zendesk has the email address", ""),
        (
            {"custom_fields": {"Order nr": "{{ event.summary }}"}},
            "no custom ticket field `Order nr`",
            "did you mean",
        ),
        ({"custom_fields": {"Subject": "Brakes"}}, "Zendesk has no custom ticket field `Subject`", "one of"),
        (
            {"custom_fields": {"Product area": "Boat"}},
            "does not accept `Boat`",
            "it takes one of City bike, E-bike",
        ),
    ],
)
def test_rules_are_checked_against_the_account(
    zendesk: CrmConnection, params: dict[str, Any], text: str, hint: str
) -> None:
    found = zendesk.connected.check_rules(("update_ticket", params))
    [problem] = [problem for problem in found if problem.level == "error"]
    assert text in problem.text
    assert hint in problem.hint


def test_rules_that_the_account_accepts_have_no_problem(zendesk: CrmConnection) -> None:
    params = {
        "group": "Support", "status": "Waiting for parts", "assignee": "ada@harbourlight.example",
        "custom_fields": {"Rating": 5, "Product area": "E-bike", "Order number": "{{ event.summary }}"},
        "brand": "402", "form": "Repairs",
    }  # fmt: skip
    assert [
        item for item in zendesk.connected.check_rules(("create_ticket", params)) if item.level == "error"
    ] == []


def test_name_of_two_groups_needs_an_id(zendesk: CrmConnection, account: Zendesk) -> None:
    account.setup["groups"].append({"id": 304, "name": "Support", "deleted": False})
    with pytest.raises(
        PermanentError, match="2 groups of Zendesk have the name `Support`; write the ID of one"
    ):
        zendesk.deliver("update_ticket", chat(zendesk), {"group": "Support"})
    zendesk.deliver("update_ticket", chat(zendesk), {"group": "304"})
    assert account.tickets[1]["group_id"] == 304


def test_ticket_that_the_agent_may_not_change_does_not_pause_the_account(
    zendesk: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.fault("zendesk", method="PUT", status=403, body={"error": "Forbidden"})
    with pytest.raises(PermanentError):
        zendesk.deliver("update_ticket", chat(zendesk), SOLVED)
