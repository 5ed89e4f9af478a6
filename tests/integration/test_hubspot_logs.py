"""Calls and chats logged in HubSpot, through the real SDK over real HTTP, to a sandbox as strict as HubSpot."""

from __future__ import annotations

import html
import json
import threading
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import ContactProfile, SearchLimiter, Success
from bridge.errors import (
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events, email_address, phone_number

PHONE = "+12125550123"
CREATE = "/crm/objects/2026-03/calls/batch/create"
LINKS = [
    "POST /crm/objects/2026-03/contacts/batch/read",
    "POST /crm/associations/2026-03/contacts/deals/batch/read",
    "POST /crm/associations/2026-03/contacts/tickets/batch/read",
]
"""The requests for owner, company, deal and ticket of contacts, once an hour."""
BATCH_RESPONSE = {
    "status": "COMPLETE",
    "startedAt": "2026-03-02T15:00:00Z",
    "completedAt": "2026-03-02T15:00:00Z",
}


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.hubspot.add("contacts", **values).id


# --------------------------------------------------------------------------------------------- records


def test_log_call_writes_hubspot_units_and_values(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    source_event = event(clock=hubspot.clock)
    result = hubspot.deliver("log_call", source_event)

    [call] = sandbox.hubspot.calls
    assert result.id == call.id
    expected = {
        "hs_call_title": "Inbound call with Nora at the front desk: completed",
        "hs_call_duration": "125000",
        "hs_call_direction": "INBOUND",
        "hs_call_status": "COMPLETED",
        "hs_call_disposition": "f240bbac-87c9-4f6e-bf70-924b57d47db7",
        "hs_call_from_number": PHONE,
        "hs_call_to_number": "+12125550100",
        "heppu_conversation_id": source_event.conversation.id,
    }
    assert {name: call.properties[name] for name in expected} == expected
    assert call.properties["hs_call_body"].startswith("Asked when the repaired bicycle can be picked up.")


def test_log_call_sends_strings_and_start_of_call(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    source_event = event(clock=hubspot.clock)
    hubspot.clock.advance(hours=5)
    hubspot.deliver("log_call", source_event)

    [request] = [request for request in sandbox.requests if request.path == CREATE]
    properties = request.body["inputs"][0]["properties"]
    assert all(isinstance(value, str) for value in properties.values())
    start = source_event.occurred_at - timedelta(seconds=125)
    assert properties["hs_timestamp"] == str(int(start.timestamp() * 1000))


def test_log_call_creates_call_and_association_in_one_request(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, email="maya.lindqvist@example.com")
    hubspot.deliver("log_call")

    [call] = sandbox.hubspot.calls
    assert sandbox.hubspot.associated("calls", call.id, "contacts") == [contact]
    [request] = [request for request in sandbox.requests if request.path == CREATE]
    assert request.body["inputs"][0]["associations"] == [
        {
            "to": {"id": contact},
            "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 194}],
        }
    ]


@pytest.mark.parametrize(
    ("name", "status", "disposition", "milliseconds"),
    [
        ("call.busy", "BUSY", "9d9162e7-6cf3-4944-bf63-4dff82258764", "0"),
        ("call.no-answer", "NO_ANSWER", "73a0d17f-1163-4015-bdd5-ec830791da20", "30000"),
        ("call.failed", "FAILED", None, "0"),
    ],
)
def test_log_call_states_status_of_unanswered_call(
    hubspot: CrmConnection,
    sandbox: RunningSandbox,
    name: str,
    status: str,
    disposition: str | None,
    milliseconds: str,
) -> None:
    hubspot.deliver("log_call", event(name, clock=hubspot.clock))

    [call] = sandbox.hubspot.calls
    assert call.properties["hs_call_status"] == status
    assert call.properties.get("hs_call_disposition") == disposition
    assert call.properties["hs_call_duration"] == milliseconds
    assert call.properties["hs_call_from_number"] == "+12125550100"


def test_params_override_derived_call_properties(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    params = {
        "title": "Pick-up of {{ event.callMetadata.custom.orderId }}",
        "disposition": "left_voicemail",
        "from_number": "+12125550777",
        "owner": "70011",
        "recording_url": "https://example.com/1.mp3",
        "properties": {"hs_call_source": "INTEGRATIONS_PLATFORM"},
    }
    hubspot.deliver("log_call", params=params)

    [call] = sandbox.hubspot.calls
    assert call.properties["hs_call_title"] == "Pick-up of ORD-20517"
    assert call.properties["hs_call_disposition"] == "b2cf5968-551e-4856-9783-52b3da59a7d0"
    assert call.properties["hs_call_from_number"] == "+12125550777"
    assert call.properties["hubspot_owner_id"] == "70011"
    assert call.properties["hs_call_source"] == "INTEGRATIONS_PLATFORM"


def test_summary_is_html_escaped(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    summary = "<script>alert('x')</script> & more\nsecond line"
    hubspot.deliver("log_call", event(changes={"summary": summary}, clock=hubspot.clock))

    [call] = sandbox.hubspot.calls
    body = call.properties["hs_call_body"]
    assert body.startswith("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; more<br>second line<br>")


@pytest.mark.parametrize("character", ["x", "<", "'"])
def test_long_summary_is_shortened_and_the_details_are_kept(
    hubspot: CrmConnection, sandbox: RunningSandbox, character: str
) -> None:
    source_event = event(changes={"summary": character * 70_000}, clock=hubspot.clock)
    hubspot.deliver("log_call", source_event)

    [call] = sandbox.hubspot.calls
    body = call.properties["hs_call_body"]
    assert 64_000 < len(body) <= 65_536
    summary, *details = body.split("<br>")
    assert summary.endswith("…")
    assert summary[:-1].replace(html.escape(character), "") == ""
    assert details[-1] == f"Conversation: {source_event.conversation.id}"


def test_event_with_few_fields_is_logged(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    nothing = dict.fromkeys(
        ("summary", "outcome", "duration", "direction", "status", "agentName", "agentNumber", "twilioCallSid")
    )
    hubspot.deliver("log_call", event(changes=nothing, clock=hubspot.clock))

    [call] = sandbox.hubspot.calls
    assert call.properties["hs_call_title"] == "Call with Heppu"
    assert "hs_call_duration" not in call.properties


def test_log_chat_creates_note_on_contact(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, email="priya.raman@example.com")
    source_event = event("chat.resolved", clock=hubspot.clock)
    hubspot.deliver("log_chat", source_event)

    [note] = sandbox.hubspot.notes
    assert note.properties["hs_note_body"] == (
        "Chat: Harbour help desk<br>Could not sign in; the password was reset and it works again.<br>"
        "Messages: 12<br>Rating: 5<br>Comment: Quick and clear, thank you.<br>"
        "Agent: Harbour help desk<br>Outcome: resolved<br>"
        f"Conversation: {source_event.conversation.id}"
    )
    assert sandbox.hubspot.associated("notes", note.id, "contacts") == [contact]
    [link] = [association for association in sandbox.hubspot.associations if association.from_type == "notes"]
    assert link.type_id == 202


def test_chat_without_email_and_phone_is_not_logged(hubspot: CrmConnection) -> None:
    result = hubspot.deliver("log_chat", event("chat.completed", clock=hubspot.clock))

    assert (result.id, result.detail) == (None, "not logged: the event has neither phone nor email")
    assert hubspot.requests() == []


# --------------------------------------------------------------------------- idempotency and request cost


def test_cached_contact_takes_one_request(hubspot: CrmConnection) -> None:
    hubspot.deliver("log_call", call_events(1, hubspot.clock)[0])
    requests = []
    for number in range(3):
        hubspot.requests()
        later = event(changes=dict(_contact(0), conversationId=f"conv_{number + 1}"), clock=hubspot.clock)
        hubspot.deliver("log_call", later)
        requests.append(hubspot.requests())
    assert requests == [[*LINKS, f"POST {CREATE}"], [f"POST {CREATE}"], [f"POST {CREATE}"]]


def test_thousand_calls_of_cached_contacts_take_ten_requests(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    for number in range(100):
        contact = add_contact(sandbox, email=email_address(number), phone=phone_number(number))
        hubspot.contact_cache.ids[f"email:{email_address(number)}"] = contact
        hubspot.contact_cache.ids[f"phone:{phone_number(number)}"] = contact
        hubspot.contact_cache.known_profiles[contact] = ContactProfile(f"Person {number}")
    counts = []
    for batch in range(11):
        events = [
            event(
                changes=dict(_contact(number), conversationId=f"conv_{batch}_{number}"), clock=hubspot.clock
            )
            for number in range(100)
        ]
        results = hubspot.deliver_all("log_call", events)
        assert all(isinstance(result, Success) for result in results)
        counts.append(len(hubspot.requests()))
    assert len(sandbox.hubspot.calls) == 1100
    assert counts == [4, *[1] * 10]


def test_hundred_uncached_contacts_are_found_in_one_request(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contacts = [
        add_contact(
            sandbox,
            email=email_address(number).upper(),
            phone=phone_number(number),
            firstname="Person",
            lastname=str(number),
            company="Cycles",
        )
        for number in range(100)
    ]
    results = hubspot.deliver_all("log_call", call_events(100, hubspot.clock))

    assert hubspot.requests() == [
        "POST /crm/objects/2026-03/contacts/batch/read",
        *LINKS,
        f"POST {CREATE}",
    ]
    assert hubspot.contact_cache.lookup_count == 2
    linked = [sandbox.hubspot.associated("calls", str(result.id), "contacts") for result in results]  # type: ignore[union-attr]
    assert linked == [[contact] for contact in contacts]


def test_searches_for_a_hundred_numbers_keep_both_limits(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.search_limit = 2
    waits: list[float] = []
    hubspot.connected.client.search_limiter = SearchLimiter(1, sleep=waits.append)
    for number in range(0, 100, 10):
        add_contact(sandbox, lastname=f"Person {number}", phone=phone_number(number))
    events = [
        event(changes=_contact(number) | {"metadata.contactEmail": None, "conversationId": f"conv_{number}"})
        for number in range(100)
    ]
    results = hubspot.deliver_all("log_call", events)

    assert all(isinstance(result, Success) for result in results)
    assert len(sandbox.hubspot.contacts) == 100
    searches = [request for request in sandbox.requests if request.path.endswith("/search")]
    assert [request.status for request in searches] == [200, 200]
    assert max(len(request.raw) for request in searches) <= 3000
    assert [0.5 < seconds <= 1 for seconds in waits] == [True]


def test_search_over_the_limit_of_the_account_is_retried_later(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.search_limit = 1
    source_event = event(changes={"metadata.contactEmail": None}, clock=hubspot.clock)
    assert hubspot.deliver("log_call", source_event).id
    other = event(changes=_contact(1) | {"metadata.contactEmail": None}, clock=hubspot.clock)
    with pytest.raises(RateLimited) as caught:
        hubspot.deliver("log_call", other)
    assert caught.value.retry_after == timedelta(seconds=1)


def test_new_contacts_of_batch_are_created_once_in_one_request(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    events = call_events(20, hubspot.clock)
    duplicate = event(changes=dict(_contact(3), conversationId="conv_duplicate"), clock=hubspot.clock)
    results = hubspot.deliver_all("log_call", [*events, duplicate])

    assert all(isinstance(result, Success) for result in results)
    assert len(sandbox.hubspot.contacts) == 20
    assert [request for request in hubspot.requests() if request.endswith("contacts/batch/create")] != []
    assert sandbox.hubspot.contacts[3].properties["firstname"] == "Person"
    assert hubspot.contact_cache.ids[f"phone:{phone_number(3)}"] == sandbox.hubspot.contacts[3].id


def test_later_event_of_conversation_updates_record(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    contact = {"metadata.contactEmail": "priya.raman@example.com", "metadata.contactName": "Priya Raman"}
    first = event("chat.abandoned", contact, clock=hubspot.clock)
    result = hubspot.deliver("log_chat", first)
    hubspot.requests()
    later = event("chat.resolved", {"conversationId": first.conversation.id}, clock=hubspot.clock)
    updated = hubspot.deliver("log_chat", later, existing_id=result.id)

    [note] = sandbox.hubspot.notes
    assert (updated.id, updated.detail) == (note.id, "updated")
    assert "the password was reset" in note.properties["hs_note_body"]
    assert hubspot.requests() == ["POST /crm/objects/2026-03/notes/batch/update"]


def test_deleted_record_is_created_again(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    source_event = event(clock=hubspot.clock)
    result = hubspot.deliver("log_call", source_event)
    sandbox.hubspot.delete("calls", str(result.id))
    recreated = hubspot.deliver("log_call", source_event, existing_id=result.id)

    [call] = sandbox.hubspot.calls
    assert recreated.id == call.id != result.id


def test_fill_property_is_written_on_create_only(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    params = {
        "properties": {
            "hs_call_source": {"value": "bridge", "mode": "fill"},
            "hs_call_summary": "{{ event.status }}",
        }
    }
    source_event = event(clock=hubspot.clock)
    result = hubspot.deliver("log_call", source_event, params)
    hubspot.deliver("log_call", source_event, params | {"title": "Again"}, existing_id=result.id)

    updates = [request.body for request in sandbox.requests if request.path.endswith("calls/batch/update")]
    assert "hs_call_source" not in json.dumps(updates)
    [call] = sandbox.hubspot.calls
    assert call.properties["hs_call_source"] == "bridge"
    assert call.properties["hs_call_summary"] == "completed"


def test_custom_idempotency_key_creates_separate_record(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    source_event = event(clock=hubspot.clock)
    custom_key = f"conversation|hubspot|hubspot.log_call|{source_event.conversation.id}|for-sales"
    first, second = (
        hubspot.deliver("log_call", source_event),
        hubspot.deliver("log_call", source_event, idempotency_key=custom_key),
    )
    assert hubspot.deliver("log_call", source_event, idempotency_key=custom_key).id == second.id

    first_call, second_call = sandbox.hubspot.calls
    assert (first.id, second.id) == (first_call.id, second_call.id)
    assert first_call.properties["heppu_conversation_id"] == source_event.conversation.id
    assert second_call.properties["heppu_conversation_id"].startswith(f"{source_event.conversation.id}:")


# ---------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("drop", ["before", "after"])
def test_retry_after_lost_response_creates_one_record(
    hubspot: CrmConnection, sandbox: RunningSandbox, drop: Any
) -> None:
    source_event = event(clock=hubspot.clock)
    sandbox.fault("hubspot", path=CREATE, drop=drop)
    with pytest.raises(OutcomeUnknown) as caught:
        hubspot.deliver("log_call", source_event)
    assert caught.value.reason == "network"
    assert len(hubspot.requests()) == 4  # HubSpot's SDK does not retry

    result = hubspot.deliver("log_call", source_event, attempt=2)
    [call] = sandbox.hubspot.calls
    assert result.id == call.id
    assert len(sandbox.hubspot.contacts) == 1


def test_contact_missing_from_search_index_is_not_created_twice(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    source_event = event("call.busy", clock=hubspot.clock)
    sandbox.fault("hubspot", lag=60)
    sandbox.fault("hubspot", path="/crm/objects/2026-03/contacts/batch/create", drop="after")
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("log_call", source_event)
    hubspot.deliver("log_call", source_event)

    [contact] = sandbox.hubspot.contacts
    assert contact.properties["heppu_phone"] == contact.properties["phone"] == "+12125550167"
    assert sandbox.hubspot.associated("calls", sandbox.hubspot.calls[0].id, "contacts") == [contact.id]


def test_contact_created_concurrently_is_used(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, email="maya.lindqvist@example.com")
    sandbox.fault(
        "hubspot", path="/crm/objects/2026-03/contacts/batch/read", body=BATCH_RESPONSE | {"results": []}
    )
    hubspot.deliver("log_call")

    assert [contact.id for contact in sandbox.hubspot.contacts] == [contact]
    assert "POST /crm/objects/2026-03/contacts/batch/create" in hubspot.requests()


def test_conflict_in_batch_of_new_contacts_affects_one_contact(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, email=email_address(2))
    sandbox.fault(
        "hubspot", path="/crm/objects/2026-03/contacts/batch/read", body=BATCH_RESPONSE | {"results": []}
    )
    results = hubspot.deliver_all("log_call", call_events(5, hubspot.clock))

    assert all(isinstance(result, Success) for result in results)
    assert len(sandbox.hubspot.contacts) == 5
    assert hubspot.contact_cache.ids[f"email:{email_address(2)}"] == contact


def test_batch_updates_existing_records_and_creates_missing_ones(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    events = call_events(10, hubspot.clock)
    existing_ids = [hubspot.deliver("log_call", source_event).id for source_event in events[:4]]
    hubspot.requests()
    results = hubspot.deliver_all("log_call", events)

    assert [result.id for result in results[:4]] == existing_ids  # type: ignore[union-attr]
    assert len(sandbox.hubspot.calls) == 10


def test_partially_successful_batch_returns_result_per_item(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    events = call_events(3, hubspot.clock)
    existing = sandbox.hubspot.add(
        "calls", hs_timestamp="2026-03-02T15:00:00Z", heppu_conversation_id="conv_0"
    ).id
    error = {"status": "error", "category": "VALIDATION_ERROR", "message": "one is invalid", "context": {}}
    sandbox.fault(
        "hubspot",
        path=CREATE,
        status=207,
        body=BATCH_RESPONSE
        | {
            "results": [
                {
                    "id": existing,
                    "properties": {"heppu_conversation_id": "conv_0"},
                    "createdAt": "2026-03-02T15:00:00Z",
                    "updatedAt": "2026-03-02T15:00:00Z",
                    "archived": False,
                }
            ],
            "numErrors": 2,
            "errors": [error, error],
        },
    )
    first, *others = hubspot.deliver_all("log_call", events)

    assert isinstance(first, Success)
    assert first.id == existing
    assert [type(result) for result in others] == [PermanentError, PermanentError]
    assert "VALIDATION_ERROR" in str(others[0])


def test_unknown_property_fails_batch_and_is_named(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    results = hubspot.deliver_all(
        "log_call", call_events(2, hubspot.clock), {"properties": {"no_such_field": "x"}}
    )

    assert all(isinstance(result, PermanentError) for result in results)
    assert str(results[0]) == "HubSpot answered 400 PROPERTY_DOESNT_EXIST VALIDATION_ERROR no_such_field"
    assert sandbox.hubspot.calls == []


def test_property_that_a_rule_of_the_account_requires_is_named(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.crm.required_by_admin = {"calls": ("hs_activity_type",)}
    assert hubspot.deliver("log_call").id  # version 2026-03 does not apply these rules
    newer = CrmConnection("hubspot", sandbox, {"HUBSPOT_API_VERSION": "2026-09"})
    with pytest.raises(PermanentError, match="hs_activity_type"):
        newer.deliver("log_call")
    newer.close()


def test_html_page_with_status_200_raises_outcome_unknown(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    page = "<html>Please log in to the network</html>"
    sandbox.fault("hubspot", path=CREATE, status=200, body=page, headers={"Content-Type": "text/html"})
    with pytest.raises(OutcomeUnknown, match="not HubSpot's"):
        hubspot.deliver("log_call")


def test_success_without_record_raises_outcome_unknown(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.fault("hubspot", path=CREATE, status=201, body=BATCH_RESPONSE | {"results": []})
    with pytest.raises(OutcomeUnknown, match="does not mention"):
        hubspot.deliver("log_call")


def test_hanging_request_ends_at_deadline_without_retry(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.fault("hubspot", hang=True, times=5)
    with pytest.raises(OutcomeUnknown) as caught:
        hubspot.deliver("log_call", seconds=0.5)
    assert caught.value.reason == "timeout"
    assert len(hubspot.requests()) == 1


def test_attempt_after_deadline_sends_no_request(hubspot: CrmConnection) -> None:
    with pytest.raises(TransientError, match="timed out before this request was sent"):
        hubspot.deliver("log_call", seconds=-1)
    assert hubspot.requests() == []


def test_threads_share_one_connection_pool(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    errors: list[BaseException] = []

    def deliver_calls(start: int) -> None:
        try:
            for source_event in call_events(5, hubspot.clock, start):
                hubspot.deliver("log_call", source_event)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=deliver_calls, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(sandbox.hubspot.calls) == 20
    pool = hubspot.connected.client.objects.api_client.rest_client.pool_manager
    assert pool.connection_from_url(sandbox.url).num_connections <= 4


# --------------------------------------------------------------------------------------- contact matching


@pytest.mark.parametrize(
    "typed", ["(212) 555-0123", "212-555-0123", "+1 212 555 0123", "12125550123", "2125550123"]
)
def test_contact_is_found_by_phone_in_any_format(
    hubspot: CrmConnection, sandbox: RunningSandbox, typed: str
) -> None:
    contact = add_contact(sandbox, lastname="Lindqvist", mobilephone=typed)
    result = hubspot.deliver("log_call", event(changes={"metadata.contactEmail": None}, clock=hubspot.clock))

    assert sandbox.hubspot.associated("calls", str(result.id), "contacts") == [contact]


def test_same_digits_with_other_country_code_do_not_match(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    other_contact = add_contact(sandbox, lastname="Other", phone="+44 212 555 0123")
    result = hubspot.deliver("log_call", event(changes={"metadata.contactEmail": None}, clock=hubspot.clock))

    assert sandbox.hubspot.associated("calls", str(result.id), "contacts") != [other_contact]


def test_email_match_takes_precedence_over_phone(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    add_contact(sandbox, phone=PHONE)
    contact = add_contact(sandbox, email="maya.lindqvist@example.com")
    result = hubspot.deliver("log_call")

    assert sandbox.hubspot.associated("calls", str(result.id), "contacts") == [contact]
    # The number belongs to the other contact, so it must not be cached for this one.
    assert hubspot.contact_cache.ids[f"phone:{PHONE}"] != contact


def test_most_recently_active_contact_is_used_and_noted(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    newest = add_contact(sandbox, lastname="Active", phone=PHONE)
    add_contact(sandbox, lastname="Created later", phone="212 555 0123")
    hubspot.clock.advance(days=1)
    contact_type = sandbox.hubspot.crm.types["contacts"]
    sandbox.hubspot.crm.update(
        contact_type, sandbox.hubspot.contacts[0], {"city": "Boston"}, hubspot.clock.now()
    )
    result = hubspot.deliver("log_call", event(changes={"metadata.contactEmail": None}, clock=hubspot.clock))

    assert sandbox.hubspot.associated("calls", str(result.id), "contacts") == [newest]
    assert result.detail == "2 records have this phone, the most recently active was used"


def test_on_multiple_review_is_inconclusive(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    add_contact(sandbox, lastname="One", phone=PHONE)
    add_contact(sandbox, lastname="Two", phone=PHONE)
    source_event = event(changes={"metadata.contactEmail": None}, clock=hubspot.clock)
    [result] = hubspot.deliver_all("log_call", [source_event], {"on_multiple": "review"})

    assert isinstance(result, LookupInconclusive)
    assert PHONE not in str(result)
    assert sandbox.hubspot.calls == []


def test_deleted_contact_is_removed_from_cache_and_found_again(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    events = call_events(3, hubspot.clock)
    hubspot.deliver_all("log_call", events)
    sandbox.hubspot.delete("contacts", hubspot.contact_cache.ids[f"phone:{phone_number(1)}"])
    replacement = add_contact(sandbox, email=email_address(1))
    later_events = [
        event(changes=dict(_contact(number), conversationId=f"conv_b{number}"), clock=hubspot.clock)
        for number in range(3)
    ]
    results = hubspot.deliver_all("log_call", later_events)

    assert all(isinstance(result, Success) for result in results)
    assert sandbox.hubspot.associated("calls", str(results[1].id), "contacts") == [replacement]  # type: ignore[union-attr]
    assert len(sandbox.hubspot.calls) == 6


def test_merged_contact_leads_to_surviving_contact(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    hubspot.deliver("log_call", call_events(1, hubspot.clock)[0])
    winner = add_contact(sandbox, lastname="Winner")
    sandbox.hubspot.merge("contacts", winner, hubspot.contact_cache.ids[f"phone:{phone_number(0)}"])
    later = event(changes=dict(_contact(0), conversationId="conv_later"), clock=hubspot.clock)
    result = hubspot.deliver("log_call", later)

    assert sandbox.hubspot.associated("calls", str(result.id), "contacts") == [winner]


def test_deleted_contact_still_in_search_index_is_transient(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, lastname="Gone", phone=PHONE)
    hubspot.clock.advance(minutes=5)
    sandbox.fault("hubspot", lag=60)
    sandbox.hubspot.delete("contacts", contact)
    source_event = event(changes={"metadata.contactEmail": None}, clock=hubspot.clock)
    [result] = hubspot.deliver_all("log_call", [source_event])

    assert type(result) is TransientError
    assert result.retry_after == timedelta(minutes=1)
    hubspot.clock.advance(minutes=2)
    assert hubspot.deliver("log_call", source_event).id


def test_on_missing_skip_caches_absence(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    result = hubspot.deliver("log_call", params={"on_missing": "skip"})
    assert result.id is None
    assert sandbox.hubspot.contacts == []
    assert hubspot.contact_cache.ttls[f"phone:{PHONE}"] == timedelta(minutes=5)
    hubspot.requests()

    hubspot.deliver("log_call", params={"on_missing": "skip"})
    assert hubspot.requests() == []


def test_contact_added_later_is_found_despite_cached_absence(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    hubspot.deliver("log_call", params={"on_missing": "skip"})
    contact = add_contact(sandbox, phone=PHONE)
    hubspot.deliver("log_call")

    assert [contact.id for contact in sandbox.hubspot.contacts] == [contact]


# ----------------------------------------------------------------------------------------- error responses


@pytest.mark.parametrize(
    ("fault", "error_type", "reason", "retry_after"),
    [
        ({"status": 429}, RateLimited, "rate_limited", timedelta(seconds=10)),
        ({"status": 429, "retry_after": 3}, RateLimited, "rate_limited", timedelta(seconds=3)),
        ({"quota": 0}, QuotaExhausted, "quota", None),
        ({"status": 423}, TransientError, "server_error", timedelta(seconds=2)),
        (
            {"status": 477, "headers": {"Retry-After": "90"}},
            TransientError,
            "server_error",
            timedelta(seconds=90),
        ),
        ({"status": 500}, OutcomeUnknown, "server_error", None),
        ({"status": 502, "body": "<html>bad gateway</html>"}, OutcomeUnknown, "server_error", None),
        ({"status": 524}, OutcomeUnknown, "server_error", None),
        ({"drop": "before"}, OutcomeUnknown, "network", None),
    ],
)
def test_error_response_is_mapped(
    hubspot: CrmConnection,
    sandbox: RunningSandbox,
    fault: dict[str, Any],
    error_type: type[DeliveryError],
    reason: str,
    retry_after: Any,
) -> None:
    sandbox.fault("hubspot", **fault)
    with pytest.raises(DeliveryError) as caught:
        hubspot.deliver("log_call")
    assert (type(caught.value), caught.value.reason, caught.value.retry_after) == (
        error_type,
        reason,
        retry_after,
    )


def _contact(number: int) -> dict[str, Any]:
    return {
        "metadata.contactPhone": phone_number(number),
        "metadata.contactEmail": email_address(number),
        "metadata.contactName": f"Person {number}",
    }
