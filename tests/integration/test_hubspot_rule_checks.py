"""What `bridge check --online` says about names and values in the rules that a HubSpot account would refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bridge.sandbox import RunningSandbox
from bridge.sandbox.hubspot.schema import PropertyDefinition
from tests.integration.crm import CrmConnection


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("hubspot", sandbox)
    contacts = sandbox.hubspot.crm.types["contacts"].properties
    for definition in (
        PropertyDefinition("last_call", "date", field_type="date", label="Last call", custom=True),
        PropertyDefinition("score", "number", field_type="number", custom=True),
        PropertyDefinition("newsletter", "bool", field_type="booleancheckbox", custom=True),
        PropertyDefinition(
            "interests", "enumeration", ("bikes", "repairs"), field_type="checkbox", custom=True
        ),
    ):
        contacts[definition.name] = definition
    connection.connected.setup()
    yield connection
    connection.close()


def errors(hubspot: CrmConnection, action: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = hubspot.connected.check_rules((action, params))
    return [(problem.text, problem.hint) for problem in found if problem.level == "error"]


@pytest.mark.parametrize(
    ("properties", "text", "hint"),
    [
        ({"jobtitel": "Buyer"}, "HubSpot's contacts have no property `jobtitel`", "did you mean `jobtitle`?"),
        ({"Last call": "x"}, "HubSpot's contacts have no property `Last call`", "did you mean `last_call`?"),
        ({"jobtitel": "{{ event.summary }}"}, "HubSpot's contacts have no property `jobtitel`", "did you mean"),
        ({"lifecyclestage": "laed"}, "the property `lifecyclestage` has no option `laed`", "did you mean `lead`?"),
        ({"lifecyclestage": {"value": "laed", "mode": "fill"}}, "has no option `laed`", "did you mean `lead`?"),
        ({"interests": "bikes;boats"}, "has no option `boats`", "one of: `bikes`, `repairs`"),
        ({"interests": ["bikes", "boats"]}, "has no option `boats`", "one of"),
        ({"lifecyclestage": ["lead", "customer"]}, "takes one option, not a list", ""),
        ({"score": "many"}, "the property `score` takes a number, not `many`", ""),
        ({"score": True}, "takes a number, not `true`", ""),
        ({"newsletter": "maybe"}, "the property `newsletter` takes true or false, not `maybe`", ""),
        ({"last_call": "yesterday"}, "takes a date like 2026-03-02, not `yesterday`", ""),
        ({"hs_email_optout": True}, "`hs_email_optout` of HubSpot's contacts is read-only", "leave it out"),
        ({"hubspot_owner_id": "99"}, "HubSpot has no owner with the ID 99", ""),
    ],
)  # fmt: skip
def test_wrong_property_is_named_with_what_to_write(
    hubspot: CrmConnection, properties: dict[str, Any], text: str, hint: str
) -> None:
    [found] = errors(hubspot, "upsert_contact", {"properties": properties})
    assert text in found[0]
    assert hint in found[1]
    [of_created] = errors(hubspot, "log_call", {"new_contact": properties})
    assert of_created == found


@pytest.mark.parametrize(
    "properties",
    [
        {"jobtitle": "Buyer", "lifecyclestage": "lead", "score": 5, "newsletter": True, "last_call": "2026-03-02"},
        {"jobtitle": 5, "score": "5.5", "newsletter": "no", "interests": ["bikes", "Repairs"]},
        {"lifecyclestage": "Lead", "interests": "bikes, repairs"},
        {"lifecyclestage": "{{ event.outcome }}", "score": "{{ event.duration }}"},
        {"interests": ["{{ event.outcome }}", "bikes"]},
        {"lifecyclestage": None, "hs_timezone": "us_slash_eastern"},
    ],
)  # fmt: skip
def test_right_properties_are_accepted(hubspot: CrmConnection, properties: dict[str, Any]) -> None:
    hubspot.requests()
    assert errors(hubspot, "upsert_contact", {"properties": properties}) == []
    assert hubspot.requests().count("GET /crm/properties/2026-03/contacts") == 1


@pytest.mark.parametrize(
    ("action", "kind"),
    [("log_call", "calls"), ("log_chat", "notes"), ("create_task", "tasks"), ("close_ticket", "tickets")],
)
def test_properties_of_every_action_are_those_of_its_object_type(
    hubspot: CrmConnection, action: str, kind: str
) -> None:
    [(text, _)] = errors(hubspot, action, {"properties": {"no_such_property": "x"}})
    assert text == f"HubSpot's {kind} have no property `no_such_property`"


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"owner": "nobody@harbourlight.example"}, "no user of HubSpot has the owner's email address"),
        ({"owner": "99"}, "HubSpot has no owner with the ID 99"),
        ({"disposition": "Left a leter"}, "HubSpot has no call outcome `Left a leter`"),
        ({"call_type": "Suport call"}, "the property `hs_activity_type` has no option `Suport call`"),
    ],
)
def test_unknown_owner_and_call_outcome_are_found(
    hubspot: CrmConnection, params: dict[str, Any], text: str
) -> None:
    [found] = errors(hubspot, "log_call", params)
    assert text in found[0]


def test_nearest_owner_is_suggested(hubspot: CrmConnection) -> None:
    [(_, hint)] = errors(hubspot, "log_call", {"owner": "ownr@harbourlight.example"})
    assert hint == "did you mean `owner@harbourlight.example`?"


def test_without_the_scope_for_owners_only_an_email_address_is_a_problem(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"crm.objects.owners.read"}
    assert errors(hubspot, "log_call", {"owner": "70019"}) == []
    assert errors(hubspot, "log_call", {"properties": {"hubspot_owner_id": "70019"}}) == []
    [(text, _)] = errors(hubspot, "log_call", {"owner": "owner@harbourlight.example"})
    assert text == "the HubSpot key lacks the scope crm.objects.owners.read"


def test_owner_of_the_contact_and_owners_from_events_cost_no_request(hubspot: CrmConnection) -> None:
    hubspot.requests()
    for owner in ("contact", "{{ event.metadata.owner }}"):
        assert errors(hubspot, "log_call", {"owner": owner}) == []
    assert [request for request in hubspot.requests() if "owners/2026-03/" in request] == []


def test_properties_that_the_key_may_not_read_are_not_called_right(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"crm.schemas.contacts.read"}
    found = hubspot.connected.check_rules(("upsert_contact", {"properties": {"jobtitel": "x"}}))
    assert (
        "the properties of contacts in the rules are not checked: the key lacks the scope crm.schemas.contacts.read"
        in [problem.text for problem in found]
    )


@pytest.mark.parametrize("action", ["log_call", "log_chat", "log_message", "create_task"])
def test_id_of_another_form_is_a_problem_of_the_rule(hubspot: CrmConnection, action: str) -> None:
    check = hubspot.connector.actions[action].run_check_params
    assert check is not None
    settings = hubspot.connected.settings
    assert check(settings, {"deal": None, "ticket": "1209876544"}) is None
    found = check(settings, {"deal": None, "ticket": "https://app.hubspot.com/contacts/1/ticket/2"})
    assert found is not None
    assert "`ticket` needs the ID of a HubSpot ticket" in found
