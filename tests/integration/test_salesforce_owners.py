"""Owners of what the bridge writes to Salesforce: updates keep them, new records have one, wrong ones cost no call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.connector import Success
from bridge.errors import PermanentError
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.records import QUEUE_ID, SALES_USER_ID, USER_ID
from bridge.sandbox.salesforce.schema import Field
from bridge.testing import build_context, event
from tests.integration.crm import CrmConnection, call_events, phone_number

PHONE = "+12125550123"
EMAIL = "maya.lindqvist@example.com"


def add_lead(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Lead", **({"LastName": "Lindqvist", "Company": "Cycles"} | values)).id


# ---------------------------------------------------------------------------------------------- updates


@pytest.mark.parametrize(
    ("kind", "action", "params"),
    [
        ("Case", "close_case", {"without_id": "newest"}),
        ("Lead", "update_lead", {"status": "Working - Contacted"}),
        ("Lead", "upsert_contact", {"properties": {"Title": "Owner"}}),
        ("Lead", "log_call", {}),  # fills in the phone number
        ("Lead", "set_opt_out", {"channel": "email"}),
    ],
)
def test_update_runs_no_assignment_rule(
    salesforce: CrmConnection, sandbox: RunningSandbox, kind: str, action: str, params: dict[str, Any]
) -> None:
    if kind == "Case":
        contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL).id
        sandbox.salesforce.add("Case", ContactId=contact, OwnerId=SALES_USER_ID)
    else:
        add_lead(sandbox, Email=EMAIL, OwnerId=SALES_USER_ID)
    sandbox.salesforce.set_assignment_rule(kind, QUEUE_ID)
    salesforce.deliver(action, event(clock=salesforce.clock), params)

    [record] = sandbox.salesforce.records_of(kind)
    changed = {"Case": "Status", "Lead": "Phone"}[kind] if action in ("close_case", "log_call") else ""
    assert record["OwnerId"] == SALES_USER_ID
    assert not changed or record[changed]


# ------------------------------------------------------------------------------------------------- strangers


def test_stranger_becomes_a_lead_that_the_assignment_rule_gives_to_a_queue(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.set_assignment_rule("Lead", QUEUE_ID)
    result = salesforce.deliver(
        "log_call", event(changes={"callMetadata.customer.company": "Cycles"}, clock=salesforce.clock)
    )

    [lead] = sandbox.salesforce.leads
    assert (lead["OwnerId"], lead["Company"], lead["LeadSource"]) == (QUEUE_ID, "Cycles", "Heppu")
    assert lead["Status"] == "Open - Not Contacted"
    assert result.detail == "created a new lead"
    [task] = sandbox.salesforce.tasks
    assert (task["WhoId"], task["OwnerId"]) == (lead.id, USER_ID)  # a queue cannot own a Task


def test_task_of_a_new_lead_belongs_to_the_user_whom_the_assignment_rule_chose(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.set_assignment_rule("Lead", SALES_USER_ID)
    salesforce.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["OwnerId"] == SALES_USER_ID


@pytest.mark.parametrize("action", ["log_call", "log_chat", "upsert_contact", "create_task"])
def test_owner_of_the_rule_owns_the_new_lead_despite_assignment_rules(
    salesforce: CrmConnection, sandbox: RunningSandbox, action: str
) -> None:
    sandbox.salesforce.set_assignment_rule("Lead", QUEUE_ID)
    salesforce.deliver(action, params={"owner": "sales@harbourlight.example"})
    assert sandbox.salesforce.leads[0]["OwnerId"] == SALES_USER_ID


@pytest.mark.parametrize("owner", [SALES_USER_ID, "sales@harbourlight.example"])
def test_owner_of_the_settings_owns_new_leads_of_an_org_without_assignment_rules(
    sandbox: RunningSandbox, owner: str
) -> None:
    connection = CrmConnection("salesforce", sandbox, {"SALESFORCE_OWNER": owner})
    connection.deliver("log_call")
    [lead] = sandbox.salesforce.leads
    assert (lead["OwnerId"], sandbox.salesforce.tasks[0]["OwnerId"]) == (SALES_USER_ID, SALES_USER_ID)
    connection.close()


@pytest.mark.parametrize(
    ("account", "changes"),
    [
        ({"Name": "Cycles", "Phone": "(212) 555-0123"}, {"metadata.contactEmail": None}),
        ({"Name": "CYCLES"}, {"callMetadata.customer.company": "Cycles"}),
    ],
)
def test_contact_is_created_only_in_an_account(
    salesforce: CrmConnection, sandbox: RunningSandbox, account: dict[str, str], changes: dict[str, Any]
) -> None:
    account_id = sandbox.salesforce.add("Account", OwnerId=SALES_USER_ID, **account).id
    result = salesforce.deliver(
        "log_call", event(changes=changes, clock=salesforce.clock), {"on_missing": "contact"}
    )

    [contact] = sandbox.salesforce.contacts
    assert (contact["AccountId"], contact["OwnerId"]) == (account_id, SALES_USER_ID)
    assert contact["LeadSource"] == "Heppu"
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact.id
    assert result.detail == f"created a new contact; of the account {account['Name']}"


@pytest.mark.parametrize("accounts", [0, 2])
def test_stranger_without_one_account_becomes_a_lead(
    salesforce: CrmConnection, sandbox: RunningSandbox, accounts: int
) -> None:
    for _ in range(accounts):
        sandbox.salesforce.add("Account", Name="Cycles", Phone=PHONE)
    source_event = event(changes={"callMetadata.customer.company": "Cycles"}, clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event, {"on_missing": "contact"})
    assert (sandbox.salesforce.contacts, len(sandbox.salesforce.leads)) == ([], 1)
    assert "a lead, because not exactly one account has this phone number or company name" in result.detail


def test_company_name_decides_between_accounts_with_one_switchboard(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add("Account", Name="Boats", Phone=PHONE)
    account_id = sandbox.salesforce.add("Account", Name="Cycles", Phone=PHONE).id
    source_event = event(changes={"callMetadata.customer.company": "Cycles"}, clock=salesforce.clock)
    salesforce.deliver("log_call", source_event, {"on_missing": "contact"})
    assert [contact["AccountId"] for contact in sandbox.salesforce.contacts] == [account_id]


def test_batch_creates_leads_contacts_and_leads_of_a_named_owner(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add("Account", Name="Cycles", Phone=phone_number(1))
    sandbox.salesforce.set_assignment_rule("Lead", QUEUE_ID)
    events = call_events(3, salesforce.clock)
    params: list[dict[str, Any]] = [{}, {"on_missing": "contact"}, {"owner": SALES_USER_ID}]
    deliveries = [
        (
            values,
            source_event,
            build_context(source_event, salesforce.connector.actions["log_call"], now=salesforce.clock.now()),
        )
        for values, source_event in zip(params, events, strict=True)
    ]
    results = salesforce.connected.run_batch("log_call", deliveries)

    assert all(isinstance(result, Success) for result in results)
    assert [lead["OwnerId"] for lead in sandbox.salesforce.leads] == [QUEUE_ID, SALES_USER_ID]
    assert [contact["Phone"] for contact in sandbox.salesforce.contacts] == [phone_number(1)]


@given(
    accounts=st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 3)), max_size=4),
    strangers=st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["A", "b", "D", None]), st.sampled_from(["lead", "contact"])
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda stranger: stranger[0],
    ),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_stranger_becomes_one_record_that_the_sales_team_sees(
    sandbox: RunningSandbox, accounts: list[tuple[str, int]], strangers: list[tuple[int, str | None, str]]
) -> None:
    sandbox.reset()
    connection = CrmConnection("salesforce", sandbox)
    for name, number in accounts:
        sandbox.salesforce.add("Account", Name=name, Phone=phone_number(number))
    sandbox.salesforce.set_assignment_rule("Lead", QUEUE_ID)
    deliveries = []
    for number, company, on_missing in strangers:
        changes = {
            "conversationId": f"conv_{number}",
            "metadata.contactPhone": phone_number(number),
            "metadata.contactEmail": f"stranger{number}@example.com",
            "callMetadata.customer.company": company,
            "metadata.company": company,
        }
        source_event = event(changes=changes, clock=connection.clock)
        context = build_context(
            source_event, connection.connector.actions["log_call"], now=connection.clock.now()
        )
        deliveries.append(({"on_missing": on_missing}, source_event, context))
    results = connection.connected.run_batch("log_call", deliveries)
    connection.close()

    org = sandbox.salesforce
    assert all(isinstance(result, Success) for result in results)
    assert org.private_contacts == []
    assert {lead["OwnerId"] for lead in org.leads} <= {QUEUE_ID}
    people = {record.id for record in (*org.contacts, *org.leads)}
    assert {task["WhoId"] for task in org.tasks} == people
    assert len(people) == len(org.tasks) == len(strangers)


def test_new_contact_sets_fields_of_created_records_only(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add_field("Lead", Field("Region__c", required=True))
    params = {"new_contact": {"Region__c": "East", "LeadSource": "Web", "Department": "Sales"}}
    result = salesforce.deliver("log_call", params=params)
    [lead] = sandbox.salesforce.leads
    assert (lead["Region__c"], lead["LeadSource"]) == ("East", "Web")
    assert result.detail == "created a new lead; without Department, which a lead does not have"

    params = {"new_contact": {"Region__c": "West"}}
    salesforce.deliver("log_call", params=params)
    assert sandbox.salesforce.leads[0]["Region__c"] == "East"


@pytest.mark.parametrize("change", ["restrict", "hide_field", "make_read_only"])
def test_refused_lead_source_does_not_lose_the_call(
    salesforce: CrmConnection, sandbox: RunningSandbox, change: str
) -> None:
    if change == "restrict":
        sandbox.salesforce.add_field("Lead", Field("LeadSource", "picklist", 40, ("Web",), restricted=True))
    else:
        getattr(sandbox.salesforce, change)("Lead", "LeadSource")
    result = salesforce.deliver("log_call")
    assert sandbox.salesforce.leads[0]["LeadSource"] is None
    assert "without the lead source, which Salesforce refused" in result.detail
    assert len(sandbox.salesforce.tasks) == 1


@pytest.mark.parametrize(
    ("field", "value", "stored", "note"),
    [
        (
            Field("Region__c", "picklist", 40, ("East",), restricted=True),
            "North",
            None,
            "without `region__c`, which has no such value",
        ),
        (Field("Region__c", length=3), "North", "No…", "`region__c` is cut to 3 characters"),
        (
            Field("Region__c", "email"),
            "North",
            None,
            "without `Region__c`, which Salesforce refused (INVALID_EMAIL_ADDRESS)",
        ),
    ],
)
def test_refused_field_of_new_contact_does_not_lose_the_call(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    field: Field,
    value: str,
    stored: str | None,
    note: str,
) -> None:
    sandbox.salesforce.add_field("Lead", field)
    result = salesforce.deliver("log_call", params={"new_contact": {"region__c": value, "Title": "Owner"}})
    [lead] = sandbox.salesforce.leads
    assert (lead["Region__c"], lead["Title"]) == (stored, "Owner")
    assert result.detail == f"created a new lead; {note}"
    updated = salesforce.deliver("upsert_contact", params={"properties": {"region__c": value}})
    assert note.lower() in updated.detail.lower()


def test_refused_required_field_is_named(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.add_field("Lead", Field("Region__c", required=True))
    with pytest.raises(PermanentError, match=r"REQUIRED_FIELD_MISSING \(Region__c\)"):
        salesforce.deliver("log_call")


def test_skip_writes_no_record_of_a_stranger(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    result = salesforce.deliver("upsert_contact", params={"on_missing": "skip"})
    assert result.detail == "Salesforce has no such contact or lead"
    assert (sandbox.salesforce.contacts, sandbox.salesforce.leads) == ([], [])


def test_field_that_only_a_contact_has_is_left_out_of_a_lead(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add_field("Contact", Field("Last_Call_Summary__c"))
    lead = add_lead(sandbox, Email=EMAIL)
    params = {"properties": {"Last_Call_Summary__c": "Wants an invoice", "title": "Owner"}}
    result = salesforce.deliver("upsert_contact", params=params)
    assert (result.id, result.detail) == (
        lead,
        "updated; without Last_Call_Summary__c, which a lead does not have",
    )
    assert sandbox.salesforce.leads[0]["Title"] == "Owner"


def test_person_account_gets_the_call_and_keeps_its_fields(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.enable_person_accounts()
    person = sandbox.salesforce.add_person(LastName="Lindqvist", FirstName="Maya", Email=EMAIL)
    result = salesforce.deliver("log_call")  # the phone number would be filled in
    assert sandbox.salesforce.tasks[0]["WhoId"] == person.id
    assert "the contact was not completed: the contact belongs to a person account" in result.detail
    with pytest.raises(PermanentError, match="change the account instead"):
        salesforce.deliver("upsert_contact", params={"properties": {"Title": "Owner"}})
    with pytest.raises(PermanentError, match="change the account instead"):
        salesforce.deliver("set_opt_out", params={"channel": "email"})


def test_account_of_a_person_gets_no_further_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.enable_person_accounts()
    person = sandbox.salesforce.add_person(LastName="Cycles", Phone=PHONE)
    sandbox.salesforce.delete("Contact", person.id)
    source_event = event(changes={"callMetadata.customer.company": "Cycles"}, clock=salesforce.clock)
    salesforce.deliver("log_call", source_event, {"on_missing": "contact"})
    assert (sandbox.salesforce.contacts, len(sandbox.salesforce.leads)) == ([], 1)


# ------------------------------------------------------------------------------------------------ owners of Tasks


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Contact", **({"LastName": "Lindqvist", "Email": EMAIL} | values)).id


@pytest.mark.parametrize(
    ("owner", "note"),
    [
        ("contact", ""),
        ("ines@harbourlight.example", "no user or queue has this email address, username or ID"),
        ("0055g00000Nobody", ""),  # not an ID: 16 characters
        ("0055g00000Nobod", "no user or queue has this email address, username or ID"),
        ("gone@harbourlight.example", "the user is inactive"),
        ("twice@harbourlight.example", "2 users have this email address: use the username or ID of one"),
        (QUEUE_ID, "a queue cannot own a Task"),
    ],
)
def test_task_belongs_to_the_owner_of_the_contact_unless_the_rule_names_another(
    salesforce: CrmConnection, sandbox: RunningSandbox, owner: str, note: str
) -> None:
    add_user(sandbox, "gone", active=False)
    add_user(sandbox, "twice", username="one@harbourlight.example")
    add_user(sandbox, "twice", username="other@harbourlight.example")
    add_contact(sandbox, OwnerId=SALES_USER_ID)
    if owner == "0055g00000Nobody":
        with pytest.raises(ValidationError, match="pattern"):
            salesforce.deliver("log_call", params={"owner": owner})
        return
    result = salesforce.deliver("log_call", params={"owner": owner})
    assert sandbox.salesforce.tasks[0]["OwnerId"] == SALES_USER_ID
    assert result.detail == (f"not for the owner that the rule names: {note}" if note else "")


@pytest.mark.parametrize("name", ["ines@harbourlight.example", "ines.username@harbourlight.example"])
def test_owner_by_email_or_username_is_looked_up_once(
    salesforce: CrmConnection, sandbox: RunningSandbox, name: str
) -> None:
    user = add_user(sandbox, "ines", username="ines.username@harbourlight.example")
    add_contact(sandbox)
    for number in range(3):
        changes = {"conversationId": f"conv_{number}"}
        salesforce.deliver("log_call", event(changes=changes, clock=salesforce.clock), {"owner": name})
    assert {task["OwnerId"] for task in sandbox.salesforce.tasks} == {user}
    lookups = [
        request for request in sandbox.requests_to("salesforce") if "FROM User" in request.query.get("q", "")
    ]
    assert len(lookups) == 1


def test_task_of_a_contact_whose_owner_is_inactive_belongs_to_the_owner_of_the_settings(
    sandbox: RunningSandbox,
) -> None:
    connection = CrmConnection("salesforce", sandbox, {"SALESFORCE_OWNER": SALES_USER_ID})
    user = add_user(sandbox, "gone")
    add_contact(sandbox, OwnerId=user)
    sandbox.salesforce.deactivate_user(user)
    result = connection.deliver("log_call")
    assert result.detail == ""
    assert sandbox.salesforce.tasks[0]["OwnerId"] == SALES_USER_ID
    connection.close()


def test_owner_who_is_deactivated_meanwhile_does_not_lose_the_call(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    add_contact(sandbox, OwnerId=SALES_USER_ID)
    salesforce.deliver("log_call")
    sandbox.salesforce.deactivate_user(SALES_USER_ID)
    result = salesforce.deliver(
        "log_call", event(changes={"conversationId": "conv_2"}, clock=salesforce.clock)
    )
    assert sandbox.salesforce.tasks[1]["OwnerId"] == USER_ID
    assert result.detail == "without the owner, which Salesforce refused (INACTIVE_OWNER_OR_USER)"


def test_later_event_keeps_owner_and_related_record_that_a_colleague_set(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, OwnerId=SALES_USER_ID)
    sandbox.salesforce.add("Case", ContactId=contact)
    source_event = event(clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event)
    [task] = sandbox.salesforce.tasks
    task.fields |= {"OwnerId": USER_ID, "WhatId": None}
    salesforce.deliver("log_call", source_event, existing_id=result.id)
    assert (task["OwnerId"], task["WhatId"]) == (USER_ID, None)


def add_user(sandbox: RunningSandbox, name: str, *, username: str = "", active: bool = True) -> str:
    email = f"{name}@harbourlight.example"
    values = {"Name": name, "Email": email, "Username": username or email, "IsActive": active}
    crm = sandbox.salesforce.crm
    return crm.insert_unchecked(crm.types["User"], values, sandbox.clock.now()).id
