"""Salesforce cases: one per conversation, with the org's assignment rules on creation only; closing them."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import (
    AccountError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.records import QUEUE_ID, SALES_USER_ID, USER_ID
from bridge.testing import event
from tests.integration.crm import CrmConnection

PHONE = "+12125550123"
EMAIL = "maya.lindqvist@example.com"
UPSERT = "*/Case/Conversation_Id__c"


def call(connection: CrmConnection, summary: str | None = "Wants to return a bike.\nToday.") -> Event:
    changes = {"conversationId": "conv_case", "summary": summary}
    return event("call.completed", changes, clock=connection.clock)


def fields(record: Any, *names: str) -> tuple[Any, ...]:
    return tuple(record[name] for name in names)


def test_case_of_a_contact_has_subject_origin_and_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL).id
    params = {"priority": "High", "properties": {"Type": "Question"}}
    result = salesforce.deliver("create_case", call(salesforce), params)

    [case] = sandbox.salesforce.cases
    assert (result.id, result.detail) == (case.id, "created")
    assert fields(case, "Subject", "Origin", "Priority", "Type") == (
        "Wants to return a bike.",
        "Phone",
        "High",
        "Question",
    )
    assert fields(case, "ContactId", "SuppliedEmail") == (contact, None)
    assert case["Description"].startswith("Wants to return a bike.\nToday.\n\nConversation: ")


def test_case_of_a_stranger_has_the_address_and_creates_no_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    changes = {"summary": None, "metadata.contactName": "Priya Raman"}
    chat = event("chat.completed", changes, clock=salesforce.clock)
    salesforce.deliver("create_case", chat)

    [case] = sandbox.salesforce.cases
    assert fields(case, "SuppliedEmail", "SuppliedName") == (chat.contact.email, "Priya Raman")
    assert case["Origin"] == "Web"  # the org's picklist has no Chat
    assert case["Subject"] == "Chat with Priya Raman"
    assert (sandbox.salesforce.contacts, sandbox.salesforce.leads) == ([], [])


def test_later_event_updates_the_case_and_keeps_what_colleagues_changed(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    org = sandbox.salesforce
    org.set_assignment_rule("Case", QUEUE_ID)
    properties = {"Reason": {"value": "Return", "mode": "fill"}, "Type": "Question"}
    first = salesforce.deliver("create_case", call(salesforce), {"properties": properties})
    [case] = org.cases
    assert case["OwnerId"] == QUEUE_ID
    case.fields |= {"OwnerId": SALES_USER_ID, "Subject": "Return of order 7", "Reason": "Refund"}

    params = {"properties": properties | {"Type": "Problem"}}
    for existing in (None, first.id):
        result = salesforce.deliver(
            "create_case", call(salesforce, "Resolved."), params, existing_id=existing
        )
        assert (result.id, result.detail) == (case.id, "updated")
    [case] = org.cases
    assert fields(case, "OwnerId", "Subject", "Reason", "Type") == (
        SALES_USER_ID,
        "Return of order 7",
        "Refund",
        "Problem",
    )
    assert case["Description"].startswith("Resolved.")


@pytest.mark.parametrize("drop", ["before", "after"])
def test_lost_response_makes_no_second_case(
    salesforce: CrmConnection, sandbox: RunningSandbox, drop: Any
) -> None:
    sandbox.salesforce.set_assignment_rule("Case", QUEUE_ID)
    sandbox.fault("salesforce", path=UPSERT, drop=drop)
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("create_case", call(salesforce))
    result = salesforce.deliver("create_case", call(salesforce), attempt=2)
    [case] = sandbox.salesforce.cases
    assert (result.id, case["OwnerId"]) == (case.id, QUEUE_ID)


def test_deleted_case_is_created_again(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    first = str(salesforce.deliver("create_case", call(salesforce)).id)
    sandbox.salesforce.delete("Case", first)
    second = salesforce.deliver("create_case", call(salesforce), existing_id=first)
    assert [case.id for case in sandbox.salesforce.cases] == [second.id] != [first]


def test_contact_deleted_since_it_was_cached_makes_the_caller_a_stranger(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL).id
    salesforce.deliver("create_case", call(salesforce))
    sandbox.salesforce.delete("Contact", contact)
    other = event("call.completed", {"conversationId": "conv_other"}, clock=salesforce.clock)
    salesforce.deliver("create_case", other)
    assert fields(sandbox.salesforce.cases[1], "ContactId", "SuppliedEmail") == (None, EMAIL)


def test_two_conversations_are_two_cases_and_each_costs_few_requests(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("create_case", call(salesforce))
    salesforce.requests()
    other = event("call.completed", {"conversationId": "a/b c?d"}, clock=salesforce.clock)
    salesforce.deliver("create_case", other)
    assert len(sandbox.salesforce.cases) == 2
    assert len(salesforce.requests()) == 2  # is there a case; create it


@pytest.mark.parametrize(
    ("owner", "expected"),
    [("sales@harbourlight.example", SALES_USER_ID), (QUEUE_ID, QUEUE_ID), (None, USER_ID)],
)
def test_owner_of_the_rule_is_not_overruled_by_assignment_rules(
    salesforce: CrmConnection, sandbox: RunningSandbox, owner: str | None, expected: str
) -> None:
    if owner:
        sandbox.salesforce.set_assignment_rule("Case", USER_ID)
    salesforce.deliver("create_case", call(salesforce), {"owner": owner})
    assert sandbox.salesforce.cases[0]["OwnerId"] == expected


def test_wrong_owner_loses_no_case(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.set_assignment_rule("Case", QUEUE_ID)
    sandbox.salesforce.deactivate_user(SALES_USER_ID)
    result = salesforce.deliver("create_case", call(salesforce), {"owner": SALES_USER_ID})
    assert "the user is inactive" in result.detail
    assert sandbox.salesforce.cases[0]["OwnerId"] == QUEUE_ID


def test_owner_who_is_deactivated_meanwhile_pauses_nothing_and_loses_no_case(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.set_assignment_rule("Case", QUEUE_ID)
    salesforce.deliver("create_case", event(clock=salesforce.clock), {"owner": SALES_USER_ID})
    sandbox.salesforce.deactivate_user(SALES_USER_ID)  # the owner was found a moment ago
    result = salesforce.deliver("create_case", call(salesforce), {"owner": SALES_USER_ID})
    assert result.detail == "created; without OwnerId, which Salesforce refused"
    assert [case["OwnerId"] for case in sandbox.salesforce.cases] == [SALES_USER_ID, QUEUE_ID]


def test_owner_among_the_properties_is_not_overruled_by_assignment_rules(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    for kind in ("Case", "Lead"):
        sandbox.salesforce.set_assignment_rule(kind, QUEUE_ID)
    for action in ("create_case", "upsert_contact"):
        salesforce.deliver(action, call(salesforce), {"properties": {"OwnerId": SALES_USER_ID}})
    [case], [lead] = sandbox.salesforce.cases, sandbox.salesforce.leads
    assert (case["OwnerId"], lead["OwnerId"]) == (SALES_USER_ID, SALES_USER_ID)


def test_refused_address_of_a_stranger_loses_no_case(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add_rule(
        "Case", lambda case: ("No such numbers", "SuppliedPhone") if case.get("SuppliedPhone") else None
    )
    result = salesforce.deliver("create_case", call(salesforce))
    assert result.detail == "created; without SuppliedPhone, which Salesforce refused"
    assert sandbox.salesforce.cases[0]["SuppliedEmail"] == EMAIL


def test_long_text_is_cut_with_a_mark_and_keeps_the_conversation(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("create_case", call(salesforce), {"text": "word " * 10_000})
    [case] = sandbox.salesforce.cases
    assert len(case["Description"]) <= 32_000
    assert "…\n\nConversation: " in case["Description"]
    assert len(case["Subject"]) <= 100


def test_missing_external_id_field_pauses_instead_of_creating_duplicates(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.remove_field("Case", "Conversation_Id__c")
    with pytest.raises(AccountError, match=r"Case\.Conversation_Id__c is missing") as caught:
        salesforce.deliver("create_case", call(salesforce))
    assert "bridge connections setup salesforce" in caught.value.fix
    with pytest.raises(AccountError, match=r"Case\.Conversation_Id__c is missing"):
        salesforce.deliver("create_case", call(salesforce), existing_id="5005g00000ZzZzZ")
    assert sandbox.salesforce.cases == []


def test_hidden_cases_pause_the_account(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.deny("Case", "read")
    with pytest.raises(AccountError) as caught:
        salesforce.deliver("create_case", call(salesforce))
    assert "Case" in caught.value.fix


# ------------------------------------------------------------------------------------------------ closing


def test_closed_status_that_was_renamed_meanwhile_delays_the_case_only(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    first, second = (sandbox.salesforce.add("Case", Subject="Flat tire").id for _ in range(2))
    salesforce.deliver("close_case", call(salesforce), {"case": first})
    sandbox.salesforce.set_statuses("Case", {"New": False, "Finished": True})
    with pytest.raises(TransientError):
        salesforce.deliver("close_case", call(salesforce), {"case": second})
    salesforce.deliver("close_case", call(salesforce), {"case": second})
    assert sandbox.salesforce.cases[1]["Status"] == "Finished"


@pytest.mark.parametrize("first", ["create_case", "log_call"])
@pytest.mark.parametrize("caller", ["contact", "anonymous"])
def test_call_of_a_conversation_is_related_to_its_case_in_either_order(
    salesforce: CrmConnection, sandbox: RunningSandbox, first: str, caller: str
) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    salesforce.deliver("log_call", event(clock=salesforce.clock))  # now what belongs to the contact is cached
    changes: dict[str, Any] = {"conversationId": "conv_case"}
    if caller == "anonymous":
        changes |= {"metadata": {"contactPhone": "anonymous"}}
    source_event = event(changes=changes, clock=salesforce.clock)
    second = {"create_case": "log_call", "log_call": "create_case"}[first]
    results = {action: salesforce.deliver(action, source_event) for action in (first, second)}
    [task] = [task for task in sandbox.salesforce.tasks if task["Conversation_Id__c"] == "conv_case"]
    assert task["WhatId"] == results["create_case"].id


def test_task_that_is_related_to_something_else_stays_there(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL).id
    other = sandbox.salesforce.add("Case", ContactId=contact, Subject="Old").id
    salesforce.deliver("log_call", call(salesforce))
    salesforce.deliver("create_case", call(salesforce))
    assert sandbox.salesforce.tasks[0]["WhatId"] == other


def test_new_or_closed_case_is_noticed_by_the_next_call(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    salesforce.deliver("log_call", event(clock=salesforce.clock))
    created = salesforce.deliver("create_case", call(salesforce))
    salesforce.deliver("log_call", event(clock=salesforce.clock))
    salesforce.deliver("close_case", call(salesforce), {"without_id": "newest"})
    salesforce.deliver("log_call", event(clock=salesforce.clock))
    assert [task["WhatId"] for task in sandbox.salesforce.tasks] == [None, created.id, None]


def test_case_with_a_hidden_contact_is_closed(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    case = sandbox.salesforce.add("Case", Subject="Flat tire").id
    sandbox.salesforce.hide_field("Case", "ContactId")
    salesforce.deliver("close_case", call(salesforce), {"case": case})
    assert sandbox.salesforce.cases[0]["IsClosed"] is True


def test_closing_a_case_does_not_hand_it_to_another_owner(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    case = sandbox.salesforce.add("Case", OwnerId=SALES_USER_ID).id
    sandbox.salesforce.set_assignment_rule("Case", QUEUE_ID)
    salesforce.deliver("close_case", params={"case": case})
    [stored] = sandbox.salesforce.cases
    assert fields(stored, "Status", "OwnerId") == ("Closed", SALES_USER_ID)


@pytest.mark.parametrize(
    "params", [{"case": "5005g00000ZzZzZ"}, {"without_id": "newest"}, {"without_id": "review"}]
)
def test_stranger_or_unknown_case_is_no_failure(
    salesforce: CrmConnection, sandbox: RunningSandbox, params: dict[str, str]
) -> None:
    result = salesforce.deliver("close_case", params=params)
    assert result.detail.startswith("Salesforce has no ")
    with pytest.raises(PermanentError, match="Salesforce has no "):
        salesforce.deliver("close_case", params=params | {"on_missing": "error"})
    assert sandbox.salesforce.cases == []


def test_several_open_cases_are_still_reviewed(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL).id
    for _ in range(2):
        sandbox.salesforce.add("Case", ContactId=contact)
    with pytest.raises(LookupInconclusive):
        salesforce.deliver("close_case", params={"without_id": "review"})
