"""Opt-out flags of HubSpot and Salesforce: read and set through the real SDKs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest

from bridge.connector import OptOutFlag
from bridge.connector.opt_outs import PHONE_CHANNELS
from bridge.errors import AccountError, ConfigError, DeliveryError
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.schema import Field
from bridge.testing import event
from tests.integration.crm import CrmConnection

PHONE, EMAIL = "+12125550123", "maya.lindqvist@example.com"
DO_NOT_CALL = "do_not_call"
HUBSPOT = {"HUBSPOT_DO_NOT_CALL_PROPERTY": DO_NOT_CALL}


def add_do_not_call_property(sandbox: RunningSandbox, hubspot: CrmConnection | None = None) -> None:
    """Create the property, as an administrator would in HubSpot's settings."""
    connection = hubspot or CrmConnection("hubspot", sandbox)
    connection.connected.client.unique_properties._api.create(
        "contacts",
        {
            "name": DO_NOT_CALL,
            "label": "Do not call",
            "groupName": "contactinformation",
            "type": "bool",
            "fieldType": "booleancheckbox",
        },
    )
    sandbox.clear_requests()


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("hubspot", sandbox, HUBSPOT)
    add_do_not_call_property(sandbox, connection)
    yield connection
    connection.close()


def read_flags(crm: CrmConnection, emails: list[str], phones: list[str]) -> dict[str, set[str]]:
    """Return the names of the flags by address."""
    flags: Mapping[str, list[OptOutFlag]] = crm.connected.opt_out_flags(emails, phones)
    return {address: {flag.field for flag in found} for address, found in flags.items() if found}


# --------------------------------------------------------------------------------------------- reading


