"""Who owns a HubSpot record, what it is associated with, and what becomes of values that HubSpot refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bridge_connectors.hubspot.fields import MAX_BODY_LENGTH, split_to_fit, to_html
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.connector import Success, split_text
from bridge.connector.related_records import RELATED_RECORDS_TTL, related_records_key
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events, email_address, phone_number

OWNER, SECOND_OWNER, FORMER_OWNER = "70011", "70012", "70019"
USER_OF_OWNER = "9100211"
EMAIL = "maya.lindqvist@example.com"
KINDS = ("contacts", "companies", "deals", "tickets")


class Portal:
    """The account as its users see it."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.account = sandbox.hubspot

    def contact(self, **values: str) -> str:
        return self.account.add("contacts", **({"email": EMAIL} | values)).id

    def company(self, contact: str) -> str:
        company = self.account.add("companies", name="Cycles").id
        self.account.link("contacts", contact, "companies", company)
        return company

    def deal(self, contact: str, stage: str = "presentationscheduled") -> str:
        deal = self.account.add("deals", dealname="Fleet", dealstage=stage).id
        self.account.link("contacts", contact, "deals", deal)
        return deal

    def ticket(self, contact: str, stage: str = "911201") -> str:
        ticket = self.account.add("tickets", subject="Flat tire", hs_pipeline_stage=stage).id
        self.account.link("contacts", contact, "tickets", ticket)
        return ticket

    def links(self, kind: str, record_id: str) -> dict[str, list[str]]:
        found = {to: sorted(self.account.associated(kind, record_id, to)) for to in KINDS}
        return {to: ids for to, ids in found.items() if ids}


@pytest.fixture
def portal(sandbox: RunningSandbox) -> Portal:
    return Portal(sandbox)


# ----------------------------------------------------------------------------------------- associations


@pytest.mark.parametrize(
    ("action", "kind", "name"),
    [("log_call", "calls", "call.completed"), ("create_task", "tasks", "call.completed")],
)
def test_record_is_on_contact_primary_company_and_only_open_deal_and_ticket(
    hubspot: CrmConnection, portal: Portal, action: str, kind: str, name: str
) -> None:
    contact = portal.contact()
    company, _other_company = portal.company(contact), portal.company(contact)
    portal.deal(contact, "closedwon")
    deal = portal.deal(contact)
    portal.ticket(contact, "911204")
    ticket = portal.ticket(contact)
    result = hubspot.deliver(action, event(name, clock=hubspot.clock))

    expected = {"contacts": [contact], "companies": [company], "deals": [deal], "tickets": [ticket]}
    assert portal.links(kind, str(result.id)) == expected


def test_chat_is_on_the_company_as_well(hubspot: CrmConnection, portal: Portal) -> None:
    contact = portal.contact(email="priya.raman@example.com")
    company = portal.company(contact)
    result = hubspot.deliver("log_chat", event("chat.resolved", clock=hubspot.clock))
    assert portal.links("notes", str(result.id)) == {"contacts": [contact], "companies": [company]}


def test_named_deal_and_ticket_take_the_place_of_the_open_ones(
    hubspot: CrmConnection, portal: Portal
) -> None:
    contact = portal.contact()
    portal.deal(contact), portal.ticket(contact)
    other = portal.contact(email="other@example.com")
    deal, ticket = portal.deal(other), portal.ticket(other)
    source = event(changes={"metadata.ticketId": ticket}, clock=hubspot.clock)
    result = hubspot.deliver("log_call", source, {"deal": deal})
    links = portal.links("calls", str(result.id))
    assert (links["deals"], links["tickets"]) == ([deal], [ticket])


@pytest.mark.parametrize("named", ["999999", "TCK-17"])
def test_named_ticket_that_does_not_exist_does_not_lose_the_call(
    hubspot: CrmConnection, portal: Portal, named: str
) -> None:
    contact = portal.contact()
    result = hubspot.deliver("log_call", event(changes={"metadata.ticketId": named}, clock=hubspot.clock))
    assert portal.links("calls", str(result.id)) == {"contacts": [contact]}
    assert "not associated with the ticket: it" in result.detail


