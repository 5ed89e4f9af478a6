"""What `bridge check --online` finds in rules that write to Salesforce, before the first event does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.connector import FROM_EVENT, RuleProblem
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.org import Salesforce
from bridge.sandbox.salesforce.records import QUEUE_ID, SALES_USER_ID
from bridge.sandbox.salesforce.schema import Field
from tests.integration.crm import CrmConnection

EVERYTHING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("log_call", {}),
    ("log_chat", {}),
    ("create_task", {}),
    ("upsert_contact", {}),
    ("update_lead", {}),
    ("create_case", {}),
    ("close_case", {}),
    ("set_opt_out", {"channel": "email"}),
)


def problems(connection: CrmConnection, action: str, **params: Any) -> list[RuleProblem]:
    return connection.connected.check_rules((action, params))


def test_rules_that_fit_have_no_problems_and_cost_one_description_per_object(
    salesforce: CrmConnection,
) -> None:
    steps = (
        *EVERYTHING,
        ("create_case", {"priority": "High", "origin": "Phone", "owner": QUEUE_ID}),
        ("update_lead", {"status": "Working - Contacted", "properties": {"rating": "Hot"}}),
        ("upsert_contact", {"properties": {"Company": FROM_EVENT, "Birthdate": "2000-01-31"}}),
        ("log_call", {"owner": "sales@harbourlight.example", "new_contact": {"Rating": {"value": "Warm"}}}),
    )
    salesforce.connected.check()
    salesforce.requests()
    assert salesforce.connected.check_rules(*steps) == []
    requests = salesforce.requests()
    assert len([request for request in requests if request.endswith("/describe")]) == 4
    assert len(requests) <= 6


@pytest.mark.parametrize(
    ("action", "params", "location", "text", "hint"),
    [
        ("update_lead", {"properties": {"Ratting": "Hot"}}, ("properties", "Ratting"), "no field", "Rating"),
        ("close_case", {"properties": {"Raeson": "x"}}, ("properties", "Raeson"), "no field", "Reason"),
        ("close_case", {"status": "New"}, ("status",), "the case stays open", "leave `status` out"),
        (
            "log_call",
            {"new_contact": {"LeadSorce": "Web"}},
            ("new_contact", "LeadSorce"),
            "Contact and Lead have no field",
            "LeadSource",
        ),
        ("update_lead", {"status": "Working"}, ("status",), "is not a value", "Working - Contacted"),
        ("create_case", {"priority": "Hihg"}, ("priority",), "is not a value", "High"),
        (
            "create_case",
            {"properties": {"Priority": "x"}},
            ("properties", "Priority"),
            "is not a value",
            "High",
        ),
        (
            "create_task",
            {"properties": {"IsReminderSet": "on"}},
            ("properties", "IsReminderSet"),
            "boolean",
            "",
        ),
        ("log_call", {"properties": {"CallDurationInSeconds": "long"}}, None, "type int", ""),
        ("upsert_contact", {"properties": {"Birthdate": "31.1.2000"}}, None, "type date", ""),
        (
            "update_lead",
            {"properties": {"IsConverted": True}},
            None,
            "may not write Lead.IsConverted",
            "Edit",
        ),
        ("log_call", {"owner": "nobody@example.com"}, ("owner",), "no user", ""),
        ("create_task", {"owner": QUEUE_ID}, ("owner",), "a queue can own leads and cases only", ""),
    ],
)
def test_wrong_name_value_or_owner_is_found_at_its_place(
    salesforce: CrmConnection,
    action: str,
    params: dict[str, Any],
    location: tuple[str, ...] | None,
    text: str,
    hint: str,
) -> None:
    [problem] = problems(salesforce, action, **params)
    assert text in problem.text
    assert hint in problem.hint
    assert problem.use is not None
    assert problem.level == "error"
    if location is not None:
        assert problem.location == location


def test_unknown_value_of_an_open_picklist_is_a_warning(salesforce: CrmConnection) -> None:
    [problem] = problems(salesforce, "create_case", origin="Telephone")
    assert (problem.level, problem.location) == ("warning", ("origin",))


@pytest.mark.parametrize(
    ("action", "params"),
    [("log_call", {"call_type": "Cal"}), ("log_message", {"message_type": "Fax"})],
)
def test_type_that_is_left_out_is_a_warning(
    salesforce: CrmConnection, action: str, params: dict[str, str]
) -> None:
    [problem] = problems(salesforce, action, **params)
    assert (problem.level, problem.location) == ("warning", tuple(params))
    assert problem.text.endswith("; it is left out")


@pytest.mark.parametrize("written", ["id", "name", "other", "hidden"])
def test_record_type_is_checked_for_the_integration_user(
    salesforce: CrmConnection, sandbox: RunningSandbox, written: str
) -> None:
    support = sandbox.salesforce.add_record_type("Case", "Support")
    hidden = sandbox.salesforce.add_record_type("Case", "Legal", available=False)
    value = {"id": support, "name": "support", "other": "0125g000009ZzZz", "hidden": hidden}[written]
    found = problems(salesforce, "create_case", properties={"RecordTypeId": value})
    if written == "id":
        assert found == []
        return
    [problem] = found
    assert support in problem.hint


@pytest.mark.parametrize(
    ("break_org", "expected"),
    [
        (
            lambda org: org.deny("Case", "create"),
            "no Create access to Case (for create_case): grant it under Object Settings",
        ),
        (
            lambda org: org.deny("Case", "read"),
            "no Read and Create and Edit access to Case (for create_case, close_case)",
        ),
        (
            lambda org: org.deny("Lead", "edit"),
            "no Edit access to Lead (for log_call, log_chat, create_task, upsert_contact, update_lead, set_opt_out)",
        ),
        (
            lambda org: org.hide_field("Case", "Conversation_Id__c"),
            "Case.Conversation_Id__c is missing or hidden from this user (for create_case)",
        ),
        (
            lambda org: org.make_read_only("Case", "Conversation_Id__c"),
            "this user may not write Case.Conversation_Id__c",
        ),
    ],
)
def test_missing_permission_is_named_with_the_actions_that_need_it(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    break_org: Callable[[Salesforce], None],
    expected: str,
) -> None:
    break_org(sandbox.salesforce)
    [problem] = salesforce.connected.check_rules(*EVERYTHING)
    assert expected in problem.text
    assert problem.use is None


def test_hidden_fields_of_the_bridge_are_named_together(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    for name in ("Email", "Phone", "HomePhone", "OtherPhone"):
        sandbox.salesforce.hide_field("Contact", name)
    hidden, unsearched = problems(salesforce, "log_call")
    assert hidden.text.startswith("field-level security hides Contact.Email, Contact.Phone from")
    assert (unsearched.level, "Contact.HomePhone, Contact.OtherPhone" in unsearched.text) == ("warning", True)


def test_missing_edit_of_contacts_is_a_warning_for_logs_only(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.deny("Contact", "edit")
    assert [problem.level for problem in problems(salesforce, "log_call")] == ["warning"]
    assert [problem.level for problem in problems(salesforce, "upsert_contact")] == ["error"]


def test_permissions_depend_on_what_the_rules_create(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.deny("Contact", "create")
    sandbox.salesforce.deny("Lead", "create")
    assert len(problems(salesforce, "log_call")) == 1
    assert len(problems(salesforce, "log_call", on_missing="contact")) == 2
    assert problems(salesforce, "log_call", on_missing="skip") == []


def test_field_hidden_from_the_user_is_told_from_a_misspelled_one(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add_field("Lead", Field("Last_Call__c"))
    sandbox.salesforce.hide_field("Lead", "Last_Call__c")
    [problem] = problems(salesforce, "update_lead", properties={"Last_Call__c": "x"})
    assert "that the integration user can see" in problem.text


@pytest.mark.parametrize(
    ("kind", "action", "params", "hint"),
    [
        ("Lead", "log_call", {}, "set it under `new_contact`"),
        ("Lead", "log_call", {"new_contact": {"region__c": "North"}}, None),
        ("Lead", "log_call", {"on_missing": "skip"}, None),
        ("Lead", "update_lead", {}, None),
        ("Lead", "upsert_contact", {"properties": {"Region__c": FROM_EVENT}}, None),
        ("Contact", "log_call", {}, None),
        ("Contact", "log_call", {"on_missing": "contact"}, "set it under `new_contact`"),
        ("Case", "create_case", {}, "set it under `properties`"),
        ("Task", "create_task", {}, "set it under `properties`"),
        ("Task", "log_message", {}, "give it a default value in Salesforce"),
    ],
)
def test_required_field_that_no_rule_sets_is_found(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    kind: str,
    action: str,
    params: dict[str, Any],
    hint: str | None,
) -> None:
    sandbox.salesforce.add_field(kind, Field("Region__c", required=True))
    sandbox.salesforce.add_field(kind, Field("Is_Vip__c", "boolean", required=True))
    found = [(problem.text, problem.hint) for problem in problems(salesforce, action, **params)]
    assert found == ([(f"every new {kind} must have the field `Region__c`", hint)] if hint else [])


@pytest.mark.parametrize(
    ("params", "expected"), [({"channel": "email"}, []), ({"channel": "sms"}, ["Lead"]), ({}, ["Lead"])]
)
def test_hidden_flag_is_found_for_the_channels_of_the_rule(
    salesforce: CrmConnection, sandbox: RunningSandbox, params: dict[str, Any], expected: list[str]
) -> None:
    sandbox.salesforce.hide_field("Lead", "DoNotCall")
    found = problems(salesforce, "set_opt_out", **params)
    assert [problem.text.partition(" ")[0] for problem in found] == expected


def test_inactive_default_owner_is_found(sandbox: RunningSandbox) -> None:
    sandbox.salesforce.deactivate_user(SALES_USER_ID)
    connection = CrmConnection("salesforce", sandbox, {"SALESFORCE_OWNER": SALES_USER_ID})
    [problem] = problems(connection, "log_call")
    connection.close()
    assert problem.text == "SALESFORCE_OWNER: the user is inactive"
