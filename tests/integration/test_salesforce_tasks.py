"""What a Task says and refers to: related record, time of day, type, transcript, and values in the types of fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.connector import ContactProfile, Success
from bridge.errors import OutcomeUnknown, TransientError
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.schema import Field
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events, email_address, phone_number

EMAIL = "maya.lindqvist@example.com"
DATA = "/services/data/v66.0"
UPSERT = f"{DATA}/composite/sobjects/Task/Conversation_Id__c"


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Contact", **({"LastName": "Lindqvist", "Email": EMAIL} | values)).id


def add_case(sandbox: RunningSandbox, contact: str, status: str = "New") -> str:
    return sandbox.salesforce.add("Case", ContactId=contact, Status=status).id


def add_opportunity(sandbox: RunningSandbox, contact: str, stage: str = "Prospecting") -> str:
    opportunity = sandbox.salesforce.add(
        "Opportunity", Name="Bikes", StageName=stage, CloseDate="2026-06-30"
    ).id
    sandbox.salesforce.add("OpportunityContactRole", OpportunityId=opportunity, ContactId=contact)
    return opportunity


# --------------------------------------------------------------------------------------- related records


@pytest.mark.parametrize(
    ("open_records", "related"),
    [
        ("", None),
        ("case", "case"),
        ("opportunity", "opportunity"),
        ("case opportunity", None),
        ("case case", None),
        ("opportunity opportunity", None),
        ("case case opportunity", None),
    ],
)
@pytest.mark.parametrize("action", ["log_call", "log_chat", "create_task"])
def test_task_is_related_to_the_only_open_case_or_opportunity(
    salesforce: CrmConnection, sandbox: RunningSandbox, action: str, open_records: str, related: str | None
) -> None:
    contact, other = add_contact(sandbox), add_contact(sandbox, Email="other@example.com")
    add_case(sandbox, contact, "Closed")
    add_opportunity(sandbox, contact, "Closed Won")
    add_case(sandbox, other)
    ids = {
        kind: {"case": add_case, "opportunity": add_opportunity}[kind](sandbox, contact)
        for kind in open_records.split()
    }
    for kind in open_records.split()[len(ids) :]:
        {"case": add_case, "opportunity": add_opportunity}[kind](sandbox, contact)
    salesforce.deliver(action)
    assert sandbox.salesforce.tasks[0]["WhatId"] == ids.get(related or "")


@pytest.mark.parametrize("action", ["log_call", "log_chat", "log_message"])
def test_closed_status_that_was_renamed_meanwhile_loses_no_task(
    salesforce: CrmConnection, sandbox: RunningSandbox, action: str
) -> None:
    params = {"body": "Hello", "channel": "sms"} if action == "log_message" else {}
    salesforce.deliver("log_call")
    sandbox.salesforce.set_statuses("Task", {"Open": False, "Done": True})
    [waiting, other] = events = call_events(2, salesforce.clock)
    assert all(isinstance(item, TransientError) for item in salesforce.deliver_all(action, events, params))
    salesforce.deliver(action, waiting, params)
    salesforce.deliver(action, other, params)
    assert [task["Status"] for task in sandbox.salesforce.tasks[1:]] == ["Done", "Done"]


def test_wrong_value_of_the_rule_leaves_the_standard_one(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    result = salesforce.deliver("log_call", params={"properties": {"Status": "Dnoe"}})
    [task] = sandbox.salesforce.tasks
    assert (task["Status"], result.detail) == (
        "Completed",
        "without `Status`, which has no such value; created a new lead",
    )


def test_attempt_that_began_before_the_values_were_read_again_is_retried(salesforce: CrmConnection) -> None:
    org, code = salesforce.connected.client, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    began = org.values_read_again
    assert org.refused_value("STRING_TOO_LONG", began) is None
    assert [type(org.refused_value(code, began)) for _ in range(2)] == [TransientError, TransientError]
    assert org.refused_value(code, org.values_read_again) is None


@pytest.mark.parametrize("kind", ["case", "opportunity"])
def test_task_is_related_to_what_the_event_names(
    salesforce: CrmConnection, sandbox: RunningSandbox, kind: str
) -> None:
    contact = add_contact(sandbox)
    ids = {"case": add_case(sandbox, contact), "opportunity": add_opportunity(sandbox, contact)}
    salesforce.deliver("log_call", event(changes={f"metadata.{kind}Id": ids[kind]}, clock=salesforce.clock))
    assert sandbox.salesforce.tasks[0]["WhatId"] == ids[kind]


def test_id_that_is_not_of_salesforce_is_noted_and_nothing_is_guessed(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox)
    add_case(sandbox, contact)
    source_event = event(changes={"metadata.caseId": "ZD-1042"}, clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event)
    assert sandbox.salesforce.tasks[0]["WhatId"] is None
    assert result.detail == "without the case: its ID is not one of Salesforce"


@pytest.mark.parametrize("action", ["log_call", "log_chat", "create_task", "log_message"])
@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"case": "5005g00000AbCdE", "opportunity": "0065g00000AbCdEAAA"}, None),
        ({"case": "ZD-1042"}, "`case` needs the ID of a Salesforce case: 15 or 18 letters"),
        ({"opportunity": "5005g00000AbCdE"}, "`opportunity` needs the ID of a Salesforce opportunity"),
    ],
)
def test_id_in_a_rule_is_checked_when_the_rules_are_loaded(
    salesforce: CrmConnection, action: str, params: dict[str, str], problem: str | None
) -> None:
    check = salesforce.connector.actions[action].run_check_params
    assert check is not None
    found = check(salesforce.connected.client.settings, params)
    assert found is None if problem is None else found.startswith(problem)


@pytest.mark.parametrize("named", [True, False])
def test_case_that_was_deleted_meanwhile_does_not_lose_the_call(
    salesforce: CrmConnection, sandbox: RunningSandbox, named: bool
) -> None:
    case = add_case(sandbox, add_contact(sandbox))
    salesforce.deliver("log_call")
    sandbox.salesforce.delete("Case", case)
    changes = {"conversationId": "conv_2"} | ({"metadata.caseId": case} if named else {})
    result = salesforce.deliver("log_call", event(changes=changes, clock=salesforce.clock))
    assert result.detail == "without the related record, which Salesforce refused (ENTITY_IS_DELETED)"
    assert sandbox.salesforce.tasks[1]["WhoId"]

    salesforce.requests()
    salesforce.deliver("log_call", event(changes={"conversationId": "conv_3"}, clock=salesforce.clock))
    assert salesforce.requests().count(f"PATCH {UPSERT}") == 1  # what was refused is read again


def test_refusal_that_names_no_field_does_not_lose_the_call(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    add_case(sandbox, add_contact(sandbox))
    error = {
        "statusCode": "INVALID_CROSS_REFERENCE_KEY",
        "message": "invalid cross reference id",
        "fields": [],
    }
    sandbox.fault("salesforce", path=UPSERT, body=[{"success": False, "errors": [error]}])
    result = salesforce.deliver("log_call")
    assert "without the related record, which Salesforce refused" in result.detail
    assert sandbox.salesforce.tasks[0]["WhoId"]


def test_objects_that_the_user_may_not_read_are_left_out(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox)
    opportunity = add_opportunity(sandbox, contact)
    del sandbox.salesforce.crm.types["Case"]
    salesforce.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["WhatId"] == opportunity


def test_backlog_of_known_contacts_takes_one_request_per_hundred_calls(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call")  # logs in and reads the description of Tasks
    for number in range(200):
        contact = add_contact(sandbox, Email=email_address(number), Phone=phone_number(number))
        add_case(sandbox, contact)
        salesforce.contact_cache.ids[f"email:{email_address(number)}"] = contact
        salesforce.contact_cache.ids[f"phone:{phone_number(number)}"] = contact
        salesforce.contact_cache.known_profiles[contact] = ContactProfile(f"Person {number}")
    salesforce.requests()
    results = salesforce.deliver_all("log_call", call_events(200, salesforce.clock))
    assert all(isinstance(result, Success) for result in results)
    assert salesforce.requests() == [f"POST {DATA}/composite", f"PATCH {UPSERT}"]
    assert all(task["WhatId"] for task in sandbox.salesforce.tasks[1:])


# ------------------------------------------------------------------------------------- time, type and text


@pytest.mark.parametrize(
    ("zone", "day", "time"),
    [
        ("America/New_York", "2026-03-02", "Time: 2026-03-02 23:57 (America/New_York)"),
        ("Europe/Berlin", "2026-03-03", "Time: 2026-03-03 05:57 (Europe/Berlin)"),
    ],
)
def test_task_says_when_the_call_began_in_the_contacts_time_zone(
    salesforce: CrmConnection, sandbox: RunningSandbox, zone: str, day: str, time: str
) -> None:
    salesforce.clock.set(datetime(2026, 3, 3, 5, 0, tzinfo=UTC))
    changes = {"callMetadata.timezone": zone, "duration": 125}
    salesforce.deliver("log_call", event(changes=changes, clock=salesforce.clock))
    [task] = sandbox.salesforce.tasks
    assert task["ActivityDate"] == day
    assert task["Description"].endswith(time)


def test_task_has_start_and_recording_of_the_rule(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    params = {"started_at": "2026-03-02T15:00:00Z", "recording_url": "https://rec.example/1.mp3"}
    salesforce.deliver("log_call", params=params)
    [task] = sandbox.salesforce.tasks
    assert "Recording: https://rec.example/1.mp3" in task["Description"]
    assert task["Description"].endswith("Time: 2026-03-02 10:00 (America/New_York)")


@pytest.mark.parametrize(
    ("values", "params", "expected"),
    [
        (("Call", "Other"), {}, "Call"),
        (("Phone", "Other"), {}, None),
        (("Phone", "Other"), {"call_type": "Phone"}, "Phone"),
    ],
)
def test_type_is_written_if_the_org_has_it(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    values: tuple[str, ...],
    params: dict[str, str],
    expected: str | None,
) -> None:
    sandbox.salesforce.add_field("Task", Field("Type", "picklist", 40, values))
    salesforce.deliver("log_call", params=params)
    assert sandbox.salesforce.tasks[0]["Type"] == expected


@pytest.mark.parametrize("change", ["hide_field", "make_read_only"])
def test_type_is_left_out_if_the_user_may_not_write_it(
    salesforce: CrmConnection, sandbox: RunningSandbox, change: str
) -> None:
    getattr(sandbox.salesforce, change)("Task", "Type")
    salesforce.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["Type"] is None


def test_long_text_of_a_task_shows_that_it_was_cut(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("create_task", params={"text": "x" * 40_000})
    text, conversation = sandbox.salesforce.tasks[0]["Description"].split("\n")
    assert (len(text) + 1 + len(conversation), text[-2:]) == (32_000, "x…")
    assert conversation.startswith("Conversation: ")


def test_transcript_stands_in_the_description_if_there_is_room(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call", params={"transcript": "Agent: Good morning.\nMaya: Hello."})
    [task] = sandbox.salesforce.tasks
    assert task["Description"].endswith("\n\nTranscript:\nAgent: Good morning.\nMaya: Hello.")


def test_long_transcript_is_written_to_further_tasks_without_loss(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox)
    case = add_case(sandbox, contact)
    transcript = "\n".join(f"Agent: line {number}, for the record" for number in range(2500))
    source_event = event(clock=salesforce.clock)
    sandbox.fault("salesforce", path=UPSERT, drop="after")
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("log_call", source_event, {"transcript": transcript})
    for attempt in (2, 3):
        result = salesforce.deliver("log_call", source_event, {"transcript": transcript}, attempt=attempt)

    call, *parts = sandbox.salesforce.tasks
    assert result.id == call.id
    assert call["Description"].endswith(f"Transcript: in {len(parts)} further Tasks")
    assert "\n".join(part["Description"] for part in parts) == transcript
    assert [part["Subject"] for part in parts] == [
        f"Transcript {number}/{len(parts)}: {call['Subject']}" for number in range(1, len(parts) + 1)
    ]
    assert {(part["WhoId"], part["WhatId"], part["Status"]) for part in parts} == {
        (contact, case, "Completed")
    }
    assert {(part["CallDurationInSeconds"], part["TaskSubtype"], part["Type"]) for part in parts} == {
        (None, "Task", None)
    }


# ---------------------------------------------------------------------------------------------- field types

VALUES: list[tuple[Field, Any, Any]] = [
    (Field("Count__c"), 5.0, "5"),
    (Field("Score__c"), 4.5, "4.5"),
    (Field("Flag_Text__c"), True, "true"),
    (Field("Topics__c"), ["a", "b"], "a, b"),
    (Field("Numbers__c", "textarea", 32_000), [1, 2.0], "1, 2"),
    (Field("Rating_Value__c", "picklist", 40, ("5",), restricted=True), 5, "5"),
    (Field("Tags__c", "multipicklist", 4000, ("a", "b"), restricted=True), ["a", "b"], "a;b"),
    (Field("Tag__c", "multipicklist", 4000, ("a", "b")), "a", "a"),
    (Field("Wants_Call__c", "boolean"), "yes", True),
    (Field("Done__c", "boolean"), False, False),
    (Field("Age__c", "int"), "7", 7),
    (Field("Rounded__c", "int"), 7.0, 7),
    (Field("Decimal__c", "double"), "4.5", 4.5),
    (Field("Amount__c", "currency"), 4, 4),
    (Field("Day__c", "date"), "2026-03-02T15:00:00Z", "2026-03-02"),
    (Field("Start__c", "datetime"), "2026-03-02T15:00:00Z", "2026-03-02T15:00:00.000+0000"),
]
"""Fields, values of a rule, and what Salesforce stores."""


@pytest.mark.parametrize("way", ["log_call", "create_task", "upsert_contact", "update_lead", "new_contact"])
def test_values_are_written_in_the_types_of_the_fields(
    salesforce: CrmConnection, sandbox: RunningSandbox, way: str
) -> None:
    for field, _, _ in VALUES:
        sandbox.salesforce.add_field("Task", field)
        sandbox.salesforce.add_field("Lead", field)
    if way in ("upsert_contact", "update_lead"):
        sandbox.salesforce.add("Lead", LastName="Lindqvist", Company="Cycles", Email=EMAIL)
    action, param = (way, "properties") if way != "new_contact" else ("log_call", "new_contact")
    salesforce.deliver(action, params={param: {field.name: value for field, value, _ in VALUES}})

    [record] = sandbox.salesforce.tasks if way in ("log_call", "create_task") else sandbox.salesforce.leads
    stored = {field.name: expected for field, _, expected in VALUES}
    assert {name: record[name] for name in stored} == stored
    assert [type(record[name]) for name in stored] == [type(value) for value in stored.values()]
