"""HubSpot tickets: created once per conversation, updated by its later events."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.connector import Success
from bridge.errors import AccountError, OutcomeUnknown
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection

PHONE = "+12125550123"
EMAIL = "maya.lindqvist@example.com"


def call(hubspot: CrmConnection, conversation: str = "conv_1", event_type: str = "call.completed") -> Event:
    changes = {
        "conversationId": conversation,
        "metadata.contactPhone": PHONE,
        "metadata.contactEmail": EMAIL,
        "metadata.contactName": "Maya Lindqvist",
        "summary": "The bike rattles.\nWants a repair.",
    }
    return event(event_type, changes, clock=hubspot.clock)


def test_ticket_is_created_in_the_first_open_stage_and_associated(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    company = sandbox.hubspot.add("companies", name="Lindqvist Cycles").id
    contact = sandbox.hubspot.add("contacts", email=EMAIL, hubspot_owner_id="70011").id
    sandbox.hubspot.link("contacts", contact, "companies", company)
    call_id = hubspot.deliver("log_call", call(hubspot)).id
    result = hubspot.deliver("create_ticket", call(hubspot), {"priority": "HIGH"})
    [ticket] = sandbox.hubspot.tickets
    assert ticket.id == result.id
    expected = {
        "subject": "The bike rattles.",
        "content": "The bike rattles.\nWants a repair.\n\nConversation: conv_1",
        "hs_pipeline": "0",
        "hs_pipeline_stage": "911201",
        "hs_ticket_priority": "HIGH",
        "source_type": "PHONE",
        "hubspot_owner_id": "70011",
        "heppu_conversation_id": "conv_1",
    }
    assert {name: ticket.properties.get(name) for name in expected} == expected
    links = {
        kind: sandbox.hubspot.associated("tickets", ticket.id, kind)
        for kind in ("contacts", "companies", "calls")
    }
    assert links == {"contacts": [contact], "companies": [company], "calls": [call_id]}


def test_later_event_of_the_conversation_updates_the_ticket_and_leaves_what_users_change(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    first = hubspot.deliver("create_ticket", call(hubspot), {"properties": {"hs_resolution": "open"}})
    [ticket] = sandbox.hubspot.tickets
    chosen = {
        "hs_pipeline_stage": "911203",
        "hubspot_owner_id": "70012",
        "subject": "Bent wheel",
        "hs_ticket_priority": "LOW",
    }
    sandbox.hubspot.crm.update(
        sandbox.hubspot.crm.types["tickets"], ticket,
        chosen, hubspot.clock.now(),
    )  # fmt: skip
    later = event(
        "call.completed",
        {"conversationId": "conv_1", "metadata.contactEmail": EMAIL, "summary": "Called again."},
    )
    for existing_id in (
        first.id,
        None,
    ):  # None: the bridge does not know of the first ticket, but HubSpot does
        params = {"owner": "70011", "subject": "Wheel", "priority": "HIGH"}
        result = hubspot.deliver("create_ticket", later, params, existing_id=existing_id)
        assert result.id == first.id
    [ticket] = sandbox.hubspot.tickets
    assert ticket.properties["content"].startswith("Called again.")
    assert {name: ticket.properties[name] for name in chosen} == chosen


def test_retry_after_a_lost_response_creates_no_second_ticket(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    for drop in ("after", "before"):
        sandbox.fault("hubspot", path="*/tickets/batch/create", drop=drop)
        with pytest.raises(OutcomeUnknown):
            hubspot.deliver("create_ticket", call(hubspot))
    result = hubspot.deliver("create_ticket", call(hubspot), attempt=3)
    assert [ticket.id for ticket in sandbox.hubspot.tickets] == [result.id]


@pytest.mark.parametrize(
    ("params", "pipeline", "stage", "note"),
    [
        ({"stage": "waiting on us"}, "0", "911203", ""),
        ({"stage": "911202"}, "0", "911202", ""),
        ({"pipeline": "Returns"}, "74411", "74412", ""),
        ({"pipeline": "74411", "stage": "Refunded"}, "74411", "74413", ""),
        ({"stage": "Requested"}, "74411", "74412", ""),
        ({"pipeline": "Retruns"}, "0", "911201", "HubSpot has no ticket pipeline `Retruns`; did you mean `Returns`?"),
        ({"pipeline": "Returns", "stage": "New"}, "74411", "74412", "HubSpot has no ticket stage `New`; one of: "),
    ],
)  # fmt: skip
def test_pipeline_and_stage_are_found_by_label_and_id(
    hubspot: CrmConnection,
    sandbox: RunningSandbox,
    params: dict[str, str],
    pipeline: str,
    stage: str,
    note: str,
) -> None:
    result = hubspot.deliver("create_ticket", call(hubspot), params)
    [ticket] = sandbox.hubspot.tickets
    assert (ticket.properties["hs_pipeline"], ticket.properties["hs_pipeline_stage"]) == (pipeline, stage)
    assert note in result.detail
    problems = [
        problem
        for problem in hubspot.connected.check_rules(("create_ticket", params))
        if problem.level == "error"
    ]
    assert [f"{problem.text}; {problem.hint}"[: len(note)] for problem in problems] == (
        [note] if note else []
    )


def test_priority_and_source_that_the_account_does_not_have_lose_no_ticket(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    properties = sandbox.hubspot.crm.types["tickets"].properties
    for name in ("hs_ticket_priority", "source_type"):
        properties[name] = replace(properties[name], options=("OTHER",))
    result = hubspot.deliver("create_ticket", call(hubspot), {"priority": "URGENT"})
    assert [ticket.id for ticket in sandbox.hubspot.tickets] == [result.id]
    assert "without the priority, which HubSpot refused (INVALID_OPTION)" in result.detail


def test_wrong_owner_does_not_lose_the_ticket(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    result = hubspot.deliver("create_ticket", call(hubspot), {"owner": "99"})
    [ticket] = sandbox.hubspot.tickets
    assert (ticket.id, ticket.properties.get("hubspot_owner_id")) == (result.id, None)
    assert "without the owner" in result.detail


def test_stranger_without_address_gets_a_ticket_without_contact(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    changes = {"metadata.contactPhone": None, "metadata.contactEmail": None}
    result = hubspot.deliver("create_ticket", event("call.completed", changes))
    [ticket] = sandbox.hubspot.tickets
    assert ticket.id == result.id
    skipped = hubspot.deliver("create_ticket", call(hubspot, "conv_2"), {"on_missing": "skip"})
    assert (skipped.id, skipped.detail) == (None, "no ticket: HubSpot has no such contact")


def test_ticket_without_text_and_address_has_the_name_of_the_person(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    metadata = {"contactPhone": "anonymous", "contactName": "Jonas Weber"}
    hubspot.deliver("create_ticket", event("call.no-answer", {"metadata": metadata, "summary": None}))
    [ticket] = sandbox.hubspot.tickets
    assert ticket.properties["subject"] == "Call with Jonas Weber"


def test_call_that_is_logged_after_the_ticket_is_associated_with_it(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.add("contacts", email=EMAIL)
    hubspot.deliver("log_call", call(hubspot, "conv_0"))
    ticket = hubspot.deliver("create_ticket", call(hubspot)).id
    logged = hubspot.deliver("log_call", call(hubspot)).id
    assert logged is not None
    assert sandbox.hubspot.associated("calls", logged, "tickets") == [ticket]


@pytest.mark.parametrize("first", ["create_ticket", "log_call"])
@pytest.mark.parametrize("phone", [None, "anonymous"])
def test_call_and_ticket_of_a_conversation_are_associated_in_either_order_despite_other_tickets(
    hubspot: CrmConnection, sandbox: RunningSandbox, first: str, phone: str | None
) -> None:
    hubspot.deliver(
        "log_call", call(hubspot, "conv_0")
    )  # from here on, what belongs to the contact is cached
    [contact] = sandbox.hubspot.contacts
    other = sandbox.hubspot.add("tickets", subject="Old", hs_pipeline_stage="911201").id
    sandbox.hubspot.link("contacts", contact.id, "tickets", other)
    source_event = call(hubspot)
    if phone:
        metadata = {"contactPhone": phone}
        source_event = event(changes=dict(source_event.body) | {"metadata": metadata}, clock=hubspot.clock)
    second = {"create_ticket": "log_call", "log_call": "create_ticket"}[first]
    results = {action: hubspot.deliver(action, source_event) for action in (first, second)}
    ticket = str(results["create_ticket"].id)
    associated = sandbox.hubspot.associated("calls", str(results["log_call"].id), "tickets")
    # A call that is logged first is on the only ticket that is open then.
    assert set(associated) - {other} == {ticket}
    assert other not in associated or (first == "log_call" and not phone)


def test_ticket_of_a_chat_is_associated_with_its_note(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    changes = {"conversationId": "conv_7", "metadata.contactEmail": EMAIL, "summary": None}
    chat = event("chat.completed", changes)
    note = hubspot.deliver("log_chat", chat).id
    ticket = hubspot.deliver("create_ticket", chat)
    assert isinstance(ticket, Success)
    assert ticket.id is not None
    assert sandbox.hubspot.associated("tickets", ticket.id, "notes") == [note]
    assert sandbox.hubspot.tickets[0].properties["subject"].startswith("Chat with ")


def test_missing_scope_pauses_the_connection(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes = {"tickets"}
    with pytest.raises(AccountError, match="lacks the scope tickets"):
        hubspot.deliver("create_ticket", call(hubspot))
