"""Calls and chats in HubSpot, through the real SDK over real HTTP, to a HubSpot as strict as the real one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import Success
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
from tests.integration.crm import Account, address, calls, phone

PERSON = "+12125550123"
CREATE = "/crm/v3/objects/calls/batch/create"
MADE = {"status": "COMPLETE", "startedAt": "2026-03-02T15:00:00Z", "completedAt": "2026-03-02T15:00:00Z"}


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[Account]:
    """An account in which `bridge connections setup` was run."""
    account = Account("hubspot", sandbox)
    assert account.connector.run_setup is not None
    account.connector.run_setup(account.connected.client)
    sandbox.clear_requests()
    yield account
    account.close()


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.hubspot.add("contacts", **values).id


# ------------------------------------------------------------------------------------- what is written


def test_a_call_is_logged_in_hubspots_own_units_and_words(hubspot: Account, sandbox: RunningSandbox) -> None:
    about = event(clock=hubspot.clock)
    sent = hubspot.deliver("log_call", about)

    [call] = sandbox.hubspot.calls
    assert sent.id == call.id
    wanted = {
        "hs_call_title": "Inbound call with Nora at the front desk: completed",
        "hs_call_duration": "125000",
        "hs_call_direction": "INBOUND",
        "hs_call_status": "COMPLETED",
        "hs_call_disposition": "f240bbac-87c9-4f6e-bf70-924b57d47db7",
        "hs_call_from_number": PERSON,
        "hs_call_to_number": "+12125550100",
        "heppu_conversation_id": about.conversation.id,
    }
    assert {name: call.properties[name] for name in wanted} == wanted
    assert call.properties["hs_call_body"].startswith("Asked when the repaired bicycle can be picked up.")


def test_all_values_are_strings_and_the_time_is_that_of_the_call(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    about = event(clock=hubspot.clock)
    hubspot.clock.advance(hours=5)
    hubspot.deliver("log_call", about)

    [request] = [one for one in sandbox.requests if one.path == CREATE]
    properties = request.body["inputs"][0]["properties"]
    assert all(isinstance(value, str) for value in properties.values())
    assert properties["hs_timestamp"] == str(int(about.occurred_at.timestamp() * 1000))


def test_a_call_and_its_contact_are_one_request(hubspot: Account, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, email="maya.lindqvist@example.com")
    hubspot.deliver("log_call")

    [call] = sandbox.hubspot.calls
    assert sandbox.hubspot.associated("calls", call.id, "contacts") == [contact]
    [request] = [one for one in sandbox.requests if one.path == CREATE]
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
def test_a_call_that_reached_nobody_says_how_it_ended(
    hubspot: Account,
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


def test_a_rule_may_say_it_all_otherwise(hubspot: Account, sandbox: RunningSandbox) -> None:
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


def test_what_was_said_is_shown_as_text_and_not_as_html(hubspot: Account, sandbox: RunningSandbox) -> None:
    said = "<script>alert('x')</script> & more\nsecond line"
    hubspot.deliver("log_call", event(changes={"summary": said}, clock=hubspot.clock))

    [call] = sandbox.hubspot.calls
    body = call.properties["hs_call_body"]
    assert body.startswith("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; more<br>second line<br>")


def test_a_summary_that_is_too_long_is_cut_and_not_refused(hubspot: Account, sandbox: RunningSandbox) -> None:
    hubspot.deliver("log_call", event(changes={"summary": "<" * 70_000}, clock=hubspot.clock))

    [call] = sandbox.hubspot.calls
    body = call.properties["hs_call_body"]
    assert 65_000 < len(body) <= 65_536
    assert body.replace("&lt;", "") == ""


def test_an_event_with_hardly_any_fields_is_still_logged(hubspot: Account, sandbox: RunningSandbox) -> None:
    nothing = dict.fromkeys(
        ("summary", "outcome", "duration", "direction", "status", "agentName", "agentNumber", "twilioCallSid")
    )
    hubspot.deliver("log_call", event(changes=nothing, clock=hubspot.clock))

    [call] = sandbox.hubspot.calls
    assert call.properties["hs_call_title"] == "Call with Heppu"
    assert "hs_call_duration" not in call.properties


def test_a_chat_is_a_note_on_the_contact(hubspot: Account, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, email="priya.raman@example.com")
    about = event("chat.resolved", clock=hubspot.clock)
    hubspot.deliver("log_chat", about)

    [note] = sandbox.hubspot.notes
    assert note.properties["hs_note_body"] == (
        "Chat: Harbour help desk<br>Could not sign in; the password was reset and it works again.<br>"
        f"Messages: 12<br>Rating: 5<br>Outcome: resolved<br>Conversation: {about.conversation.id}"
    )
    assert sandbox.hubspot.associated("notes", note.id, "contacts") == [contact]
    [link] = [one for one in sandbox.hubspot.associations if one.from_type == "notes"]
    assert link.type_id == 202


def test_a_chat_with_somebody_without_any_address_is_not_logged(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    sent = hubspot.deliver("log_chat", event("chat.completed", clock=hubspot.clock))

    assert (sent.id, sent.detail) == (None, "not logged: HubSpot has no contact for it")
    assert hubspot.requests() == []


# --------------------------------------------------------------------------------- once, and how often


def test_a_known_contact_costs_one_request(hubspot: Account) -> None:
    first, second = calls(1, hubspot.clock)[0], calls(1, hubspot.clock)[0]
    hubspot.deliver("log_call", first)
    hubspot.requests()

    again = event(changes=dict(_contact(0), conversationId="conv_again"), clock=hubspot.clock)
    hubspot.deliver("log_call", again)
    assert hubspot.requests() == [f"POST {CREATE}"]
    assert second.contact == again.contact


def test_a_backlog_of_ten_thousand_calls_of_known_contacts_costs_a_hundred_requests(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    for number in range(100):
        contact = add_contact(sandbox, email=address(number), phone=phone(number))
        hubspot.memory.ids[f"email:{address(number)}"] = contact
        hubspot.memory.ids[f"phone:{phone(number)}"] = contact
    for batch in range(100):
        events = [
            event(
                changes=dict(_contact(number), conversationId=f"conv_{batch}_{number}"), clock=hubspot.clock
            )
            for number in range(100)
        ]
        answers = hubspot.deliver_all("log_call", events)
        assert all(isinstance(answer, Success) for answer in answers)
    assert len(sandbox.hubspot.calls) == 10_000
    assert len(hubspot.requests()) == 100


def test_a_hundred_contacts_that_only_hubspot_knows_are_found_in_one_request(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    contacts = [add_contact(sandbox, email=address(number).upper()) for number in range(100)]
    answers = hubspot.deliver_all("log_call", calls(100, hubspot.clock))

    assert hubspot.requests() == ["POST /crm/v3/objects/contacts/batch/read", f"POST {CREATE}"]
    assert hubspot.memory.asked == 1
    linked = [sandbox.hubspot.associated("calls", str(answer.id), "contacts") for answer in answers]  # type: ignore[union-attr]
    assert linked == [[contact] for contact in contacts]


def test_new_people_of_a_batch_are_made_in_one_request_each_once(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    events = calls(20, hubspot.clock)
    twin = event(changes=dict(_contact(3), conversationId="conv_twin"), clock=hubspot.clock)
    answers = hubspot.deliver_all("log_call", [*events, twin])

    assert all(isinstance(answer, Success) for answer in answers)
    assert len(sandbox.hubspot.contacts) == 20
    assert [one for one in hubspot.requests() if one.endswith("contacts/batch/create")] != []
    assert sandbox.hubspot.contacts[3].properties["firstname"] == "Person"
    assert hubspot.memory.ids[f"phone:{phone(3)}"] == sandbox.hubspot.contacts[3].id


def test_a_later_event_of_the_conversation_updates_the_record(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    first = event("chat.abandoned", {"metadata.contactEmail": "priya.raman@example.com"}, clock=hubspot.clock)
    sent = hubspot.deliver("log_chat", first)
    hubspot.requests()
    later = event("chat.resolved", {"conversationId": first.conversation.id}, clock=hubspot.clock)
    again = hubspot.deliver("log_chat", later, existing_id=sent.id)

    [note] = sandbox.hubspot.notes
    assert (again.id, again.detail) == (note.id, "updated")
    assert "the password was reset" in note.properties["hs_note_body"]
    assert hubspot.requests() == ["POST /crm/v3/objects/notes/batch/update"]


def test_a_record_that_a_person_deleted_is_made_again(hubspot: Account, sandbox: RunningSandbox) -> None:
    about = event(clock=hubspot.clock)
    sent = hubspot.deliver("log_call", about)
    sandbox.hubspot.delete("calls", str(sent.id))
    again = hubspot.deliver("log_call", about, existing_id=sent.id)

    [call] = sandbox.hubspot.calls
    assert again.id == call.id != sent.id


def test_a_field_to_fill_is_written_once_and_then_left_to_people(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    params = {
        "properties": {
            "hs_call_source": {"value": "bridge", "mode": "fill"},
            "hs_activity_type": "{{ event.status }}",
        }
    }
    about = event(clock=hubspot.clock)
    sent = hubspot.deliver("log_call", about, params)
    hubspot.deliver("log_call", about, params | {"title": "Again"}, existing_id=sent.id)

    updates = [one.body for one in sandbox.requests if one.path.endswith("calls/batch/update")]
    assert "hs_call_source" not in json.dumps(updates)
    [call] = sandbox.hubspot.calls
    assert call.properties["hs_call_source"] == "bridge"
    assert call.properties["hs_activity_type"] == "completed"


def test_a_key_of_the_rules_author_makes_a_record_of_its_own(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    about = event(clock=hubspot.clock)
    own = f"conversation|hubspot|hubspot.log_call|{about.conversation.id}|for-sales"
    first, second = (
        hubspot.deliver("log_call", about),
        hubspot.deliver("log_call", about, idempotency_key=own),
    )
    assert hubspot.deliver("log_call", about, idempotency_key=own).id == second.id

    one, other = sandbox.hubspot.calls
    assert (first.id, second.id) == (one.id, other.id)
    assert one.properties["heppu_conversation_id"] == about.conversation.id
    assert other.properties["heppu_conversation_id"].startswith(f"{about.conversation.id}:")


# --------------------------------------------------------------------------------- when things go wrong


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_lost_answer_and_the_retry_after_it_make_one_record(
    hubspot: Account, sandbox: RunningSandbox, drop: Any
) -> None:
    about = event(clock=hubspot.clock)
    sandbox.fault("hubspot", path=CREATE, drop=drop)
    with pytest.raises(OutcomeUnknown) as caught:
        hubspot.deliver("log_call", about)
    assert caught.value.reason == "network"
    assert len(hubspot.requests()) == 4  # HubSpot's SDK repeats nothing by itself

    sent = hubspot.deliver("log_call", about, attempt=2)
    [call] = sandbox.hubspot.calls
    assert sent.id == call.id
    assert len(sandbox.hubspot.contacts) == 1


def test_a_new_contact_that_the_index_does_not_know_yet_is_not_made_twice(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    about = event("call.busy", clock=hubspot.clock)
    sandbox.fault("hubspot", lag=60)
    sandbox.fault("hubspot", path="/crm/v3/objects/contacts/batch/create", drop="after")
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("log_call", about)
    hubspot.deliver("log_call", about)

    [contact] = sandbox.hubspot.contacts
    assert contact.properties["heppu_phone"] == contact.properties["phone"] == "+12125550167"
    assert sandbox.hubspot.associated("calls", sandbox.hubspot.calls[0].id, "contacts") == [contact.id]


def test_a_contact_that_somebody_else_makes_at_the_same_moment_is_taken(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, email="maya.lindqvist@example.com")
    sandbox.fault("hubspot", path="/crm/v3/objects/contacts/batch/read", body=MADE | {"results": []})
    hubspot.deliver("log_call")

    assert [one.id for one in sandbox.hubspot.contacts] == [contact]
    assert "POST /crm/v3/objects/contacts/batch/create" in hubspot.requests()


def test_one_conflict_in_a_batch_of_new_people_is_theirs_alone(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, email=address(2))
    sandbox.fault("hubspot", path="/crm/v3/objects/contacts/batch/read", body=MADE | {"results": []})
    answers = hubspot.deliver_all("log_call", calls(5, hubspot.clock))

    assert all(isinstance(answer, Success) for answer in answers)
    assert len(sandbox.hubspot.contacts) == 5
    assert hubspot.memory.ids[f"email:{address(2)}"] == contact


def test_what_is_there_of_a_batch_is_updated_and_the_rest_is_made(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    events = calls(10, hubspot.clock)
    before = [hubspot.deliver("log_call", about).id for about in events[:4]]
    hubspot.requests()
    answers = hubspot.deliver_all("log_call", events)

    assert [answer.id for answer in answers[:4]] == before  # type: ignore[union-attr]
    assert len(sandbox.hubspot.calls) == 10


def test_a_batch_that_goes_through_in_part_answers_for_each(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    events = calls(3, hubspot.clock)
    made = sandbox.hubspot.add(
        "calls", hs_timestamp="2026-03-02T15:00:00Z", heppu_conversation_id="conv_0"
    ).id
    error = {"status": "error", "category": "VALIDATION_ERROR", "message": "one is wrong", "context": {}}
    sandbox.fault(
        "hubspot",
        path=CREATE,
        status=207,
        body=MADE
        | {
            "results": [
                {
                    "id": made,
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
    assert first.id == made
    assert [type(answer) for answer in others] == [PermanentError, PermanentError]
    assert "VALIDATION_ERROR" in str(others[0])


def test_an_unknown_property_refuses_the_batch_and_is_named(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    answers = hubspot.deliver_all("log_call", calls(2, hubspot.clock), {"properties": {"no_such_field": "x"}})

    assert all(isinstance(answer, PermanentError) for answer in answers)
    assert str(answers[0]) == "HubSpot answered 400 PROPERTY_DOESNT_EXIST VALIDATION_ERROR no_such_field"
    assert sandbox.hubspot.calls == []


def test_a_page_with_status_200_is_no_success(hubspot: Account, sandbox: RunningSandbox) -> None:
    page = "<html>Please log in to the network</html>"
    sandbox.fault("hubspot", path=CREATE, status=200, body=page, headers={"Content-Type": "text/html"})
    with pytest.raises(OutcomeUnknown, match="no answer of HubSpot"):
        hubspot.deliver("log_call")


def test_a_success_that_mentions_no_record_is_looked_up(hubspot: Account, sandbox: RunningSandbox) -> None:
    sandbox.fault("hubspot", path=CREATE, status=201, body=MADE | {"results": []})
    with pytest.raises(OutcomeUnknown, match="does not mention"):
        hubspot.deliver("log_call")


def test_a_partner_that_hangs_is_asked_once_and_left_in_time(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    sandbox.fault("hubspot", hang=True, times=5)
    with pytest.raises(OutcomeUnknown) as caught:
        hubspot.deliver("log_call", seconds=0.5)
    assert caught.value.reason == "timeout"
    assert len(hubspot.requests()) == 1


def test_an_attempt_that_is_out_of_time_asks_nothing(hubspot: Account) -> None:
    with pytest.raises(TransientError, match="out of time"):
        hubspot.deliver("log_call", seconds=-1)
    assert hubspot.requests() == []


def test_all_threads_share_one_pool_of_connections(hubspot: Account, sandbox: RunningSandbox) -> None:
    failed: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for about in calls(5, hubspot.clock, start):
                hubspot.deliver("log_call", about)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(sandbox.hubspot.calls) == 20
    pool = hubspot.connected.client.objects.api_client.rest_client.pool_manager
    assert pool.connection_from_url(sandbox.url).num_connections <= 4


# ------------------------------------------------------------------------------------ finding the person


@pytest.mark.parametrize(
    "typed", ["(212) 555-0123", "212-555-0123", "+1 212 555 0123", "12125550123", "2125550123"]
)
def test_a_number_is_found_however_it_was_typed(
    hubspot: Account, sandbox: RunningSandbox, typed: str
) -> None:
    contact = add_contact(sandbox, lastname="Lindqvist", mobilephone=typed)
    sent = hubspot.deliver("log_call", event(changes={"metadata.contactEmail": None}, clock=hubspot.clock))

    assert sandbox.hubspot.associated("calls", str(sent.id), "contacts") == [contact]


def test_the_same_digits_in_another_country_are_another_person(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    stranger = add_contact(sandbox, lastname="Other", phone="+44 212 555 0123")
    sent = hubspot.deliver("log_call", event(changes={"metadata.contactEmail": None}, clock=hubspot.clock))

    assert sandbox.hubspot.associated("calls", str(sent.id), "contacts") != [stranger]


def test_the_email_comes_before_the_phone(hubspot: Account, sandbox: RunningSandbox) -> None:
    add_contact(sandbox, phone=PERSON)
    contact = add_contact(sandbox, email="maya.lindqvist@example.com")
    sent = hubspot.deliver("log_call")

    assert sandbox.hubspot.associated("calls", str(sent.id), "contacts") == [contact]
    # The number belongs to the other contact: it must not lead to this one next time.
    assert f"phone:{PERSON}" not in hubspot.memory.ids


def test_of_several_contacts_the_most_recently_active_is_taken_and_it_says_so(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    newest = add_contact(sandbox, lastname="Active", phone=PERSON)
    add_contact(sandbox, lastname="Made later", phone="212 555 0123")
    hubspot.clock.advance(days=1)
    kind = sandbox.hubspot.crm.types["contacts"]
    sandbox.hubspot.crm.update(kind, sandbox.hubspot.contacts[0], {"city": "Boston"}, hubspot.clock.now())
    sent = hubspot.deliver("log_call", event(changes={"metadata.contactEmail": None}, clock=hubspot.clock))

    assert sandbox.hubspot.associated("calls", str(sent.id), "contacts") == [newest]
    assert sent.detail == "2 records have this phone, the most recently active was taken"


def test_of_several_contacts_a_person_may_be_asked_to_choose(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    add_contact(sandbox, lastname="One", phone=PERSON)
    add_contact(sandbox, lastname="Two", phone=PERSON)
    about = event(changes={"metadata.contactEmail": None}, clock=hubspot.clock)
    [answer] = hubspot.deliver_all("log_call", [about], {"on_multiple": "review"})

    assert isinstance(answer, LookupInconclusive)
    assert PERSON not in str(answer)
    assert sandbox.hubspot.calls == []


def test_a_deleted_contact_is_forgotten_and_the_person_found_again(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    events = calls(3, hubspot.clock)
    hubspot.deliver_all("log_call", events)
    sandbox.hubspot.delete("contacts", hubspot.memory.ids[f"phone:{phone(1)}"])
    replacement = add_contact(sandbox, email=address(1))
    again = [
        event(changes=dict(_contact(number), conversationId=f"conv_b{number}"), clock=hubspot.clock)
        for number in range(3)
    ]
    answers = hubspot.deliver_all("log_call", again)

    assert all(isinstance(answer, Success) for answer in answers)
    assert sandbox.hubspot.associated("calls", str(answers[1].id), "contacts") == [replacement]  # type: ignore[union-attr]
    assert len(sandbox.hubspot.calls) == 6


def test_a_merged_contact_leads_to_the_one_it_became(hubspot: Account, sandbox: RunningSandbox) -> None:
    hubspot.deliver("log_call", calls(1, hubspot.clock)[0])
    winner = add_contact(sandbox, lastname="Winner")
    sandbox.hubspot.merge("contacts", winner, hubspot.memory.ids[f"phone:{phone(0)}"])
    again = event(changes=dict(_contact(0), conversationId="conv_again"), clock=hubspot.clock)
    sent = hubspot.deliver("log_call", again)

    assert sandbox.hubspot.associated("calls", str(sent.id), "contacts") == [winner]


def test_a_deleted_contact_that_the_index_still_shows_is_waited_for(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, lastname="Gone", phone=PERSON)
    hubspot.clock.advance(minutes=5)
    sandbox.fault("hubspot", lag=60)
    sandbox.hubspot.delete("contacts", contact)
    about = event(changes={"metadata.contactEmail": None}, clock=hubspot.clock)
    [answer] = hubspot.deliver_all("log_call", [about])

    assert type(answer) is TransientError
    assert answer.retry_after == timedelta(minutes=1)
    hubspot.clock.advance(minutes=2)
    assert hubspot.deliver("log_call", about).id


def test_strangers_may_be_left_out_and_are_not_searched_for_again_and_again(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    sent = hubspot.deliver("log_call", params={"on_missing": "skip"})
    assert sent.id is None
    assert sandbox.hubspot.contacts == []
    assert hubspot.memory.kept_for[f"phone:{PERSON}"] == timedelta(minutes=5)
    hubspot.requests()

    hubspot.deliver("log_call", params={"on_missing": "skip"})
    assert hubspot.requests() == []


def test_somebody_who_was_added_since_is_found_and_not_made_again(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    hubspot.deliver("log_call", params={"on_missing": "skip"})
    contact = add_contact(sandbox, phone=PERSON)
    hubspot.deliver("log_call")

    assert [one.id for one in sandbox.hubspot.contacts] == [contact]


# --------------------------------------------------------------------------------------- what HubSpot says


@pytest.mark.parametrize(
    ("fault", "kind", "reason", "wait"),
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
def test_what_hubspot_says_decides_what_comes_next(
    hubspot: Account,
    sandbox: RunningSandbox,
    fault: dict[str, Any],
    kind: type[DeliveryError],
    reason: str,
    wait: Any,
) -> None:
    sandbox.fault("hubspot", **fault)
    with pytest.raises(DeliveryError) as caught:
        hubspot.deliver("log_call")
    assert (type(caught.value), caught.value.reason, caught.value.retry_after) == (kind, reason, wait)


def _contact(number: int) -> dict[str, Any]:
    return {
        "metadata.contactPhone": phone(number),
        "metadata.contactEmail": address(number),
        "metadata.contactName": f"Person {number}",
    }
