"""Structured results of a call (`event.callMetadata.custom`) in fields of a CRM: in the field's type, or left out.

A language model fills the results in, so any JSON value may arrive for any field. No value costs the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from bridge_connectors.hubspot.property_values import fit_value
from bridge_connectors.salesforce.describe import read_fields
from bridge_connectors.salesforce.field_values import fit_value as fit_salesforce_value
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.sandbox.hubspot.schema import PropertyDefinition
from bridge.sandbox.salesforce.schema import Field
from bridge.testing import event
from tests.integration.crm import CrmConnection

EMAIL = "maya.lindqvist@example.com"
PROPERTIES = {
    definition.name: definition
    for definition in (
        PropertyDefinition("budget", "number", field_type="number", custom=True),
        PropertyDefinition("decision_maker", "bool", field_type="booleancheckbox", custom=True),
        PropertyDefinition("visit_day", "date", field_type="date", custom=True),
        PropertyDefinition("visit_at", "datetime", field_type="date", custom=True),
        PropertyDefinition("urgency", "enumeration", ("low", "very_high"), field_type="select", custom=True),
        PropertyDefinition(
            "interests", "enumeration", ("bikes", "repairs"), field_type="checkbox", custom=True
        ),
        PropertyDefinition("remark", custom=True),
    )
}
FIELDS = {
    field.name: field
    for field in (
        Field("Budget__c", "currency"),
        Field("Units__c", "int"),
        Field("Decision_Maker__c", "boolean"),
        Field("Visit_Day__c", "date"),
        Field("Visit_At__c", "datetime"),
        Field("Urgency__c", "picklist", 40, ("low", "very_high"), restricted=True),
        Field("Channel__c", "picklist", 40, ("Web", "Phone")),
        Field("Interests__c", "multipicklist", 4099, ("bikes", "repairs"), restricted=True),
        Field("Remark__c", length=20),
        Field("Buyer__c", "reference"),
        Field("Second_Email__c", "email", 40),
    )
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(
        ["5", "5.50", "5,000", "yes", "NO", "Very high", "bikes; repairs", "bikes", "2026-03-02"]
    )
    | st.dates().map(str)
    | st.datetimes(timezones=st.timezones() | st.none()).map(lambda time: time.isoformat()),
    lambda items: st.lists(items, max_size=4),
    max_leaves=5,
)


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("hubspot", sandbox)
    for kind in ("calls", "contacts", "tasks", "tickets"):
        sandbox.hubspot.crm.types[kind].properties.update(PROPERTIES)
    connection.connected.setup()
    connection.requests()
    yield connection
    connection.close()


def call(custom: dict[str, Any], connection: CrmConnection) -> Event:
    changes = {"callMetadata.custom": custom, "metadata.contactEmail": EMAIL}
    return event("call.completed", changes, clock=connection.clock)


def described(definition: PropertyDefinition) -> SimpleNamespace:
    """Return a definition as the SDK returns it."""
    shown = definition.as_json()
    options = [SimpleNamespace(value=item["value"], label=item["label"]) for item in shown["options"]]
    return SimpleNamespace(type=shown["type"], field_type=shown["fieldType"], options=options)


@given(value=VALUES, name=st.sampled_from(sorted(PROPERTIES)))
def test_hubspot_accepts_every_value_that_fits_and_the_rest_is_explained(value: Any, name: str) -> None:
    result = fit_value(described(PROPERTIES[name]), value, "Europe/Stockholm")
    assert result.text is not None or result.problem
    if result.text is not None:
        assert PROPERTIES[name].validation_error(result.text) is None
        again = fit_value(described(PROPERTIES[name]), result.text)
        assert (again.text, again.problem) == (result.text, "")


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("budget", 12000, "12000"),
        ("budget", "12000.50", "12000.5"),
        ("budget", [7], "7"),
        ("decision_maker", True, "true"),
        ("decision_maker", "No", "false"),
        ("visit_day", "2026-03-05T23:30:00-05:00", "2026-03-05"),
        ("visit_day", "2026-03-05", "2026-03-05"),
        ("visit_at", "2026-03-05T15:00:00+01:00", "2026-03-05T14:00:00.000Z"),
        ("visit_at", "2026-03-05", "2026-03-05T12:00:00.000Z"),
        ("urgency", "Very high", "very_high"),
        ("urgency", ["low"], "low"),
        ("interests", ["repairs", "Bikes"], "repairs;bikes"),
        ("interests", "bikes, repairs", "bikes;repairs"),
        ("remark", ["a", 5.0, True], "a, 5, true"),
        ("remark", 0, "0"),
    ],
)
def test_results_are_written_in_the_types_of_hubspots_properties(
    hubspot: CrmConnection, sandbox: RunningSandbox, name: str, value: Any, stored: str
) -> None:
    given_and_missing = {
        name: f"{{{{ event.callMetadata.custom.{name} | default('') }}}}",
        "hs_call_summary": "{{ event.callMetadata.custom.missing | default('') }}",
    }
    result = hubspot.deliver("log_call", call({name: value}, hubspot), {"properties": given_and_missing})
    [logged] = sandbox.hubspot.calls
    assert (logged.properties[name], result.detail) == (stored, "created a new contact")
    assert "hs_call_summary" not in logged.properties


MISFITS = {
    "budget": "about 5,000",
    "decision_maker": "maybe",
    "visit_day": "next week",
    "visit_at": "2026-03-05T15:00",
    "urgency": "whenever",
    "interests": ["bikes", "boats"],
}


@pytest.mark.parametrize("action", ["log_call", "upsert_contact", "create_task", "create_ticket"])
def test_result_that_does_not_fit_is_left_out_of_hubspot_and_named(
    hubspot: CrmConnection, sandbox: RunningSandbox, action: str
) -> None:
    properties = {name: f"{{{{ event.callMetadata.custom.{name} }}}}" for name in MISFITS}
    result = hubspot.deliver(action, call(MISFITS, hubspot), {"properties": properties})
    kinds = {"log_call": "calls", "upsert_contact": "contacts", "create_task": "tasks"}
    [record] = sandbox.hubspot.objects(kinds.get(action, "tickets"))
    assert {name: record.properties.get(name) for name in MISFITS} == {
        **dict.fromkeys(MISFITS),
        "interests": "bikes",
    }
    for note in (
        "without `budget`, which takes a number",
        "without `decision_maker`, which takes true or false",
        "without `visit_day`, which takes a date like 2026-03-02",
        "without `visit_at`, which takes a time like 2026-03-02T15:00:00Z",
        "without `urgency`, which has no such option",
        "without some options of `interests`, which has no such option",
    ):
        assert note in result.detail
    assert "5,000" not in result.detail


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("interests", ["bikes", None], "bikes"),
        ("remark", ["a", ["b"], {"c": 1}], 'a, ["b"], {"c": 1}'),
        ("remark", {"value": {"street": "Pier 4"}}, '{"street": "Pier 4"}'),
        ("budget", [1, 2], None),
    ],
)
def test_list_or_object_in_the_results_does_not_lose_the_call(
    hubspot: CrmConnection, sandbox: RunningSandbox, name: str, value: Any, stored: str | None
) -> None:
    template = "{{ event.callMetadata.custom.result }}"
    source = call({"result": value}, hubspot)
    hubspot.deliver("log_call", source, {"properties": {name: template}})
    [logged] = sandbox.hubspot.calls
    assert logged.properties.get(name) == stored
    hubspot.deliver("create_deal", source, {"amount": template})
    assert len(sandbox.hubspot.objects("deals")) == 1


def test_result_for_a_new_contact_does_not_lose_the_call(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    params = {"new_contact": {"budget": "{{ event.callMetadata.custom.budget }}", "hs_timezone": "Mars"}}
    result = hubspot.deliver("log_call", call({"budget": "a lot"}, hubspot), params)
    assert len(sandbox.hubspot.calls) == len(sandbox.hubspot.contacts) == 1
    assert "without `budget`, which takes a number" in result.detail
    assert "without `hs_timezone`, which HubSpot refused (INVALID_OPTION)" in result.detail


def test_value_that_only_hubspot_refuses_is_left_out_for_one_record_of_the_batch(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.crm.types["calls"].properties["hs_timezone"] = PropertyDefinition(
        "hs_timezone", "enumeration", field_type="select"
    )
    sources = [call({"zone": zone}, hubspot) for zone in ("us_slash_eastern", "Mars")]
    properties = {"hs_timezone": "{{ event.callMetadata.custom.zone }}"}
    fine, refused = hubspot.deliver_all("log_call", sources, {"properties": properties})
    assert "without" not in fine.detail
    assert "without `hs_timezone`, which HubSpot refused (INVALID_OPTION)" in refused.detail
    zones = [item.properties.get("hs_timezone") for item in sandbox.hubspot.calls]
    assert sorted(zones, key=str) == [None, "us_slash_eastern"]


def test_option_that_was_added_a_moment_ago_is_read_again(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    params = {"properties": {"urgency": "{{ event.callMetadata.custom.urgency }}"}}
    hubspot.deliver("log_call", call({"urgency": "low"}, hubspot), params)
    properties = sandbox.hubspot.crm.types["calls"].properties
    properties["urgency"] = PropertyDefinition(
        "urgency", "enumeration", ("low", "new"), field_type="select", custom=True
    )
    definitions = hubspot.connected.client._definitions
    read_at, cached = definitions["calls"]
    definitions["calls"] = (read_at - 61, cached)
    hubspot.deliver("log_call", call({"urgency": "new"}, hubspot), params)
    assert {item.properties["urgency"] for item in sandbox.hubspot.calls} == {"low", "new"}


@pytest.fixture
def salesforce(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("salesforce", sandbox)
    for kind in ("Task", "Lead", "Contact", "Case"):
        for field in FIELDS.values():
            sandbox.salesforce.add_field(kind, field)
    yield connection
    connection.close()


@given(value=VALUES, name=st.sampled_from(sorted(FIELDS.keys() - {"Second_Email__c"})))
def test_salesforce_accepts_every_value_that_fits_and_the_rest_is_explained(value: Any, name: str) -> None:
    field = FIELDS[name]
    described = read_fields({"fields": [field.as_json()]})[name]
    result = fit_salesforce_value(value, described, lambda: "Europe/Stockholm")
    assert result.value is not None or result.problem
    if result.value is not None:
        field.validate(result.value)
        again = fit_salesforce_value(result.value, described)
        assert (again.value, again.problem) == (result.value, "")


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("Budget__c", "12000.50", 12000.5),
        ("Units__c", 5.0, 5),
        ("Units__c", [7], 7),
        ("Decision_Maker__c", "No", False),
        ("Visit_Day__c", "2026-03-05T23:30:00-05:00", "2026-03-05"),
        ("Visit_At__c", "2026-03-05T15:00", "2026-03-05T20:00:00.000+0000"),  # the org is in New York
        ("Urgency__c", "Very high", "very_high"),
        ("Channel__c", "phone", "Phone"),
        ("Channel__c", "Fax", "Fax"),
        ("Interests__c", ["repairs", "Bikes"], "repairs;bikes"),
        ("Remark__c", ["a", 5.0, True], "a, 5, true"),
        ("Remark__c", "a remark that is too long", "a remark that is to…"),
    ],
)
def test_results_are_written_in_the_types_of_salesforces_fields(
    salesforce: CrmConnection, sandbox: RunningSandbox, name: str, value: Any, stored: Any
) -> None:
    given_and_missing = {
        name: f"{{{{ event.callMetadata.custom.{name} | default('') }}}}",
        "Buyer__c": "{{ event.callMetadata.custom.missing | default('') }}",
    }
    result = salesforce.deliver(
        "log_call", call({name: value}, salesforce), {"properties": given_and_missing}
    )
    [task] = sandbox.salesforce.tasks
    assert task[name] == stored
    assert type(task[name]) is type(stored)
    assert task["Buyer__c"] is None
    assert ("`Remark__c` is cut to 20 characters" in result.detail) == str(stored).endswith("…")


WRONG = {
    "Budget__c": "about 5,000",
    "Units__c": 2.5,
    "Decision_Maker__c": "maybe",
    "Visit_Day__c": "next week",
    "Visit_At__c": "soon",
    "Urgency__c": "whenever",
    "Interests__c": ["bikes", "boats"],
    "Buyer__c": "Maya",
    "Second_Email__c": "maya at example.com",
}


@pytest.mark.parametrize(
    "action", ["log_call", "create_task", "upsert_contact", "update_lead", "create_case", "new_contact"]
)
def test_result_that_does_not_fit_is_left_out_of_salesforce_and_named(
    salesforce: CrmConnection, sandbox: RunningSandbox, action: str
) -> None:
    if action == "update_lead":
        sandbox.salesforce.add("Lead", LastName="Lindqvist", Company="Cycles", Email=EMAIL)
    properties = {name: f"{{{{ event.callMetadata.custom.{name} }}}}" for name in WRONG}
    param = "new_contact" if action == "new_contact" else "properties"
    run = "log_call" if action == "new_contact" else action
    result = salesforce.deliver(run, call(WRONG, salesforce), {param: properties})
    kinds = {"log_call": "Task", "create_task": "Task", "create_case": "Case"}
    [record] = sandbox.salesforce.records_of(kinds.get(action, "Lead"))
    assert {name: record[name] for name in WRONG if record[name]} == {"Interests__c": "bikes"}
    for note in (
        "without `Budget__c`, which takes a number",
        "without `Units__c`, which takes a whole number",
        "without `Decision_Maker__c`, which takes true or false",
        "without `Visit_Day__c`, which takes a date like 2026-03-02",
        "without `Visit_At__c`, which takes a time like 2026-03-02T15:00:00Z",
        "without `Urgency__c`, which has no such value",
        "`Interests__c` has no option for some of the values",
        "without `Buyer__c`, which takes the ID of a record",
    ):
        assert note in result.detail
    assert re.search("without `?Second_Email__c`?, which Salesforce refused", result.detail)
    assert "maya at" not in result.detail.lower()
