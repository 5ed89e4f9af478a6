"""HubSpot meetings: the time that a customer named, once per conversation."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import OutcomeUnknown, PermanentError
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events

EMAIL = "maya.lindqvist@example.com"
START = {"start": "{{ event.callMetadata.custom.start }}"}


def call(connection: CrmConnection, start: Any = "2099-03-05T15:00:00Z", **changes: Any) -> Event:
    standard = {
        "conversationId": "conv_1",
        "metadata.contactEmail": EMAIL,
        "metadata.contactName": "Maya Lindqvist",
        "callMetadata.custom": {"start": start},
        "summary": "Wants a test ride.",
    }
    return event("call.completed", standard | changes, clock=connection.clock)


def test_meeting_has_its_times_and_belongs_to_contact_company_deal_and_owner(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    portal = sandbox.hubspot
    contact = portal.add("contacts", email=EMAIL, hubspot_owner_id="70011").id
    company = portal.add("companies", name="Lindqvist Cycles").id
    deal = portal.add("deals", dealname="Fleet", dealstage="qualifiedtobuy").id
    for kind, record_id in (("companies", company), ("deals", deal)):
        portal.link("contacts", contact, kind, record_id)
    params = {"location": "Pier 4", "url": "https://cal.example.com/7", "meeting_type": "Test ride"}
    result = hubspot.deliver("create_meeting", call(hubspot), START | params | {"duration": "1h"})
    [meeting] = portal.objects("meetings")
    expected = {
        "hs_timestamp": "2099-03-05T15:00:00.000Z",
        "hs_meeting_start_time": "2099-03-05T15:00:00.000Z",
        "hs_meeting_end_time": "2099-03-05T16:00:00.000Z",
        "hs_meeting_title": "Meeting with Maya Lindqvist",
        "hs_meeting_body": "Wants a test ride.<br><br>Conversation: conv_1",
        "hs_meeting_location": "Pier 4",
        "hs_meeting_external_url": "https://cal.example.com/7",
        "hs_meeting_outcome": "SCHEDULED",
        "hs_activity_type": "Test ride",
        "hubspot_owner_id": "70011",
        "heppu_conversation_id": "conv_1",
    }
    assert (meeting.id, result.detail) == (result.id, "")
    assert {name: meeting.properties.get(name) for name in expected} == expected
    links = {
        kind: portal.associated("meetings", meeting.id, kind) for kind in ("contacts", "companies", "deals")
    }
    assert links == {"contacts": [contact], "companies": [company], "deals": [deal]}


@pytest.mark.parametrize(
    ("start", "params", "contact_zone", "stored"),
    [
        ("2099-07-05T15:00:00+02:00", {}, None, "2099-07-05T13:00:00.000Z"),
        ("2099-07-05T15:00", {"time_zone": "Europe/Stockholm"}, "America/Chicago", "2099-07-05T13:00:00.000Z"),
        ("2099-07-05 15:00", {}, "America/Chicago", "2099-07-05T20:00:00.000Z"),
        ("2099-07-05T15:00", {}, None, "2099-07-05T19:00:00.000Z"),  # the account's zone: US/Eastern
        (4086941400000, {}, None, "2099-07-05T13:30:00.000Z"),
    ],
)  # fmt: skip
def test_time_without_zone_is_in_the_zone_of_rule_contact_or_account(
    hubspot: CrmConnection,
    sandbox: RunningSandbox,
    start: Any,
    params: dict[str, str],
    contact_zone: str | None,
    stored: str,
) -> None:
    zone = {"callMetadata.timezone": contact_zone} if contact_zone else {}
    hubspot.deliver("create_meeting", call(hubspot, start, **zone), START | params)
    [meeting] = sandbox.hubspot.objects("meetings")
    assert meeting.properties["hs_meeting_start_time"] == stored


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        ("next Tuesday at 3", "`start` needs a time"),
        ("2099-07-05", "`start` has no time of day"),
        ("9999-12-31T23:59:59Z", "`start` needs a time"),
    ],
)
def test_start_that_is_not_a_time_fails_its_own_delivery_only(
    hubspot: CrmConnection, sandbox: RunningSandbox, start: str, problem: str
) -> None:
    other = call_events(1, hubspot.clock)[0]
    params = {"start": "{{ event.callMetadata.custom.start | default('2099-07-05T10:00Z') }}"}
    wrong, right = hubspot.deliver_all("create_meeting", [call(hubspot, start), other], params)
    assert isinstance(wrong, PermanentError)
    assert problem in str(wrong)
    assert [meeting.id for meeting in sandbox.hubspot.objects("meetings")] == [right.id]  # type: ignore[union-attr]


@pytest.mark.parametrize("end", ["2099-03-05T14:00:00Z", "later", "2099-05-05T15:00:00Z"])
def test_end_that_makes_no_sense_is_replaced_by_the_duration(
    hubspot: CrmConnection, sandbox: RunningSandbox, end: str
) -> None:
    result = hubspot.deliver("create_meeting", call(hubspot), START | {"end": end})
    [meeting] = sandbox.hubspot.objects("meetings")
    assert meeting.properties["hs_meeting_end_time"] == "2099-03-05T15:30:00.000Z"
    assert "because `end` is not a time soon after `start`" in result.detail


def test_meeting_in_the_past_is_said(hubspot: CrmConnection) -> None:
    result = hubspot.deliver("create_meeting", call(hubspot, "2020-03-05T15:00:00Z"), START)
    assert "the meeting is in the past" in result.detail


def test_lost_response_makes_no_second_meeting_and_a_later_event_moves_it(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.fault("hubspot", path="*/meetings/batch/create", drop="after")
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("create_meeting", call(hubspot), START)
    first = hubspot.deliver("create_meeting", call(hubspot), START, attempt=2)
    moved = call(hubspot, "2099-03-06T09:00:00Z")
    assert hubspot.deliver("create_meeting", moved, START, existing_id=first.id).id == first.id
    [meeting] = sandbox.hubspot.objects("meetings")
    assert meeting.properties["hs_meeting_start_time"] == "2099-03-06T09:00:00.000Z"


def test_type_that_the_account_does_not_have_is_left_out_and_found_by_the_check(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    params = START | {"meeting_type": "Dinner"}
    result = hubspot.deliver("create_meeting", call(hubspot), params)
    assert len(sandbox.hubspot.objects("meetings")) == 1
    assert "without the type, which HubSpot refused (INVALID_OPTION)" in result.detail
    found = hubspot.connected.check_rules(("create_meeting", {"meeting_type": "Test rider"}))
    [problem] = [problem for problem in found if problem.level == "error"]
    assert (problem.text, problem.hint) == (
        "the property `hs_activity_type` has no option `Test rider`",
        "did you mean `Test ride`?",
    )