def test_hubspot_flags_are_found_by_email_and_phone(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.add("contacts", email="out@example.com", phone="(212) 555-0123")
    sandbox.hubspot.add("contacts", phone="212 555 0124", do_not_call="true")
    sandbox.hubspot.add("contacts", email="in@example.com", phone="+12125550125", do_not_call="false")
    sandbox.hubspot.unsubscribe("Out@example.com")
    flags = read_flags(
        hubspot, ["out@example.com", "in@example.com", "nobody@example.com"], [PHONE, "+12125550124"]
    )
    assert flags == {
        "out@example.com": {"hs_email_optout"},
        PHONE: {"hs_email_optout"},
        "+12125550124": {DO_NOT_CALL},
    }


def test_contact_is_found_by_an_additional_email_address(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.add(
        "contacts", email="old@example.com", hs_additional_emails="a@example.com;new@example.com"
    )
    sandbox.hubspot.unsubscribe("old@example.com")
    assert read_flags(hubspot, ["new@example.com"], []) == {"new@example.com": {"hs_email_optout"}}


def test_any_flagged_duplicate_counts(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.add("contacts", phone=PHONE, do_not_call="true")
    sandbox.clock.advance(hours=1)
    sandbox.hubspot.add("contacts", phone="212-555-0123")  # the most recently active record
    assert read_flags(hubspot, [], [PHONE]) == {PHONE: {DO_NOT_CALL}}


def test_hubspot_without_the_property_has_no_flag_for_calls(sandbox: RunningSandbox) -> None:
    crm = CrmConnection("hubspot", sandbox)
    sandbox.hubspot.add("contacts", phone=PHONE)
    assert read_flags(crm, [], [PHONE]) == {}


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (None, "have no property"),
        ({"type": "string", "fieldType": "text"}, "not a single checkbox"),
    ],
)
def test_wrong_do_not_call_property_stops_reading(
    sandbox: RunningSandbox, definition: dict[str, str] | None, message: str
) -> None:
    crm = CrmConnection("hubspot", sandbox, HUBSPOT)
    if definition:
        crm.connected.client.unique_properties._api.create(
            "contacts",
            {"name": DO_NOT_CALL, "label": "x", "groupName": "contactinformation", **definition},
        )
    with pytest.raises(AccountError, match=message):
        read_flags(crm, [], [PHONE])
    with pytest.raises(ConfigError, match=message):
        crm.connected.check()


def test_salesforce_flags_of_contacts_and_leads_count(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    org = sandbox.salesforce
    org.add("Contact", LastName="Lindqvist", Email=EMAIL, Phone=PHONE)
    org.add("Lead", LastName="Lindqvist", Company="Cycles", Email=EMAIL.upper(), HasOptedOutOfEmail=True)
    org.add("Lead", LastName="Lindqvist", Company="Cycles", MobilePhone="(212) 555-0123", DoNotCall=True)
    assert read_flags(salesforce, [EMAIL], [PHONE]) == {
        EMAIL: {"Lead.HasOptedOutOfEmail"},
        PHONE: {"Lead.DoNotCall"},
    }


@pytest.mark.parametrize("object_type", ["Contact", "Lead"])
def test_hidden_salesforce_field_stops_reading(
    salesforce: CrmConnection, sandbox: RunningSandbox, object_type: str
) -> None:
    field = sandbox.salesforce.crm.types[object_type].fields["DoNotCall"]
    sandbox.salesforce.remove_field(object_type, "DoNotCall")
    assert f"{object_type}.DoNotCall is hidden" in salesforce.connected.check()
    with pytest.raises(AccountError, match=f"{object_type}.DoNotCall is hidden from this user: grant read"):
        read_flags(salesforce, [], [PHONE])
    sandbox.salesforce.add_field(object_type, field)
    assert read_flags(salesforce, [], [PHONE]) == {}


# --------------------------------------------------------------------------------------------- writing


def opted_out(channel: str) -> dict[str, Any]:
    return {"channel": channel, "email": EMAIL, "phone": PHONE}


def test_email_opt_out_unsubscribes_the_address_in_hubspot(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = sandbox.hubspot.add("contacts", email=EMAIL)
    for _ in range(2):
        result = hubspot.deliver("set_opt_out", event(), opted_out("email"))
        assert result.detail == "unsubscribed from all email"
    assert contact.properties["hs_email_optout"] == "true"
    path = f"/communication-preferences/2026-03/statuses/{quote(EMAIL)}/unsubscribe-all"
    assert hubspot.requests() == [f"POST {path}"] * 2


@pytest.mark.parametrize("channel", PHONE_CHANNELS)
def test_other_opt_outs_set_the_property_of_every_matching_contact(
    hubspot: CrmConnection, sandbox: RunningSandbox, channel: str
) -> None:
    contacts = [
        sandbox.hubspot.add("contacts", email=EMAIL),
        sandbox.hubspot.add("contacts", phone="(212) 555-0123"),
        sandbox.hubspot.add("contacts", phone="+442125550123"),
    ]
    result = hubspot.deliver("set_opt_out", event(), opted_out(channel))
    assert result.detail == "do_not_call set on 2 contacts"
    assert [item.properties.get(DO_NOT_CALL) for item in contacts] == ["true", "true", None]


def test_missing_scope_pauses_the_connection(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes.add("subscriptions-status-write")
    with pytest.raises(AccountError, match="lacks the scope subscriptions-status-write"):
        hubspot.deliver("set_opt_out", event(), opted_out("email"))


def test_opt_out_of_calls_without_a_property_changes_nothing(sandbox: RunningSandbox) -> None:
    result = CrmConnection("hubspot", sandbox).deliver("set_opt_out", event(), opted_out("sms"))
    assert "set HUBSPOT_DO_NOT_CALL_PROPERTY" in result.detail


@pytest.mark.parametrize(
    ("channel", "field"), [("email", "HasOptedOutOfEmail"), ("sms", "DoNotCall"), ("call", "DoNotCall")]
)
def test_opt_out_sets_the_field_of_contacts_and_leads(
    salesforce: CrmConnection, sandbox: RunningSandbox, channel: str, field: str
) -> None:
    contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    lead = sandbox.salesforce.add("Lead", LastName="Lindqvist", Company="Cycles", Phone="(212) 555-0123")
    for _ in range(2):
        result = salesforce.deliver("set_opt_out", event(), opted_out(channel))
        assert result.detail == f"{field} set on 2 records"
    assert contact[field] is True
    assert lead[field] is True
    [write] = {
        request.headers.get("sforce-auto-assign")
        for request in sandbox.requests_to("salesforce")
        if request.method == "PATCH"
    }
    assert write == "FALSE"


def test_read_only_salesforce_field_is_named(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Phone=PHONE)
    sandbox.salesforce.add_field("Contact", Field("DoNotCall", "boolean", updateable=False))
    with pytest.raises(AccountError, match=r"may not write Contact.DoNotCall: grant edit access"):
        salesforce.deliver("set_opt_out", event(), opted_out("sms"))


@pytest.mark.parametrize("name", ["hubspot", "salesforce"])
def test_unknown_contact_is_skipped_unless_the_rule_says_fail(
    name: str, sandbox: RunningSandbox, hubspot: CrmConnection, salesforce: CrmConnection
) -> None:
    crm = {"hubspot": hubspot, "salesforce": salesforce}[name]
    result = crm.deliver("set_opt_out", event(), opted_out("sms"))
    assert result.detail.startswith("nothing to update: ")
    with pytest.raises(DeliveryError, match="has no such contact"):
        crm.deliver("set_opt_out", event(), {**opted_out("sms"), "on_missing": "error"})
    assert sandbox.hubspot.contacts == []
    assert sandbox.salesforce.contacts == []