def test_deal_deleted_meanwhile_loses_neither_its_call_nor_the_others(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox
) -> None:
    contacts = [
        portal.contact(email=email_address(number), phone=phone_number(number)) for number in range(3)
    ]
    deals = [portal.deal(contact) for contact in contacts]
    hubspot.deliver_all("log_call", call_events(3, hubspot.clock))
    sandbox.hubspot.delete("deals", deals[1])
    later = call_events(3, hubspot.clock)
    again = [
        event(changes=dict(item.body) | {"conversationId": f"again_{n}"}) for n, item in enumerate(later)
    ]
    results = hubspot.deliver_all("log_call", again)

    assert [portal.links("calls", str(item.id)).get("deals") for item in results] == [  # type: ignore[union-attr]
        [deals[0]],
        None,
        [deals[2]],
    ]
    assert "not associated with the deal: it no longer exists" in results[1].detail  # type: ignore[union-attr]
    assert results[0].detail == ""  # type: ignore[union-attr]


@pytest.mark.parametrize("scope", ["crm.objects.companies.read", "crm.objects.deals.read", "tickets"])
def test_missing_scope_costs_only_its_association(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox, scope: str
) -> None:
    contact = portal.contact()
    kinds = {
        "companies": portal.company(contact),
        "deals": portal.deal(contact),
        "tickets": portal.ticket(contact),
    }
    sandbox.hubspot.missing_scopes = {scope}
    first, second = (hubspot.deliver("log_call", item) for item in _calls(hubspot, 2))
    forbidden = next(kind for kind in kinds if kind in scope)
    for result in (first, second):
        expected = {"contacts": [contact]} | {
            kind: [found] for kind, found in kinds.items() if kind != forbidden
        }
        assert portal.links("calls", str(result.id)) == expected
        assert scope in result.detail
    hubspot.requests()
    hubspot.deliver("log_call", _calls(hubspot, 1, start=7)[0])
    assert hubspot.requests() == ["POST /crm/objects/2026-03/calls/batch/create"]


def test_links_are_read_again_after_an_hour(hubspot: CrmConnection, portal: Portal) -> None:
    contact = portal.contact()
    hubspot.deliver("log_call", _calls(hubspot, 1)[0])
    assert (
        hubspot.contact_cache.ttls[related_records_key(contact)] == RELATED_RECORDS_TTL == timedelta(hours=1)
    )
    deal = portal.deal(contact)
    del hubspot.contact_cache.ids[related_records_key(contact)]
    result = hubspot.deliver("log_call", _calls(hubspot, 1, start=1)[0])
    assert portal.links("calls", str(result.id))["deals"] == [deal]


_STAGES = st.lists(st.sampled_from(["open", "closed"]), max_size=3)
_PERSON = st.tuples(st.integers(0, 2), _STAGES, _STAGES)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.lists(_PERSON, min_size=1, max_size=5),
    calls=st.lists(st.integers(0, 4), min_size=1, max_size=8),
)
def test_every_call_of_a_batch_is_on_exactly_the_right_records(
    sandbox: RunningSandbox, people: list[Any], calls: list[int]
) -> None:
    sandbox.reset()
    portal, connection = Portal(sandbox), CrmConnection("hubspot", sandbox)
    expected = []
    for number, (companies, deals, tickets) in enumerate(people):
        contact = portal.contact(email=email_address(number), phone=phone_number(number))
        made = [portal.company(contact) for _ in range(companies)]
        stages = {"open": "presentationscheduled", "closed": "closedlost"}
        open_deals = [portal.deal(contact, stages[state]) for state in deals if state == "open"]
        _ = [portal.deal(contact, stages[state]) for state in deals if state == "closed"]
        ticket_stages = {"open": "911202", "closed": "911204"}
        open_tickets = [portal.ticket(contact, ticket_stages[state]) for state in tickets if state == "open"]
        _ = [portal.ticket(contact, ticket_stages[state]) for state in tickets if state == "closed"]
        only = {"companies": made[:1], "deals": open_deals, "tickets": open_tickets}
        expected.append({"contacts": [contact]} | {kind: ids for kind, ids in only.items() if len(ids) == 1})
    callers = [number % len(people) for number in calls]
    events = [
        event(
            changes=dict(call_events(1, sandbox.clock, caller)[0].body) | {"conversationId": f"conv_{number}"}
        )
        for number, caller in enumerate(callers)
    ]
    try:
        results = connection.deliver_all("log_call", events)
    finally:
        connection.close()
    links = [portal.links("calls", str(result.id)) for result in results if isinstance(result, Success)]
    assert links == [expected[caller] for caller in callers]


