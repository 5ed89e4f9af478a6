"""HubSpot contacts, tickets and tasks; check, setup and errors of the account."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
)
from bridge.sandbox import RunningSandbox
from bridge.testing import Reply, StubServer, event
from tests.integration.crm import CrmConnection

PHONE = "+12125550123"


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    """A connection to an account without setup."""
    connection = CrmConnection("hubspot", sandbox)
    yield connection
    connection.close()


def run_setup(hubspot: CrmConnection) -> str:
    return hubspot.connected.setup()


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.hubspot.add("contacts", **values).id


def add_ticket(sandbox: RunningSandbox, contact_id: str | None = None, **values: str) -> str:
    ticket_id = sandbox.hubspot.add(
        "tickets", **({"hs_pipeline_stage": "911201", "subject": "Help"} | values)
    ).id
    if contact_id:
        sandbox.hubspot.link("tickets", ticket_id, "contacts", contact_id)
    return ticket_id


# --------------------------------------------------------------------------------------------- contacts


def test_upsert_contact_creates_contact_in_one_request(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    run_setup(hubspot)
    hubspot.requests()
    result = hubspot.deliver("upsert_contact", params={"properties": {"lifecyclestage": "lead"}})

    [created] = sandbox.hubspot.contacts
    assert (result.id, result.detail) == (created.id, "created a new contact")
    expected = {
        "email": "maya.lindqvist@example.com",
        "phone": PHONE,
        "firstname": "Maya",
        "lastname": "Lindqvist",
        "company": "Lindqvist Cycles",
        "lifecyclestage": "lead",
    }
    assert {name: created.properties[name] for name in expected} == expected
    requests = [request for request in hubspot.requests() if not request.endswith(("batch/read", "search"))]
    assert requests == [
        "GET /crm/properties/2026-03/contacts",  # the types of the rule's properties, read once in ten minutes
        "POST /crm/objects/2026-03/contacts/batch/create",
    ]


def test_upsert_contact_fills_empty_fields_and_overwrites_only_if_told(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    existing = add_contact(
        sandbox, email="maya.lindqvist@example.com", firstname="M.", jobtitle="Owner", website="old"
    )
    properties = {
        "jobtitle": {"value": "Buyer", "mode": "fill"},
        "city": {"value": "Boston", "mode": "fill"},
        "website": "new",
        "state": None,
    }
    result = hubspot.deliver("upsert_contact", params={"properties": properties})

    [stored] = sandbox.hubspot.contacts
    assert (result.id, result.detail) == (existing, "updated")
    expected = {
        "firstname": "M.",
        "lastname": "Lindqvist",
        "phone": PHONE,
        "jobtitle": "Owner",
        "city": "Boston",
    }
    assert {name: stored.properties.get(name) for name in expected} == expected
    assert stored.properties["website"] == "new"
    assert "state" not in stored.properties


def test_upsert_contact_without_changes_sends_no_update(hubspot: CrmConnection) -> None:
    hubspot.deliver("upsert_contact")
    hubspot.requests()
    assert hubspot.deliver("upsert_contact").detail == "nothing to update"
    assert hubspot.requests() == ["POST /crm/objects/2026-03/contacts/batch/read"]


def test_cached_contact_that_was_deleted_is_created_again(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    first = hubspot.deliver("upsert_contact")
    sandbox.hubspot.delete("contacts", str(first.id))
    second = hubspot.deliver("upsert_contact")

    [stored] = sandbox.hubspot.contacts
    assert second.id == stored.id != first.id


def test_cached_contact_that_was_merged_is_updated_under_new_id(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    first = hubspot.deliver("upsert_contact")
    winner = add_contact(sandbox, lastname="Winner")
    sandbox.hubspot.merge("contacts", winner, str(first.id))
    hubspot.deliver("upsert_contact", params={"properties": {"city": "Boston"}})

    [stored] = sandbox.hubspot.contacts
    assert (stored.id, stored.properties["city"]) == (winner, "Boston")


@pytest.mark.parametrize(
    ("hubspot_zone", "iana_zone"),
    [
        ("america_slash_los_angeles", "America/Los_Angeles"),
        ("us_slash_eastern", "US/Eastern"),
        ("america_slash_port_hyphen_au_hyphen_prince", "America/Port-au-Prince"),
        ("america_slash_argentina_slash_buenos_aires", "America/Argentina/Buenos_Aires"),
        ("us_slash_pacific_hyphen_new", None),
    ],
)
def test_contact_time_zone_is_cached_from_search(
    hubspot: CrmConnection, sandbox: RunningSandbox, hubspot_zone: str, iana_zone: str | None
) -> None:
    run_setup(hubspot)
    add_contact(sandbox, phone=PHONE, hs_timezone=hubspot_zone)
    hubspot.requests()
    hubspot.deliver(
        "update_contact", event("call.busy", {"metadata.contactPhone": PHONE}, clock=hubspot.clock)
    )
    assert hubspot.contact_cache.zones == ({PHONE: iana_zone} if iana_zone else {})
    assert [request.rpartition("/")[2] for request in hubspot.requests()][:-1] == ["search", "read"]


def test_update_of_an_unknown_contact_writes_nothing(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    result = hubspot.deliver("update_contact")
    assert (result.id, result.detail) == (None, "not updated: the CRM has no such contact")
    with pytest.raises(PermanentError, match="has no such contact") as caught:
        hubspot.deliver("update_contact", params={"on_missing": "error"})
    assert caught.value.code == "not_found"
    assert sandbox.hubspot.contacts == []

    add_contact(sandbox, phone=PHONE)
    hubspot.contact_cache.ids.clear()
    hubspot.deliver("update_contact", params={"properties": {"hs_lead_status": "CONNECTED"}})
    assert sandbox.hubspot.contacts[0].properties["hs_lead_status"] == "CONNECTED"


def test_numbers_and_booleans_are_converted_to_strings(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    run_setup(hubspot)
    add_contact(sandbox, email="maya.lindqvist@example.com")
    hubspot.deliver("update_contact", params={"properties": {"zip": 10013, "message": True, "fax": 2.5}})

    [stored] = sandbox.hubspot.contacts
    assert [stored.properties[name] for name in ("zip", "message", "fax")] == ["10013", "true", "2.5"]


def test_retry_after_lost_response_creates_one_contact(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    run_setup(hubspot)
    sandbox.fault("hubspot", path="*/contacts/batch/create", drop="after")
    source_event = event(clock=hubspot.clock)
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("upsert_contact", source_event)
    hubspot.deliver("upsert_contact", source_event, attempt=2)
    assert len(sandbox.hubspot.contacts) == 1


# ---------------------------------------------------------------------------------------------- tickets


@pytest.mark.parametrize(("stage", "closed"), [("911201", "911204"), ("74412", "74413")])
def test_close_ticket_uses_closed_stage_of_its_pipeline(
    hubspot: CrmConnection, sandbox: RunningSandbox, stage: str, closed: str
) -> None:
    ticket_id = add_ticket(sandbox, hs_pipeline_stage=stage)
    source_event = event("chat.resolved", {"metadata.ticketId": ticket_id}, clock=hubspot.clock)
    result = hubspot.deliver(
        "close_ticket", source_event, {"properties": {"hs_resolution": "Solved by Heppu"}}
    )

    [stored] = sandbox.hubspot.tickets
    assert (result.id, result.detail) == (ticket_id, "closed")
    assert stored.properties["hs_pipeline_stage"] == closed
    assert stored.properties["hs_resolution"] == "Solved by Heppu"
    assert hubspot.deliver("close_ticket", source_event).detail == "no open ticket"


def test_close_ticket_without_id_closes_open_ticket_of_contact(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact_id = add_contact(sandbox, email="priya.raman@example.com")
    add_ticket(sandbox, contact_id, hs_pipeline_stage="911204")
    ticket_id = add_ticket(sandbox, contact_id)
    add_ticket(sandbox, add_contact(sandbox, email="other@example.com"))
    source_event = event("chat.resolved", clock=hubspot.clock)
    with pytest.raises(PermanentError, match="no ticket ID"):
        hubspot.deliver("close_ticket", source_event)
    assert hubspot.deliver("close_ticket", source_event, {"without_id": "review"}).id == ticket_id


def test_close_ticket_with_several_open_tickets_follows_without_id(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact_id = add_contact(sandbox, email="priya.raman@example.com")
    add_ticket(sandbox, contact_id)
    newest = add_ticket(sandbox, contact_id)
    source_event = event("chat.resolved", clock=hubspot.clock)
    with pytest.raises(LookupInconclusive, match="2 open tickets"):
        hubspot.deliver("close_ticket", source_event, {"without_id": "review"})
    assert hubspot.deliver("close_ticket", source_event, {"without_id": "newest"}).id == newest


@pytest.mark.parametrize("action", ["update_contact", "upsert_contact"])
def test_owner_who_is_refused_loses_no_other_value(
    hubspot: CrmConnection, sandbox: RunningSandbox, action: str
) -> None:
    add_contact(sandbox, phone=PHONE)
    about = event("call.busy", {"metadata.contactPhone": PHONE, "metadata.contactName": None})
    properties = {"hubspot_owner_id": "99", "jobtitle": "Buyer"}
    result = hubspot.deliver(action, about, {"properties": properties})
    assert "without the owner, which HubSpot refused (INVALID_OWNER_ID)" in result.detail
    assert sandbox.hubspot.contacts[0].properties["jobtitle"] == "Buyer"
    with pytest.raises(PermanentError, match="refused the owner, and there is nothing else to write"):
        hubspot.deliver(action, about, {"email": None, "properties": {"hubspot_owner_id": "99"}})


@pytest.mark.parametrize(
    ("params", "detail"),
    [
        ({"ticket": "99999"}, "HubSpot has no ticket with this ID"),
        ({"without_id": "newest"}, "no ticket closed: the CRM has no such contact"),
    ],
)
def test_close_ticket_of_a_stranger_is_no_failure(
    hubspot: CrmConnection, params: dict[str, str], detail: str
) -> None:
    assert hubspot.deliver("close_ticket", params=params).detail == detail
    with pytest.raises(PermanentError, match=detail) as caught:
        hubspot.deliver("close_ticket", params={**params, "on_missing": "error"})
    assert caught.value.code == "not_found"


# ------------------------------------------------------------------------------------------------ tasks


def test_create_task_on_contact_is_due_after_event(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    contact_id = add_contact(sandbox, phone="+12125550167")
    source_event = event("call.no-answer", {"metadata.contactPhone": "+12125550167"}, clock=hubspot.clock)
    params = {
        "subject": "Call {{ contact.name }} back",
        "due": "2h",
        "type": "CALL",
        "priority": "HIGH",
        "owner": "70011",
    }
    hubspot.clock.advance(hours=1)
    result = hubspot.deliver("create_task", source_event, params)

    [task] = sandbox.hubspot.tasks
    assert result.id == task.id
    [request] = [
        request
        for request in sandbox.requests
        if request.path.endswith("tasks/batch/create") and request.status == 201
    ]
    properties = request.body["inputs"][0]["properties"]
    due_at = source_event.occurred_at + timedelta(hours=2)
    assert properties["hs_timestamp"] == str(int(due_at.timestamp() * 1000))
    expected = {
        "hs_task_subject": f"Call {source_event.contact.name} back",
        "hs_task_status": "NOT_STARTED",
        "hs_task_type": "CALL",
        "hs_task_priority": "HIGH",
        "hubspot_owner_id": "70011",
    }
    assert {name: properties[name] for name in expected} == expected
    assert sandbox.hubspot.associated("tasks", task.id, "contacts") == [contact_id]
    [link] = [association for association in sandbox.hubspot.associations if association.from_type == "tasks"]
    assert link.type_id == 204


def test_retry_after_lost_response_creates_one_task(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    run_setup(hubspot)
    source_event = event(clock=hubspot.clock)
    sandbox.fault("hubspot", path="*/tasks/batch/create", drop="after")
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("create_task", source_event)
    result = hubspot.deliver("create_task", source_event, attempt=2)
    assert [task.id for task in sandbox.hubspot.tasks] == [result.id]


# --------------------------------------------------------------------------------- check, setup and errors


def test_sdk_does_not_retry_reads(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.fault("hubspot", method="GET", drop="after", times=None)
    with pytest.raises(OutcomeUnknown):
        hubspot.connected.check()
    assert len([request for request in hubspot.requests() if request.startswith("GET")]) == 1


def test_first_log_creates_properties_without_setup(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    hubspot.deliver("log_call")
    [call] = sandbox.hubspot.calls
    assert call.properties["heppu_conversation_id"]
    hubspot.requests()
    hubspot.deliver("log_call")
    assert hubspot.requests()[-1:] == ["POST /crm/objects/2026-03/calls/batch/create"]


def test_rejected_token_raises_authentication_error_without_token(sandbox: RunningSandbox) -> None:
    connection = CrmConnection("hubspot", sandbox, {"HUBSPOT_ACCESS_TOKEN": "pat-na1-wrong-and-secret"})
    for operation in (lambda: connection.deliver("log_call"), connection.connected.check):
        with pytest.raises(AuthenticationError) as caught:
            operation()
        assert "wrong-and-secret" not in f"{caught.value!r} {caught.value.__cause__}"
    connection.close()


@pytest.mark.parametrize(
    "environ",
    [
        {"HUBSPOT_ACCESS_TOKEN": ""},
        {"HUBSPOT_ACCESS_TOKEN": "Bearer pat-na1-5a6d0c8e"},
        {"HUBSPOT_URL": "http://hubspot.example.com"},
        {"HUBSPOT_API_VERSION": "v3"},
    ],
)
def test_invalid_setting_is_named(sandbox: RunningSandbox, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(environ))):
        CrmConnection("hubspot", sandbox, environ)


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("", "/crm/objects/2026-03/contacts/batch/read"),
        ("2026-09", "/crm/objects/2026-09/contacts/batch/read"),
    ],
)
def test_api_version_setting_changes_paths(sandbox: RunningSandbox, version: str, path: str) -> None:
    with StubServer() as server:
        connection = CrmConnection(
            "hubspot", sandbox, {"HUBSPOT_URL": server.url, "HUBSPOT_API_VERSION": version}
        )
        server.otherwise = Reply(500)
        with pytest.raises(DeliveryError):
            connection.deliver("log_call")
        assert [request.path for request in server.requests] == [path]
        connection.close()


def test_error_message_of_hubspot_is_not_repeated(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    error_body: Any = {
        "status": "error",
        "category": "VALIDATION_ERROR",
        "message": 'Property values were not valid: [{"error":"INVALID_EMAIL","name":"email","message":'
        '"Email address maya@example..com is invalid"}]',
    }
    sandbox.fault("hubspot", path="*/calls/batch/create", status=400, body=error_body)
    with pytest.raises(PermanentError) as caught:
        hubspot.deliver("log_call")
    assert str(caught.value) == "HubSpot answered 400 VALIDATION_ERROR INVALID_EMAIL email"
