"""Calls and chats logged in Pipedrive, over real HTTP, to a sandbox as strict as Pipedrive's documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from bridge.errors import (
    AccountError,
    AuthenticationError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.sandbox import RunningSandbox
from bridge.testing import build_context, event
from tests.integration.crm import CrmConnection, note_text

PHONE, EMAIL = "+12125550123", "maya.lindqvist@example.com"
ACTIVITIES = "/api/v2/activities"
LOG = f"POST {ACTIVITIES}"


@pytest.fixture
def crm(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("pipedrive", sandbox)
    yield connection
    connection.close()


def add_person(crm: CrmConnection, **values: Any) -> Any:
    return crm.sandbox.pipedrive.add(
        "person", **{"name": "Maya Lindqvist", "phone": PHONE, "email": EMAIL} | values
    )


def activity(crm: CrmConnection) -> Any:
    [record] = crm.sandbox.pipedrive.activities
    return record


# ------------------------------------------------------------------------------------------------ activity


def test_call_is_a_done_activity_of_the_person(crm: CrmConnection) -> None:
    person = add_person(crm)
    source = event(clock=crm.clock)
    result = crm.deliver("log_call", source)

    record = activity(crm)
    start = source.occurred_at - timedelta(seconds=125)
    expected = {
        "subject": "Inbound call with Nora at the front desk: completed",
        "type": "call",
        "done": True,
        "due_date": f"{start:%Y-%m-%d}",
        "due_time": f"{start:%H:%M}",
        "duration": "00:03",
        "person_id": person.id,
    }
    assert {name: record[name] for name in expected} == expected
    text = note_text(record["note"])
    assert text.startswith("Asked when the repaired bicycle can be picked up.")
    for line in ("Duration: 125 s", f"From: {PHONE}", f"Conversation: {source.conversation.id}"):
        assert line in text
    assert result.id == str(record.id)


def test_values_of_events_are_escaped_and_the_recording_is_a_link(crm: CrmConnection) -> None:
    add_person(crm)
    url = "https://example.com/1.mp3?a=1&b=2"
    crm.deliver("log_call", params={"summary": "<b>5 < 6</b>", "recording_url": url})
    note = activity(crm)["note"]
    assert "&lt;b&gt;5 &lt; 6&lt;/b&gt;" in note
    assert 'href="https://example.com/1.mp3?a=1&amp;b=2"' in note


def test_organization_owner_and_only_open_deal_of_the_person_are_linked(crm: CrmConnection) -> None:
    organization = crm.sandbox.pipedrive.add("organization", name="Lindqvist Cycles")
    person = add_person(crm, org_id=organization.id, owner_id=1202)
    crm.sandbox.pipedrive.add("deal", title="Lost", person_id=person.id, status="lost")
    deal = crm.sandbox.pipedrive.add("deal", title="Fleet", person_id=person.id)
    crm.deliver("log_call")
    record = activity(crm)
    assert (record["org_id"], record["owner_id"], record["deal_id"]) == (organization.id, 1202, deal.id)


def test_several_open_deals_are_not_guessed(crm: CrmConnection) -> None:
    person = add_person(crm)
    deals = [crm.sandbox.pipedrive.add("deal", title="Fleet", person_id=person.id) for _ in range(2)]
    crm.deliver("log_call")
    assert activity(crm)["deal_id"] is None
    crm.deliver("log_call", event("call.completed", {"conversationId": "conv_2"}), {"deal": str(deals[1].id)})
    assert crm.sandbox.pipedrive.activities[1]["deal_id"] == deals[1].id


def test_owner_by_email_owns_the_activity_and_a_new_person(crm: CrmConnection) -> None:
    crm.deliver("log_call", params={"owner": "SAM@example.com"})
    assert activity(crm)["owner_id"] == 1202
    assert crm.sandbox.pipedrive.persons[0]["owner_id"] == 1202


def test_unknown_owner_does_not_lose_the_call(crm: CrmConnection) -> None:
    result = crm.deliver("log_call", params={"owner": "nobody@example.com"})
    assert "without the owner: no user of Pipedrive has the owner's email address" in result.detail
    assert activity(crm)["owner_id"] == 1201


@pytest.mark.parametrize(
    ("seconds", "duration"), [(0, "00:00"), (1, "00:01"), (60, "00:01"), (3601, "01:01"), (999999, "24:00")]
)
def test_duration_is_in_whole_minutes(crm: CrmConnection, seconds: int, duration: str) -> None:
    add_person(crm)
    crm.deliver("log_call", params={"duration": seconds})
    assert activity(crm)["duration"] == duration


def test_name_of_a_stranger_is_only_in_the_note(crm: CrmConnection) -> None:
    person = add_person(crm, name="Ines Okafor", email="ines@okafor.example")
    crm.deliver("log_call", event("call.completed", {"metadata.contactEmail": None}))
    assert "Name given: Maya Lindqvist" in note_text(activity(crm)["note"])
    assert (person["name"], len(crm.sandbox.pipedrive.persons)) == ("Ines Okafor", 1)


def test_long_transcript_is_cut_visibly_and_keeps_the_reference(crm: CrmConnection) -> None:
    add_person(crm)
    result = crm.deliver(
        "log_call", params={"transcript": "Agent: <Grüezi> 🚲\n" * 6000, "summary": "ü" * 9000}
    )
    note = activity(crm)["note"].replace("<br />", "<br>")
    assert 59_800 < len(note.encode()) <= 60_000
    assert "the transcript was cut" in result.detail
    assert re.search("<br>Reference: [0-9a-f]{32}$", note)
    assert "Conversation: " in note


def test_chat_is_a_task_until_the_account_has_a_type_for_chats(crm: CrmConnection) -> None:
    person = add_person(crm)
    result = crm.deliver(
        "log_chat", event("chat.completed", {"metadata.contactEmail": EMAIL}, clock=crm.clock)
    )
    assert (activity(crm)["type"], activity(crm)["person_id"]) == ("task", person.id)
    assert "Pipedrive has no activity type `Chat`" in result.detail
    assert "created the activity type `Chat`" in crm.connected.setup()
    crm.deliver("log_chat", event("chat.completed", {"conversationId": "conv_2"}, clock=crm.clock))
    assert crm.sandbox.pipedrive.activities[1]["type"] == "chat"


def test_event_without_address_is_logged_without_person(crm: CrmConnection) -> None:
    nobody = {"metadata.contactEmail": None, "metadata.contactPhone": None}
    result = crm.deliver("log_call", event("call.completed", nobody))
    assert (activity(crm)["person_id"], crm.sandbox.pipedrive.persons) == (None, [])
    assert "without a contact: the event has neither phone nor email" in result.detail


def test_unknown_person_is_skipped_on_request(crm: CrmConnection) -> None:
    result = crm.deliver("log_call", params={"on_missing": "skip"})
    assert (result.id, result.detail) == (None, "not logged: Pipedrive has no such person")
    assert crm.sandbox.pipedrive.activities == []


def test_properties_are_fields_of_the_activity_by_name_or_key(crm: CrmConnection) -> None:
    add_person(crm)
    crm.deliver("log_call", params={"properties": {"Priority": "High", "public_description": "Call"}})
    assert (activity(crm)["priority"], activity(crm)["public_description"]) == (3, "Call")
    with pytest.raises(PermanentError, match="activities have no field `Plan`"):
        crm.deliver("log_call", params={"properties": {"Plan": "x"}})


# ------------------------------------------------------------------------------------------------ once


def test_later_event_of_the_conversation_updates_the_activity(crm: CrmConnection) -> None:
    add_person(crm)
    first = crm.deliver("log_call")
    crm.sandbox.pipedrive.update(activity(crm), owner_id=1202)
    second = crm.deliver("log_call", params={"summary": "Analyzed"}, existing_id=first.id)
    assert second.id == first.id
    assert note_text(activity(crm)["note"]).startswith("Analyzed")
    assert activity(crm)["owner_id"] == 1202  # a user changed it


def test_deleted_activity_is_created_once_more(crm: CrmConnection) -> None:
    add_person(crm)
    source = event(clock=crm.clock)
    first = crm.deliver("log_call", source)
    crm.sandbox.pipedrive.delete("activity", first.id or "")
    crm.sandbox.fault("pipedrive", path=ACTIVITIES, method="POST", drop="after")
    with pytest.raises(OutcomeUnknown):
        crm.deliver("log_call", source, existing_id=first.id)
    again = crm.deliver("log_call", source, existing_id=first.id)
    assert again.id == str(activity(crm).id)
    assert "the activity had been deleted" in again.detail


@pytest.mark.parametrize("is_known", [True, False])
def test_lookup_finds_the_activity_among_those_of_other_deliveries(
    crm: CrmConnection, is_known: bool
) -> None:
    person = add_person(crm)
    crm.deliver("log_call", event("call.completed", {"conversationId": "conv_other"}, clock=crm.clock))
    source = event("call.completed", {"conversationId": "conv_ours"}, clock=crm.clock)
    cache = crm.contact_cache if is_known else type(crm.contact_cache)()
    context = build_context(
        source, crm.connector.actions["log_call"], now=crm.clock.now(), contact_cache=cache
    )
    assert crm.connected.find("log_call", context=context) is None
    crm.sandbox.fault("pipedrive", path=ACTIVITIES, method="POST", drop="after")
    with pytest.raises(OutcomeUnknown):
        crm.deliver("log_call", source)
    kept = crm.sandbox.pipedrive.add("person", name="Maya L.", email="maya@work.example.com")
    crm.sandbox.pipedrive.merge_persons(kept, person)
    found = crm.connected.find("log_call", context=context)
    assert found is not None
    assert found.id == str(crm.sandbox.pipedrive.activities[1].id)


def test_reference_in_a_summary_is_not_the_activity_s_own(crm: CrmConnection) -> None:
    add_person(crm)
    source = event("call.completed", {"conversationId": "conv_ours"}, clock=crm.clock)
    context = build_context(source, crm.connector.actions["log_call"], now=crm.clock.now())
    spoof = f"Reference: {context.idempotency_token}"
    crm.deliver("log_call", event("call.completed", {"conversationId": "conv_x"}), {"summary": spoof})
    assert crm.connected.find("log_call", context=context) is None


def test_lookup_gives_up_on_more_pages_than_it_reads(crm: CrmConnection) -> None:
    add_person(crm)
    context = build_context(event(clock=crm.clock), crm.connector.actions["log_call"], now=crm.clock.now())
    endless = {"success": True, "data": [], "additional_data": {"next_cursor": "x"}}
    crm.sandbox.fault("pipedrive", path=ACTIVITIES, body=endless, times=None)
    with pytest.raises(LookupInconclusive):
        crm.connected.find("log_call", context=context)


def test_person_whose_creation_got_no_response_is_not_created_twice(crm: CrmConnection) -> None:
    """The search does not show the person yet; the list of recent changes does."""
    crm.sandbox.fault("pipedrive", lag=300)
    crm.sandbox.fault("pipedrive", path="/api/v2/persons", method="POST", drop="after")
    with pytest.raises(OutcomeUnknown):
        crm.deliver("log_call")
    crm.deliver("log_call")
    assert len(crm.sandbox.pipedrive.persons) == len(crm.sandbox.pipedrive.activities) == 1


@pytest.mark.parametrize("body", [None, {"success": True, "data": {"id": 1, "is_deleted": True}}])
def test_cached_person_that_was_merged_is_searched_for_again(crm: CrmConnection, body: Any) -> None:
    merged = add_person(crm)
    crm.deliver("log_call")
    kept = crm.sandbox.pipedrive.add("person", name="Maya Lindqvist", email="maya@work.example.com")
    crm.sandbox.pipedrive.merge_persons(kept, merged)
    if body:
        crm.sandbox.fault("pipedrive", path=f"/api/v2/persons/{merged.id}", body=body)
    crm.deliver("log_call", event("call.completed", {"conversationId": "conv_2"}, clock=crm.clock))
    assert [record["person_id"] for record in crm.sandbox.pipedrive.activities] == [kept.id, kept.id]


def test_deal_that_was_deleted_meanwhile_does_not_lose_the_call(crm: CrmConnection) -> None:
    person = add_person(crm)
    deal = crm.sandbox.pipedrive.add("deal", title="Fleet", person_id=person.id)
    crm.deliver("log_call")
    crm.sandbox.pipedrive.delete("deal", deal.id)
    result = crm.deliver("log_call", event("call.completed", {"conversationId": "conv_2"}, clock=crm.clock))
    assert "of which Pipedrive refused one (ERR_BAD_REQUEST)" in result.detail
    assert crm.sandbox.pipedrive.activities[1]["person_id"] == person.id


# ------------------------------------------------------------------------------------------------ cost


def test_logging_a_call_takes_one_request_if_the_person_called_within_the_hour(crm: CrmConnection) -> None:
    add_person(crm)
    without_company = {"callMetadata.customer": {}}
    crm.deliver("log_call", event("call.completed", without_company, clock=crm.clock))
    assert crm.requests() == [
        "GET /api/v2/persons/search",
        "GET /api/v2/persons/1",
        "GET /api/v2/deals",
        LOG,
    ]
    spent = crm.sandbox.pipedrive.spent_today()
    for number in range(3):
        changes = without_company | {"conversationId": f"conv_{number}"}
        crm.deliver("log_call", event("call.completed", changes, clock=crm.clock))
    assert crm.requests() == [LOG] * 3
    assert crm.sandbox.pipedrive.spent_today() - spent == 3 * 5


def test_new_person_costs_no_further_request_than_the_searches_and_two_writes(crm: CrmConnection) -> None:
    crm.deliver("log_call", event("call.completed", {"callMetadata.customer": {}}, clock=crm.clock))
    assert crm.requests() == [
        "GET /api/v2/persons/search",
        "GET /api/v2/persons/search",
        "GET /api/v2/persons",
        "POST /api/v2/persons",
        LOG,
    ]


# ------------------------------------------------------------------------------------------------ errors


def test_daily_budget_waits_until_the_next_hour(crm: CrmConnection) -> None:
    crm.sandbox.pipedrive.daily_budget = 20
    with pytest.raises(QuotaExhausted, match="daily budget") as caught:
        crm.deliver("log_call")
    until = caught.value.until
    assert until is not None
    assert until.minute == 0


def test_burst_limit_waits_for_its_window(crm: CrmConnection) -> None:
    crm.sandbox.pipedrive.search_limit = 1
    with pytest.raises(RateLimited) as caught:
        crm.deliver("log_call")
    assert caught.value.retry_after == timedelta(seconds=2)


def test_firewall_is_a_rate_limit(crm: CrmConnection) -> None:
    crm.sandbox.fault("pipedrive", status=403, body="<html>blocked</html>")
    with pytest.raises(RateLimited) as caught:
        crm.deliver("log_call")
    assert caught.value.retry_after == timedelta(minutes=10)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, None, AuthenticationError),
        (402, None, AccountError),
        (403, {"success": False, "error": "x", "code": "feature_capping_deals_limit"}, AccountError),
        (403, {"success": False, "error": "no"}, PermanentError),
        (
            400,
            {"success": False, "error": "Maya 'due_date' is wrong", "code": "ERR_BAD_REQUEST"},
            PermanentError,
        ),
        (200, {"success": False, "error": "no"}, PermanentError),
        (502, None, OutcomeUnknown),
    ],
)
def test_each_refusal_has_its_meaning(
    crm: CrmConnection, status: int, body: Any, error: type[Exception]
) -> None:
    crm.sandbox.fault("pipedrive", path=ACTIVITIES, status=status, body=body, times=None)
    with pytest.raises(error) as caught:
        crm.deliver("log_call")
    assert "Maya" not in str(caught.value)
    if status == 400:
        assert "due_date" in str(caught.value)


def test_import_that_hides_recent_changes_delays_a_new_person(crm: CrmConnection) -> None:
    many = {"success": True, "data": [], "additional_data": {"next_cursor": "x"}}
    crm.sandbox.fault("pipedrive", path="/api/v2/persons", method="GET", body=many, times=None)
    with pytest.raises(TransientError, match="too many persons were changed"):
        crm.deliver("log_call")