_CONNECTED, _UNKNOWN = "f240bbac-87c9-4f6e-bf70-924b57d47db7", "00000000-0000-4000-8000-000000000000"
_CALL = st.tuples(
    st.sampled_from([OWNER, FORMER_OWNER, USER_OF_OWNER]),
    st.sampled_from(["open", "deleted", "999999"]),
    st.sampled_from([_CONNECTED, _UNKNOWN]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_CALL, min_size=1, max_size=6))
def test_every_call_of_a_batch_loses_only_what_hubspot_refuses_of_it(
    sandbox: RunningSandbox, calls: list[Any]
) -> None:
    sandbox.reset()
    portal, connection = Portal(sandbox), CrmConnection("hubspot", sandbox)
    events, expected = [], []
    for number, (owner, deal, outcome) in enumerate(calls):
        contact = portal.contact(email=email_address(number), phone=phone_number(number))
        other = portal.contact(email=f"other{number}@example.com")
        deal_id = deal if deal.isdecimal() else portal.deal(other)
        if deal == "deleted":
            sandbox.hubspot.delete("deals", deal_id)
        body = dict(call_events(1, sandbox.clock, number)[0].body)
        values = {"metadata.owner": owner, "metadata.dealId": deal_id, "metadata.result": outcome}
        events.append(
            event(changes=body | {"conversationId": f"conv_{number}"} | values, clock=sandbox.clock)
        )
        expected.append(
            (
                owner if owner == OWNER else None,
                outcome if outcome == _CONNECTED else None,
                {"contacts": [contact]} | ({"deals": [deal_id]} if deal == "open" else {}),
            )
        )
    params = {"owner": "{{ event.metadata.owner }}", "disposition": "{{ event.metadata.result }}"}
    try:
        results = connection.deliver_all("log_call", events, params)
    finally:
        connection.close()
    logged = {call.id: call.properties for call in sandbox.hubspot.calls}
    assert len(logged) == len(calls)
    for result, (owner, outcome, links) in zip(results, expected, strict=True):
        assert isinstance(result, Success)
        values = logged[str(result.id)]
        assert (values.get("hubspot_owner_id"), values.get("hs_call_disposition")) == (owner, outcome)
        assert portal.links("calls", str(result.id)) == links
        assert bool(result.detail) == (None in (owner, outcome) or "deals" not in links)


# ------------------------------------------------------------------------------------------------ owners


def test_call_belongs_to_the_owner_of_the_contact(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox
) -> None:
    portal.contact(hubspot_owner_id=SECOND_OWNER)
    hubspot.deliver("log_call")
    hubspot.deliver("create_task")
    assert sandbox.hubspot.calls[0].properties["hubspot_owner_id"] == SECOND_OWNER
    assert sandbox.hubspot.tasks[0].properties["hubspot_owner_id"] == SECOND_OWNER


