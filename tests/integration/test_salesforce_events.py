"""Salesforce Events: the meeting that a conversation has led to, once per conversation."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import AccountError, OutcomeUnknown, PermanentError
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events

EMAIL = "maya.lindqvist@example.com"
START = {"start": "{{ event.callMetadata.custom.start }}"}


def call(connection: CrmConnection, start: str = "2099-03-05T15:00:00Z", **changes: Any) -> Event:
    standard = {
        "conversationId": "conv_1",
        "metadata.contactEmail": EMAIL,
        "metadata.contactName": "Maya Lindqvist",
        "callMetadata.custom": {"start": start},
        "summary": "Wants a test ride.",
    }
    return event("call.completed", standard | changes, clock=connection.clock)


def events(sandbox: RunningSandbox) -> list[Any]:
    return sandbox.salesforce.records_of("Event")


def test_event_is_in_the_owners_calendar_and_related_to_the_open_opportunity(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    org = sandbox.salesforce
    [_, sales] = org.records_of("User")
    contact = org.add("Contact", LastName="Lindqvist", Email=EMAIL, OwnerId=sales.id)
    deal = org.add("Opportunity", Name="Fleet", StageName="Prospecting", CloseDate="2099-01-01")
    org.add("OpportunityContactRole", OpportunityId=deal.id, ContactId=contact.id)
    params = START | {"duration": "1h", "location": "Pier 4", "url": "https://cal.example.com/7"}
    result = salesforce.deliver("create_event", call(salesforce), params)
    [stored] = events(sandbox)
    expected = {
        "Id": result.id,
        "Subject": "Meeting with Maya Lindqvist",
        "Description": "Wants a test ride.\n\nConversation: conv_1\n\nLink: https://cal.example.com/7",
        "Location": "Pier 4",
        "StartDateTime": "2099-03-05T15:00:00.000+0000",
        "EndDateTime": "2099-03-05T16:00:00.000+0000",
        "ShowAs": "Busy",
        "Type": "Meeting",
        "WhoId": contact.id,
        "WhatId": deal.id,
        "OwnerId": sales.id,
    }
    assert {name: stored[name] for name in expected} == expected
    assert sandbox.salesforce.tasks == []


def test_lead_is_created_for_a_stranger_and_time_without_zone_is_in_that_of_the_org(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("create_event", call(salesforce, "2099-07-05T15:00"), START)
    [stored], [lead] = events(sandbox), sandbox.salesforce.leads
    assert (stored["WhoId"], stored["WhatId"]) == (lead.id, None)
    assert stored["StartDateTime"] == "2099-07-05T19:00:00.000+0000"  # New York


def test_lost_response_makes_no_second_event_and_a_later_one_moves_it(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    sandbox.fault("salesforce", method="PATCH", path="*/Event/*", drop="after")
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("create_event", call(salesforce), START)
    first = salesforce.deliver("create_event", call(salesforce), START, attempt=2)
    moved = call(salesforce, "2099-03-06T09:00:00Z")
    assert salesforce.deliver("create_event", moved, START, existing_id=first.id).id == first.id
    [stored] = events(sandbox)
    assert stored["StartDateTime"] == "2099-03-06T09:00:00.000+0000"


def test_task_and_event_of_one_conversation_are_two_records(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call", call(salesforce))
    salesforce.deliver("create_event", call(salesforce), START)
    keys = [sandbox.salesforce.tasks[0]["Conversation_Id__c"], events(sandbox)[0]["Conversation_Id__c"]]
    assert keys == ["conv_1", "event:conv_1"]


@pytest.mark.parametrize("start", ["Tuesday", "9999-12-31T23:59:59Z"])
def test_start_that_is_not_a_time_fails_its_own_delivery_only(
    salesforce: CrmConnection, sandbox: RunningSandbox, start: str
) -> None:
    other = call_events(1, salesforce.clock)[0]
    params = {"start": "{{ event.callMetadata.custom.start | default('2099-07-05T10:00Z') }}"}
    wrong, right = salesforce.deliver_all("create_event", [call(salesforce, start), other], params)
    assert isinstance(wrong, PermanentError)
    assert [stored.id for stored in events(sandbox)] == [right.id]  # type: ignore[union-attr]


def test_owner_and_related_record_that_salesforce_refuses_cost_no_event(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    params = START | {"case": "5005g00000AbCdE", "owner": "nobody@example.com"}
    result = salesforce.deliver("create_event", call(salesforce), params)
    assert len(events(sandbox)) == 1
    assert "without the related record, which Salesforce refused" in result.detail
    assert "not for the owner that the rule names" in result.detail


def test_without_the_external_id_field_no_event_is_written(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.remove_field("Event", "Conversation_Id__c")
    with pytest.raises(AccountError, match=r"Event\.Conversation_Id__c is missing or hidden"):
        salesforce.deliver("create_event", call(salesforce), START)
    found = [problem.text for problem in salesforce.connected.check_rules(("create_event", {}))]
    assert any("Event.Conversation_Id__c is missing" in text for text in found)


def test_check_names_missing_access_and_wrong_values(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.deny("Event", "create")
    uses = ("create_event", {"event_type": "Dinner", "properties": {"Locaton": "Pier 4"}})
    found = [problem.text for problem in salesforce.connected.check_rules(uses)]
    for text in (
        "the integration user has no Create access to Event (for create_event)",
        "Event has no field `Locaton` that the integration user can see",
        "`Dinner` is not a value of `event_type` (Event.Type); it is left out",
    ):
        assert any(text in item for item in found), found
