"""HubSpot's contacts, tickets and tasks, and what an operator is told about the account."""

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
from tests.integration.crm import Account

PERSON = "+12125550123"
OWN = {
    "calls": "heppu_conversation_id",
    "notes": "heppu_conversation_id",
    "tasks": "heppu_key",
    "contacts": "heppu_phone",
}


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[Account]:
    """An account in which nothing was set up."""
    account = Account("hubspot", sandbox)
    yield account
    account.close()


def setup(hubspot: Account) -> str:
    return hubspot.connected.setup()


def contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.hubspot.add("contacts", **values).id


def ticket(sandbox: RunningSandbox, person: str | None = None, **values: str) -> str:
    made = sandbox.hubspot.add("tickets", **({"hs_pipeline_stage": "911201", "subject": "Help"} | values)).id
    if person:
        sandbox.hubspot.link("tickets", made, "contacts", person)
    return made


# --------------------------------------------------------------------------------------------- contacts


def test_an_unknown_person_becomes_a_contact_with_everything_in_one_request(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    hubspot.requests()
    sent = hubspot.deliver("upsert_contact", params={"properties": {"lifecyclestage": "lead"}})

    [made] = sandbox.hubspot.contacts
    assert (sent.id, sent.detail) == (made.id, "a new person")
    wanted = {
        "email": "maya.lindqvist@example.com",
        "phone": PERSON,
        "firstname": "Maya",
        "lastname": "Lindqvist",
        "company": "Lindqvist Cycles",
        "lifecyclestage": "lead",
    }
    assert {name: made.properties[name] for name in wanted} == wanted
    writes = [one for one in hubspot.requests() if not one.endswith(("batch/read", "search"))]
    assert writes == ["POST /crm/v3/objects/contacts/batch/create"]


def test_what_people_wrote_is_filled_but_not_overwritten_unless_the_rule_says_so(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    known = contact(
        sandbox, email="maya.lindqvist@example.com", firstname="M.", jobtitle="Owner", website="old"
    )
    properties = {
        "jobtitle": {"value": "Buyer", "mode": "fill"},
        "city": {"value": "Boston", "mode": "fill"},
        "website": "new",
        "state": None,
    }
    sent = hubspot.deliver("upsert_contact", params={"properties": properties})

    [held] = sandbox.hubspot.contacts
    assert (sent.id, sent.detail) == (known, "updated")
    wanted = {
        "firstname": "M.",
        "lastname": "Lindqvist",
        "phone": PERSON,
        "jobtitle": "Owner",
        "city": "Boston",
    }
    assert {name: held.properties.get(name) for name in wanted} == wanted
    assert held.properties["website"] == "new"
    assert "state" not in held.properties


def test_an_update_that_changes_nothing_is_not_sent(hubspot: Account, sandbox: RunningSandbox) -> None:
    hubspot.deliver("upsert_contact")
    hubspot.requests()
    assert hubspot.deliver("upsert_contact").detail == "nothing to change"
    assert hubspot.requests() == ["POST /crm/v3/objects/contacts/batch/read"]


def test_a_remembered_contact_that_is_deleted_is_made_anew(hubspot: Account, sandbox: RunningSandbox) -> None:
    first = hubspot.deliver("upsert_contact")
    sandbox.hubspot.delete("contacts", str(first.id))
    again = hubspot.deliver("upsert_contact")

    [held] = sandbox.hubspot.contacts
    assert again.id == held.id != first.id


def test_a_remembered_contact_that_was_merged_is_updated_under_its_new_id(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    first = hubspot.deliver("upsert_contact")
    winner = contact(sandbox, lastname="Winner")
    sandbox.hubspot.merge("contacts", winner, str(first.id))
    hubspot.deliver("upsert_contact", params={"properties": {"city": "Boston"}})

    [held] = sandbox.hubspot.contacts
    assert (held.id, held.properties["city"]) == (winner, "Boston")


@pytest.mark.parametrize(
    ("written", "zone"),
    [
        ("america_slash_los_angeles", "America/Los_Angeles"),
        ("us_slash_eastern", "US/Eastern"),
        ("america_slash_port_hyphen_au_hyphen_prince", "America/Port-au-Prince"),
        ("america_slash_argentina_slash_buenos_aires", "America/Argentina/Buenos_Aires"),
        ("us_slash_pacific_hyphen_new", None),
    ],
)
def test_the_zone_of_a_contact_comes_with_the_search(
    hubspot: Account, sandbox: RunningSandbox, written: str, zone: str | None
) -> None:
    setup(hubspot)
    contact(sandbox, phone=PERSON, hs_timezone=written)
    hubspot.requests()
    hubspot.deliver(
        "update_contact", event("call.busy", {"metadata.contactPhone": PERSON}, clock=hubspot.clock)
    )
    assert hubspot.memory.zones == ({PERSON: zone} if zone else {})
    assert [request.rpartition("/")[2] for request in hubspot.requests()][:-1] == ["search", "read"]


def test_only_known_people_are_updated(hubspot: Account, sandbox: RunningSandbox) -> None:
    with pytest.raises(PermanentError, match="does not know this person") as caught:
        hubspot.deliver("update_contact")
    assert caught.value.code == "not_found"
    assert sandbox.hubspot.contacts == []

    contact(sandbox, phone=PERSON)
    hubspot.memory.ids.clear()
    hubspot.deliver("update_contact", params={"properties": {"hs_lead_status": "CONNECTED"}})
    assert sandbox.hubspot.contacts[0].properties["hs_lead_status"] == "CONNECTED"


def test_numbers_and_yes_and_no_are_written_as_hubspot_reads_them(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    contact(sandbox, email="maya.lindqvist@example.com")
    hubspot.deliver("update_contact", params={"properties": {"zip": 10013, "message": True, "fax": 2.5}})

    [held] = sandbox.hubspot.contacts
    assert [held.properties[name] for name in ("zip", "message", "fax")] == ["10013", "true", "2.5"]


def test_a_lost_answer_to_a_new_contact_makes_no_second_one(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    sandbox.fault("hubspot", path="*/contacts/batch/create", drop="after")
    about = event(clock=hubspot.clock)
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("upsert_contact", about)
    hubspot.deliver("upsert_contact", about, attempt=2)
    assert len(sandbox.hubspot.contacts) == 1


# ---------------------------------------------------------------------------------------------- tickets


@pytest.mark.parametrize(("stage", "closed"), [("911201", "911204"), ("74412", "74413")])
def test_a_ticket_is_moved_to_the_closed_stage_of_its_own_pipeline(
    hubspot: Account, sandbox: RunningSandbox, stage: str, closed: str
) -> None:
    one = ticket(sandbox, hs_pipeline_stage=stage)
    about = event("chat.resolved", {"metadata.ticketId": one}, clock=hubspot.clock)
    sent = hubspot.deliver("close_ticket", about, {"properties": {"hs_resolution": "Solved by Heppu"}})

    [held] = sandbox.hubspot.tickets
    assert (sent.id, sent.detail) == (one, "closed")
    assert held.properties["hs_pipeline_stage"] == closed
    assert held.properties["hs_resolution"] == "Solved by Heppu"
    assert hubspot.deliver("close_ticket", about).detail == "no open ticket"


def test_without_an_id_the_persons_one_open_ticket_is_closed(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    person = contact(sandbox, email="priya.raman@example.com")
    ticket(sandbox, person, hs_pipeline_stage="911204")
    one = ticket(sandbox, person)
    ticket(sandbox, contact(sandbox, email="other@example.com"))
    assert hubspot.deliver("close_ticket", event("chat.resolved", clock=hubspot.clock)).id == one


def test_of_several_open_tickets_a_person_chooses_or_the_rule(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    person = contact(sandbox, email="priya.raman@example.com")
    ticket(sandbox, person)
    newest = ticket(sandbox, person)
    about = event("chat.resolved", clock=hubspot.clock)
    with pytest.raises(LookupInconclusive, match="2 open tickets"):
        hubspot.deliver("close_ticket", about)
    assert hubspot.deliver("close_ticket", about, {"on_multiple": "newest"}).id == newest


def test_a_ticket_that_does_not_exist_is_an_error(hubspot: Account) -> None:
    with pytest.raises(PermanentError, match="no ticket with this id"):
        hubspot.deliver("close_ticket", params={"ticket": "99999"})


# ------------------------------------------------------------------------------------------------ tasks


def test_a_task_hangs_on_the_contact_and_is_due_after_the_event(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    person = contact(sandbox, phone="+12125550167")
    about = event("call.no-answer", {"metadata.contactPhone": "+12125550167"}, clock=hubspot.clock)
    params = {
        "subject": "Call {{ contact.name }} back",
        "due": "2h",
        "type": "CALL",
        "priority": "HIGH",
        "owner": "70011",
    }
    hubspot.clock.advance(hours=1)
    sent = hubspot.deliver("create_task", about, params)

    [task] = sandbox.hubspot.tasks
    assert sent.id == task.id
    [request] = [
        one for one in sandbox.requests if one.path.endswith("tasks/batch/create") and one.status == 201
    ]
    written = request.body["inputs"][0]["properties"]
    assert written["hs_timestamp"] == str(int((about.occurred_at + timedelta(hours=2)).timestamp() * 1000))
    wanted = {
        "hs_task_subject": f"Call {about.contact.name} back",
        "hs_task_status": "NOT_STARTED",
        "hs_task_type": "CALL",
        "hs_task_priority": "HIGH",
        "hubspot_owner_id": "70011",
    }
    assert {name: written[name] for name in wanted} == wanted
    assert sandbox.hubspot.associated("tasks", task.id, "contacts") == [person]
    [link] = [one for one in sandbox.hubspot.associations if one.from_type == "tasks"]
    assert link.type_id == 204


def test_a_lost_answer_and_the_retry_after_it_make_one_task(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    about = event(clock=hubspot.clock)
    sandbox.fault("hubspot", path="*/tasks/batch/create", drop="after")
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("create_task", about)
    sent = hubspot.deliver("create_task", about, attempt=2)
    assert [task.id for task in sandbox.hubspot.tasks] == [sent.id]


# ---------------------------------------------------------------------- what an operator has to know and do


def test_setup_makes_what_is_missing_and_may_be_repeated(hubspot: Account, sandbox: RunningSandbox) -> None:
    assert hubspot.connected.check() == (
        "the token is accepted; missing calls.heppu_conversation_id, notes.heppu_conversation_id, tasks.heppu_key, "
        "contacts.heppu_phone: run `bridge connections setup hubspot`"
    )
    assert "calls.heppu_conversation_id is made" in setup(hubspot)
    assert "calls.heppu_conversation_id is there" in setup(hubspot)
    assert hubspot.connected.check() == "the token is accepted; our properties are there"
    for kind, name in OWN.items():
        assert sandbox.hubspot.crm.types[kind].properties[name].unique


def test_a_check_names_scopes_that_only_a_later_write_would_miss(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    sandbox.hubspot.missing_scopes = {"crm.objects.contacts.write", "crm.schemas.contacts.read"}
    with pytest.raises(ConfigError) as lacking:
        hubspot.connected.check()
    assert str(lacking.value) == (
        "the token lacks the scopes crm.objects.contacts.write, crm.schemas.contacts.read: add them to the app in "
        "HubSpot"
    )


def test_a_token_without_tickets_is_right_for_rules_that_close_none(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    sandbox.hubspot.missing_scopes = {"tickets"}
    assert hubspot.connected.check().endswith("; without the scope tickets no ticket can be closed")


def test_a_check_does_without_the_scopes_where_hubspot_does_not_tell_them(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    sandbox.fault("hubspot", path="/oauth/*", status=404)
    assert hubspot.connected.check() == "the token is accepted; our properties are there"


def test_a_check_writes_nothing(hubspot: Account) -> None:
    hubspot.connected.check()
    asked = hubspot.requests()
    assert asked
    assert all(one.startswith("GET ") for one in asked if "access-token-info" not in one)


def test_the_sdk_repeats_nothing_by_itself_not_even_a_read(hubspot: Account, sandbox: RunningSandbox) -> None:
    sandbox.fault("hubspot", method="GET", drop="after", times=None)
    with pytest.raises(OutcomeUnknown):
        hubspot.connected.check()
    assert len([one for one in hubspot.requests() if one.startswith("GET")]) == 1


def test_without_setup_the_properties_are_made_by_the_first_log(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    hubspot.deliver("log_call")
    [call] = sandbox.hubspot.calls
    assert call.properties["heppu_conversation_id"]
    hubspot.requests()
    hubspot.deliver("log_call")
    assert hubspot.requests() == ["POST /crm/v3/objects/calls/batch/create"]


def test_a_token_that_may_not_make_properties_is_told_what_to_run(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"crm.schemas.contacts.write"}
    with pytest.raises(PermanentError, match="`bridge connections setup hubspot` once with a token that has"):
        hubspot.deliver("log_call")
    # A contact does without our property: it only closes the gap in which the index lags.
    assert len(sandbox.hubspot.contacts) == 1


def test_a_property_that_is_not_unique_is_no_use_and_is_named(
    hubspot: Account, sandbox: RunningSandbox
) -> None:
    setup(hubspot)
    kept = sandbox.hubspot.crm.types["calls"].properties
    known = kept["heppu_conversation_id"]
    kept["heppu_conversation_id"] = type(known)(**(vars(known) | {"unique": False}))
    for act in (hubspot.connected.check, lambda: setup(hubspot)):
        with pytest.raises(
            ConfigError, match="property heppu_conversation_id of calls is not unique: archive it"
        ):
            act()


def test_a_refused_token_stops_the_connection(sandbox: RunningSandbox) -> None:
    account = Account("hubspot", sandbox, {"HUBSPOT_ACCESS_TOKEN": "pat-na1-wrong-and-secret"})
    for attempt in (lambda: account.deliver("log_call"), account.connected.check):
        with pytest.raises(AuthenticationError) as caught:
            attempt()
        assert "wrong-and-secret" not in f"{caught.value!r} {caught.value.__cause__}"
    account.close()


def test_a_missing_scope_is_named(hubspot: Account, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes = {"crm.objects.contacts.write"}
    with pytest.raises(AuthenticationError, match=r"lacks crm\.objects\.contacts\.write; add it"):
        hubspot.deliver("log_call")
    sandbox.hubspot.missing_scopes = {"crm.objects.contacts.read"}
    with pytest.raises(ConfigError, match=r"lacks the scopes crm\.objects\.contacts\.read"):
        hubspot.connected.check()


@pytest.mark.parametrize(
    "environ",
    [
        {"HUBSPOT_ACCESS_TOKEN": ""},
        {"HUBSPOT_URL": "http://hubspot.example.com"},
        {"HUBSPOT_API_VERSION": "v3"},
    ],
)
def test_a_wrong_setting_is_named(sandbox: RunningSandbox, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(environ))):
        Account("hubspot", sandbox, environ)


@pytest.mark.parametrize(
    ("version", "path"),
    [("", "/crm/v3/objects/contacts/batch/read"), ("2026-03", "/crm/objects/2026-03/contacts/batch/read")],
)
def test_one_setting_moves_all_paths_to_a_dated_version(
    sandbox: RunningSandbox, version: str, path: str
) -> None:
    with StubServer() as partner:
        account = Account("hubspot", sandbox, {"HUBSPOT_URL": partner.url, "HUBSPOT_API_VERSION": version})
        partner.otherwise = Reply(500)
        with pytest.raises(DeliveryError):
            account.deliver("log_call")
        assert [one.path for one in partner.requests] == [path]
        account.close()


def test_what_hubspot_says_about_a_person_is_not_repeated(hubspot: Account, sandbox: RunningSandbox) -> None:
    said: Any = {
        "status": "error",
        "category": "VALIDATION_ERROR",
        "message": 'Property values were not valid: [{"error":"INVALID_EMAIL","name":"email","message":'
        '"Email address maya@example..com is invalid"}]',
    }
    sandbox.fault("hubspot", path="*/contacts/batch/create", status=400, body=said)
    with pytest.raises(PermanentError) as caught:
        hubspot.deliver("log_call")
    assert str(caught.value) == "HubSpot answered 400 VALIDATION_ERROR INVALID_EMAIL email"