def test_owner_by_email_is_looked_up_once(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    params = {"owner": "Second@harbourlight.example"}
    for item in _calls(hubspot, 3):
        assert hubspot.deliver("log_call", item, params).detail in ("created a new contact", "")
    owners = [request for request in hubspot.requests() if "/owners/" in request]
    assert owners == ["GET /crm/owners/2026-03"]
    assert {call.properties["hubspot_owner_id"] for call in sandbox.hubspot.calls} == {SECOND_OWNER}
    assert sandbox.hubspot.contacts[0].properties["hubspot_owner_id"] == SECOND_OWNER


@pytest.mark.parametrize(
    ("owner", "reason"),
    [
        (FORMER_OWNER, "without the owner"),
        (USER_OF_OWNER, "without the owner"),
        ("former@harbourlight.example", "deactivated user"),
        ("nobody@harbourlight.example", "no user of HubSpot has the owner's email address"),
    ],
)
def test_wrong_owner_loses_neither_call_nor_contact(
    hubspot: CrmConnection, sandbox: RunningSandbox, owner: str, reason: str
) -> None:
    results = [hubspot.deliver("log_call", item, {"owner": owner}) for item in _calls(hubspot, 2)]
    assert all(reason in result.detail for result in results)
    assert len(sandbox.hubspot.calls) == 2
    assert len(sandbox.hubspot.contacts) == 1
    hubspot.requests()
    hubspot.deliver("log_call", _calls(hubspot, 1, start=5)[0], {"owner": owner})  # the refusal is remembered
    assert hubspot.requests() == ["POST /crm/objects/2026-03/calls/batch/create"]


def test_wrong_owner_of_one_call_in_a_batch_costs_only_that_owner(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox
) -> None:
    for number in range(4):
        portal.contact(email=email_address(number), phone=phone_number(number), hubspot_owner_id=OWNER)
    left = sandbox.hubspot.contacts[2]
    left.properties = left.properties | {"hubspot_owner_id": FORMER_OWNER}
    results = hubspot.deliver_all("log_call", call_events(4, hubspot.clock))
    owners = [call.properties.get("hubspot_owner_id") for call in sandbox.hubspot.calls]
    assert sorted(owners, key=str) == [OWNER, OWNER, OWNER, None]
    assert [bool(result.detail) for result in results] == [False, False, True, False]  # type: ignore[union-attr]


def test_owner_that_the_key_may_not_look_up_is_noted(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes = {"crm.objects.owners.read"}
    result = hubspot.deliver("log_call", params={"owner": "owner@harbourlight.example"})
    assert "without the owner: the HubSpot key lacks the scope crm.objects.owners.read" in result.detail


@pytest.mark.parametrize("params", ["properties", "new_contact"])
@pytest.mark.parametrize("owner", ["nobody@harbourlight.example", FORMER_OWNER])
def test_wrong_owner_among_the_properties_loses_no_contact(
    hubspot: CrmConnection, sandbox: RunningSandbox, params: str, owner: str
) -> None:
    values = {"hubspot_owner_id": owner, "jobtitle": "Buyer"}
    result = hubspot.deliver("upsert_contact", params={params: values})
    assert "without the contact's owner" in result.detail
    [contact] = sandbox.hubspot.contacts
    assert contact.properties["jobtitle"] == "Buyer"


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("upsert_contact", "contacts"),
        ("log_call", "calls"),
        ("create_task", "tasks"),
        ("create_ticket", "tickets"),
    ],
)
def test_owner_among_the_properties_can_be_an_email_address(
    hubspot: CrmConnection, sandbox: RunningSandbox, action: str, kind: str
) -> None:
    hubspot.deliver(action, params={"properties": {"hubspot_owner_id": "owner@harbourlight.example"}})
    [record] = sandbox.hubspot.objects(kind)
    assert record.properties["hubspot_owner_id"] == OWNER


@pytest.mark.parametrize(
    ("owner", "problem"),
    [
        (OWNER, ""),
        (USER_OF_OWNER, f"is the ID of a user; as an owner, the user has the ID {OWNER}"),
        (FORMER_OWNER, "deactivated"),
        ("123", "HubSpot has no owner with the ID 123"),
    ],
)
def test_check_can_verify_the_id_of_an_owner(hubspot: CrmConnection, owner: str, problem: str) -> None:
    lookup = hubspot.connected.client.owners.verify(owner)
    assert problem in lookup.problem
    assert bool(lookup.id) is not bool(problem)


@pytest.mark.parametrize("owner", ["contact", OWNER])
def test_update_leaves_the_owner_that_a_user_chose(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox, owner: str
) -> None:
    portal.contact(hubspot_owner_id=OWNER)
    source = event(clock=hubspot.clock)
    result = hubspot.deliver("log_call", source, {"owner": owner})
    call = sandbox.hubspot.calls[0]
    call.properties = call.properties | {"hubspot_owner_id": SECOND_OWNER}
    hubspot.deliver("log_call", source, {"owner": owner}, existing_id=result.id)
    hubspot.deliver("log_call", source, {"owner": owner})  # HubSpot itself names the existing record
    assert sandbox.hubspot.calls[0].properties["hubspot_owner_id"] == SECOND_OWNER
    assert len(sandbox.hubspot.calls) == 1


def test_call_belongs_to_the_owner_of_the_contact_that_it_creates(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    hubspot.deliver("log_call", params={"new_contact": {"hubspot_owner_id": SECOND_OWNER}})
    hubspot.deliver(
        "upsert_contact", call_events(1, hubspot.clock)[0], {"new_contact": {"lifecyclestage": "lead"}}
    )
    first, second = sandbox.hubspot.contacts
    assert first.properties["hubspot_owner_id"] == SECOND_OWNER
    assert sandbox.hubspot.calls[0].properties["hubspot_owner_id"] == SECOND_OWNER
    assert second.properties["lifecyclestage"] == "lead"


# ------------------------------------------------------------------------------------------ new contacts


def test_new_contact_fields_are_written_to_created_contacts_only(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox
) -> None:
    portal.contact(email=email_address(0), phone=phone_number(0))
    params = {"new_contact": {"lifecyclestage": "lead", "hs_lead_status": "NEW"}}
    hubspot.deliver_all("log_call", call_events(3, hubspot.clock), params)
    stages = [contact.properties.get("lifecyclestage") for contact in sandbox.hubspot.contacts]
    assert stages == [None, "lead", "lead"]


def test_new_contact_fields_are_not_written_to_a_contact_that_won_the_race(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox
) -> None:
    portal.contact()
    empty = {
        "status": "COMPLETE",
        "results": [],
        "startedAt": "2026-03-02T15:00:00Z",
        "completedAt": "2026-03-02T15:00:00Z",
    }
    sandbox.fault("hubspot", path="/crm/objects/2026-03/contacts/batch/read", body=empty)
    hubspot.deliver("log_call", params={"new_contact": {"lifecyclestage": "lead"}})
    [contact] = sandbox.hubspot.contacts
    assert "lifecyclestage" not in contact.properties


# ------------------------------------------------------------------------------------ fields of a call


def test_label_of_the_account_is_the_outcome_of_the_call(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.crm.add_disposition("8f1c0ab0-5a1e-4a4e-9d5d-0c1f7f0e2b11", "Appointment set")
    for item in _calls(hubspot, 2):
        hubspot.deliver("log_call", item, {"disposition": "appointment_set"})
    hubspot.deliver("log_call", _calls(hubspot, 1, start=2)[0], {"outcome": "Appointment set"})
    outcomes = {call.properties["hs_call_disposition"] for call in sandbox.hubspot.calls}
    assert outcomes == {"8f1c0ab0-5a1e-4a4e-9d5d-0c1f7f0e2b11"}
    assert [request for request in hubspot.requests() if "calling" in request] == [
        "GET /calling/v1/dispositions"
    ]


def test_unknown_label_is_left_out_and_the_nearest_is_named(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.crm.add_disposition("8f1c0ab0-5a1e-4a4e-9d5d-0c1f7f0e2b11", "Appointment set")
    result = hubspot.deliver("log_call", params={"disposition": "Appointment sett"})
    assert "without the call outcome: HubSpot has no call outcome `Appointment sett`" in result.detail
    assert "did you mean `Appointment set`?" in result.detail
    assert "hs_call_disposition" not in sandbox.hubspot.calls[0].properties


def test_unknown_id_of_an_outcome_is_left_out(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    params = {"disposition": "00000000-0000-4000-8000-000000000000"}
    result = hubspot.deliver("log_call", params=params)
    assert "without the call outcome, which HubSpot refused (INVALID_OPTION)" in result.detail
    assert "hs_call_disposition" not in sandbox.hubspot.calls[0].properties


def test_call_has_type_recording_agent_and_given_start(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    params = {
        "call_type": "Support call",
        "recording_url": "https://example.com/1.mp3",
        "started_at": "2026-03-02T15:00:00+01:00",
    }
    hubspot.deliver("log_call", params=params)
    values = sandbox.hubspot.calls[0].properties
    assert values["hs_activity_type"] == "Support call"
    assert values["hs_call_recording_url"] == "https://example.com/1.mp3"
    assert values["hs_call_source"] == "INTEGRATIONS_PLATFORM"
    assert values["hs_timestamp"] == "2026-03-02T14:00:00.000Z"
    assert "Agent: Nora at the front desk" in values["hs_call_body"]


def test_call_without_recording_has_no_source(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    hubspot.deliver("log_call")
    assert "hs_call_source" not in sandbox.hubspot.calls[0].properties


def test_long_text_of_a_task_is_shortened_before_the_conversation(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    source = event(clock=hubspot.clock)
    hubspot.deliver("create_task", source, {"text": "<" * 70_000})
    body = sandbox.hubspot.tasks[0].properties["hs_task_body"]
    assert len(body) <= MAX_BODY_LENGTH
    assert body.endswith(f"…<br>Conversation: {source.conversation.id}")


def test_recording_that_hubspot_cannot_play_is_in_the_body(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    hubspot.deliver("log_call", params={"recording_url": "http://pbx.example/1.mp3"})
    values = sandbox.hubspot.calls[0].properties
    assert "Recording: http://pbx.example/1.mp3" in values["hs_call_body"]
    assert "hs_call_recording_url" not in values
    assert "hs_call_source" not in values


# ------------------------------------------------------------------------------------------- transcripts


def test_short_transcript_is_in_the_body(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    hubspot.deliver("log_call", params={"transcript": "Agent: Hello.\nMaya: <b>Hi</b>."})
    body = sandbox.hubspot.calls[0].properties["hs_call_body"]
    assert body.endswith("Transcript:<br>Agent: Hello.<br>Maya: &lt;b&gt;Hi&lt;/b&gt;.")
    assert sandbox.hubspot.notes == []


@pytest.mark.parametrize(("action", "name"), [("log_call", "call.completed"), ("log_chat", "chat.resolved")])
def test_long_transcript_is_in_notes_that_later_events_update(
    hubspot: CrmConnection, portal: Portal, sandbox: RunningSandbox, action: str, name: str
) -> None:
    lines = [f"Agent: sentence {number} & more." for number in range(4_000)]
    source = event(name, clock=hubspot.clock)
    result = hubspot.deliver(action, source, {"transcript": "\n".join(lines)})
    more = [*lines, "Maya: Good-bye."]
    hubspot.deliver(action, source, {"transcript": "\n".join(more)}, existing_id=result.id)

    notes = [
        note for note in sandbox.hubspot.notes if ":transcript-" in note.properties["heppu_conversation_id"]
    ]
    assert len(notes) > 1
    text = "<br>".join(note.properties["hs_note_body"].split("<br><br>", 1)[1] for note in notes)
    assert text == "<br>".join(line.replace("&", "&amp;") for line in more)
    contact = sandbox.hubspot.contacts[0].id
    assert all(portal.links("notes", note.id)["contacts"] == [contact] for note in notes)


@given(st.text(st.sampled_from("ab<&\n '"), max_size=400), st.integers(1, 60))
def test_split_text_loses_nothing_but_blanks(text: str, length: int) -> None:
    parts = split_text(text, length)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= length for part in parts)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["word ", "<<<<<<", "'\"&", "line\n"]), max_size=10), st.integers(1, 8_000))
def test_parts_of_a_transcript_fit_when_escaped(words: list[str], times: int) -> None:
    text = "".join(words) * times
    parts = split_to_fit(text, 1_000)
    assert all(len(to_html(part)) <= MAX_BODY_LENGTH - 1_000 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


# ------------------------------------------------------------------------------------------------- types


def test_values_of_every_type_arrive_as_hubspot_needs_them(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    options = [{"label": value, "value": value} for value in ("road", "touring")]
    for name, kind, field_type in (
        ("interests", "enumeration", "checkbox"),
        ("tools", "string", "text"),
        ("last_call", "date", "date"),
        ("last_time", "datetime", "date"),
    ):
        body = {"name": name, "label": name, "groupName": "contactinformation"}
        more = {"options": options} if kind == "enumeration" else {}
        sandbox.hubspot.define_property("contacts", {**body, "type": kind, "fieldType": field_type, **more})
    properties = {
        "interests": ["road", "touring"],
        "tools": ["search", 5.0, True],
        "zip": 10115,
        "jobtitle": 5.0,
        "city": 2.5,
        "last_call": "2026-03-02T15:00:00.000Z",
        "last_time": "2026-03-02T15:00:00.000Z",
    }
    hubspot.deliver("upsert_contact", params={"properties": properties})
    values = sandbox.hubspot.contacts[0].properties
    assert values["interests"] == "road;touring"
    assert values["tools"] == "search, 5, true"
    assert (values["zip"], values["jobtitle"], values["city"]) == ("10115", "5", "2.5")
    assert (values["last_call"], values["last_time"]) == ("2026-03-02", "2026-03-02T15:00:00.000Z")


def _calls(hubspot: CrmConnection, count: int, start: int = 0) -> list[Any]:
    return [
        event(changes={"conversationId": f"call_{number}"}, clock=hubspot.clock)
        for number in range(start, start + count)
    ]
