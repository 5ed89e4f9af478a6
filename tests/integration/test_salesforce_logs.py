"""Calls and chats logged in Salesforce, through the real SDK over real HTTP, to a sandbox as strict as Salesforce."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.connector import ContactProfile, Success
from bridge.errors import (
    AccountError,
    AuthenticationError,
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
from tests.integration.crm import (
    CrmConnection,
    InMemoryContactCache,
    call_events,
    email_address,
    phone_number,
)

PHONE = "+12125550123"
DATA = "/services/data/v66.0"
UPSERT = f"{DATA}/composite/sobjects/Task/Conversation_Id__c"
COLLECTION = f"{DATA}/composite/sobjects"


@pytest.fixture
def salesforce(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    """A connection that is already logged in to its org."""
    connection = CrmConnection("salesforce", sandbox)
    connection.connected.client.closed_status("Task")
    connection.connected.client.fields("Task")
    sandbox.clear_requests()
    yield connection
    connection.close()


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Contact", **({"LastName": "Lindqvist"} | values)).id


def add_lead(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Lead", **({"LastName": "Lindqvist", "Company": "Cycles"} | values)).id


def phone_only_event(connection: CrmConnection, **changes: Any) -> Any:
    return event(changes={"metadata.contactEmail": None, **changes}, clock=connection.clock)


# ----------------------------------------------------------------------------------------------- records


def test_log_call_creates_closed_task_of_contact(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, Email="Maya.Lindqvist@example.com")
    salesforce.clock.set(datetime(2026, 3, 2, 13, tzinfo=UTC))
    source_event = event(clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event)

    [task] = sandbox.salesforce.tasks
    assert result.id == task.id
    expected = {
        "TaskSubtype": "Call",
        "Type": "Call",
        "Status": "Completed",
        "Subject": "Inbound call with Nora at the front desk: completed",
        "CallDurationInSeconds": 125,
        "CallType": "Inbound",
        "CallDisposition": "Connected",
        "CallObject": "CA00000000000000000000000000000001",
        "WhoId": contact,
        "Conversation_Id__c": source_event.conversation.id,
    }
    assert {name: task[name] for name in expected} == expected
    assert task["Description"] == (
        "Asked when the repaired bicycle can be picked up. Told: Thursday from nine. Wants an invoice by email.\n"
        f"From: {PHONE}\nTo: +12125550100\nAgent: Nora at the front desk\nOutcome: resolved\n"
        f"Conversation: {source_event.conversation.id}\n"
        "Time: 2026-03-02 07:57 (America/New_York)"
    )
    assert task["IsClosed"] is True


@pytest.mark.parametrize(
    ("name", "disposition", "seconds"),
    [("call.busy", "Busy", 0), ("call.no-answer", "No answer", 30), ("call.failed", "Failed", 0)],
)
def test_log_call_states_result_of_unanswered_call(
    salesforce: CrmConnection, sandbox: RunningSandbox, name: str, disposition: str, seconds: int
) -> None:
    salesforce.deliver("log_call", event(name, clock=salesforce.clock))

    [task] = sandbox.salesforce.tasks
    assert (task["TaskSubtype"], task["CallType"]) == ("Call", "Outbound")
    assert (task["CallDisposition"], task["CallDurationInSeconds"]) == (disposition, seconds)


def test_log_chat_creates_task_without_subtype(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    salesforce.deliver("log_chat", event("chat.resolved", clock=salesforce.clock))

    [request] = [request for request in sandbox.requests if request.path == UPSERT]
    assert "TaskSubtype" not in request.body["records"][0]
    [task] = sandbox.salesforce.tasks
    assert (task["Subject"], task["Status"]) == ("Chat: Harbour help desk", "Completed")
    assert (
        "Messages: 12\nRating: 5\nComment: Quick and clear, thank you.\nAgent: Harbour help desk\nOutcome: resolved"
        in task["Description"]
    )


def test_chat_without_email_and_phone_creates_task_without_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_chat", event("chat.completed", clock=salesforce.clock))
    [task] = sandbox.salesforce.tasks
    assert task["WhoId"] is None
    assert sandbox.salesforce.contacts == []


@pytest.mark.parametrize(
    ("instant", "zone", "day"),
    [
        ("2026-03-03T04:30:00+00:00", "America/New_York", "2026-03-02"),
        ("2026-03-03T04:30:00+00:00", "Europe/Berlin", "2026-03-03"),
        ("2026-03-08T06:59:00+00:00", "America/New_York", "2026-03-08"),  # the night clocks go forward
        ("2026-11-01T03:59:00+00:00", "America/New_York", "2026-10-31"),  # the night clocks go back
        ("2026-03-02T12:30:00+00:00", "Pacific/Auckland", "2026-03-03"),
    ],
)
def test_task_date_is_in_contact_time_zone(
    salesforce: CrmConnection, sandbox: RunningSandbox, instant: str, zone: str, day: str
) -> None:
    salesforce.clock.set(datetime.fromisoformat(instant).astimezone(UTC))
    salesforce.deliver("log_call", event(changes={"callMetadata.timezone": zone}, clock=salesforce.clock))
    assert sandbox.salesforce.tasks[0]["ActivityDate"] == day


@pytest.mark.parametrize(
    ("environ", "zone", "day"),
    [
        ({"SALESFORCE_TIME_ZONE": "Asia/Tokyo"}, "America/New_York", "2026-03-03"),
        ({}, "America/New_York", "2026-03-02"),
        ({}, "Pacific/Auckland", "2026-03-03"),
        ({}, "Nowhere/Land", "2026-03-02"),
    ],
)
@pytest.mark.parametrize("action", ["log_call", "create_task"])
def test_task_date_is_in_the_time_zone_of_the_settings_or_the_org(
    sandbox: RunningSandbox, environ: dict[str, str], zone: str, day: str, action: str
) -> None:
    [organization] = sandbox.salesforce.records_of("Organization")
    organization.fields["TimeZoneSidKey"] = zone
    connection = CrmConnection("salesforce", sandbox, environ)
    connection.clock.set(datetime(2026, 3, 2, 16, tzinfo=UTC))
    params = {"due": "0s"} if action == "create_task" else {}
    connection.deliver(action, event(clock=connection.clock), params)
    assert sandbox.salesforce.tasks[0]["ActivityDate"] == day
    connection.close()


def test_long_strings_are_truncated(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    source_event = event(
        changes={"summary": "x" * 40_000, "outcome": "y" * 300, "agentName": "z" * 300, "status": "odd"},
        clock=salesforce.clock,
    )
    salesforce.deliver("log_call", source_event)

    [task] = sandbox.salesforce.tasks
    assert len(task["Subject"]) == len(task["CallDisposition"]) == 255
    assert len(task["Description"]) == 32_000
    assert "xxx…\n" in task["Description"]
    assert f"Conversation: {source_event.conversation.id}\nTime: " in task["Description"]


def test_closed_status_is_read_from_org(sandbox: RunningSandbox) -> None:
    sandbox.salesforce.set_statuses("Task", {"Offen": False, "Erledigt": True, "Abgelegt": True})
    connection = CrmConnection("salesforce", sandbox)
    connection.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["Status"] == "Erledigt"
    connection.close()


def test_closed_status_defaults_if_hidden_from_user(sandbox: RunningSandbox) -> None:
    connection = CrmConnection("salesforce", sandbox)
    del sandbox.salesforce.crm.types["TaskStatus"]
    connection.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["Status"] == "Completed"
    connection.close()


def test_task_owner_is_param_or_setting(sandbox: RunningSandbox) -> None:
    connection = CrmConnection("salesforce", sandbox, {"SALESFORCE_OWNER": "0055g00000AbCdF"})
    first, second = call_events(2, connection.clock)
    connection.deliver("log_call", first)
    connection.deliver("log_call", second, {"owner": "0055g00000AbCdE"})
    assert [task["OwnerId"][:15] for task in sandbox.salesforce.tasks] == [
        "0055g00000AbCdF",
        "0055g00000AbCdE",
    ]
    connection.close()


def test_what_param_is_omitted_for_lead(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    case = sandbox.salesforce.add("Case", Subject="Repair").id
    add_contact(sandbox, Phone=phone_number(0))
    lead = add_lead(sandbox, Phone=phone_number(1))
    events = call_events(2, salesforce.clock)
    salesforce.deliver_all("log_call", events, {"what": case})

    assert [(task["WhatId"], task["WhoId"] == lead) for task in sandbox.salesforce.tasks] == [
        (case, False),
        (None, True),
    ]


# --------------------------------------------------------------------------- idempotency and request cost


def test_cached_contact_takes_one_request(salesforce: CrmConnection) -> None:
    salesforce.deliver("log_call", call_events(1, salesforce.clock)[0])
    salesforce.requests()
    salesforce.deliver("log_call", event(changes=_contact(0), clock=salesforce.clock))
    assert salesforce.requests() == [f"PATCH {UPSERT}"]


def test_thousand_calls_of_cached_contacts_take_six_requests(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    for number in range(200):
        contact = add_contact(sandbox, Email=email_address(number), Phone=phone_number(number))
        salesforce.contact_cache.ids[f"email:{email_address(number)}"] = contact
        salesforce.contact_cache.ids[f"phone:{phone_number(number)}"] = contact
        salesforce.contact_cache.known_profiles[contact] = ContactProfile(f"Person {number}")
    for batch in range(5):
        events = [
            event(changes=_contact(number, conversationId=f"conv_{batch}_{number}"), clock=salesforce.clock)
            for number in range(200)
        ]
        results = salesforce.deliver_all("log_call", events)
        assert all(isinstance(result, Success) for result in results)
    assert len(sandbox.salesforce.tasks) == 1000
    assert salesforce.requests() == [f"POST {DATA}/composite"] + [f"PATCH {UPSERT}"] * 5


def test_two_hundred_uncached_contacts_are_found_in_few_requests(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contacts = [
        add_contact(sandbox, Phone=f"(212) {phone_number(number)[5:8]}-{phone_number(number)[8:]}")
        for number in range(200)
    ]
    events = [
        event(changes=_contact(number) | {"metadata.contactEmail": None}, clock=salesforce.clock)
        for number in range(200)
    ]
    results = salesforce.deliver_all("log_call", events)

    assert all(isinstance(result, Success) for result in results)
    assert [task["WhoId"] for task in sandbox.salesforce.tasks] == contacts
    assert salesforce.requests() == [
        *[f"GET {DATA}/search/"] * 4,
        f"POST {DATA}/composite",
        f"PATCH {UPSERT}",
    ]


def test_later_event_of_conversation_updates_task(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    first = event("chat.abandoned", clock=salesforce.clock)
    result = salesforce.deliver("log_chat", first)
    assert sandbox.salesforce.tasks[0]["WhoId"] is None
    later = event("chat.resolved", {"conversationId": first.conversation.id}, clock=salesforce.clock)
    second = salesforce.deliver("log_chat", later, existing_id=result.id)

    [task] = sandbox.salesforce.tasks
    assert second.id == task.id == result.id
    assert "the password was reset" in task["Description"]
    assert task["WhoId"] == sandbox.salesforce.leads[0].id


def test_update_of_call_omits_subtype(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    source_event = event(clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event)
    for context_fields in ({"existing_id": result.id}, {}):
        second = salesforce.deliver("log_call", source_event, {"title": "Again"}, **context_fields)
        assert (second.id, second.detail) == (result.id, "updated")
    [task] = sandbox.salesforce.tasks
    assert (task["Subject"], task["TaskSubtype"]) == ("Again", "Call")


def test_deleted_task_is_created_again(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    source_event = event(clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event)
    sandbox.salesforce.delete("Task", str(result.id))
    second = salesforce.deliver("log_call", source_event, existing_id=result.id)

    [task] = sandbox.salesforce.tasks
    assert second.id == task.id != result.id
    assert task["TaskSubtype"] == "Call"


def test_conversation_id_with_special_characters_is_escaped(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    source_event = event(changes={"conversationId": "../Account/001 o'clock %2F ü"}, clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event)
    assert salesforce.deliver("log_call", source_event).id == result.id
    assert sandbox.salesforce.tasks[0]["Conversation_Id__c"] == source_event.conversation.id


# ------------------------------------------------------------------- org without the External ID field


@pytest.fixture
def without_field(salesforce: CrmConnection, sandbox: RunningSandbox) -> CrmConnection:
    sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    return salesforce


def test_call_object_holds_conversation_id_without_external_id_field(
    without_field: CrmConnection, sandbox: RunningSandbox
) -> None:
    source_event = event(clock=without_field.clock)
    result = without_field.deliver("log_call", source_event)
    second = without_field.deliver("log_call", source_event, {"title": "Again"}, attempt=2)

    [task] = sandbox.salesforce.tasks
    assert second.id == result.id == task.id
    assert (task["CallObject"], task["Subject"]) == (source_event.conversation.id, "Again")


def test_retry_without_external_id_field_creates_one_task(
    without_field: CrmConnection, sandbox: RunningSandbox
) -> None:
    source_event = event(changes={"conversationId": "conv_o'clock\\"}, clock=without_field.clock)
    without_field.deliver("log_call", call_events(1, without_field.clock)[0])
    sandbox.fault("salesforce", path=COLLECTION, method="POST", drop="after", times=2)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            without_field.deliver("log_call", source_event)
    without_field.deliver("log_call", source_event, attempt=3)
    assert len(sandbox.salesforce.tasks) == 2
    assert len(sandbox.salesforce.leads) == 2


def test_batch_without_external_id_field_takes_two_requests(
    without_field: CrmConnection, sandbox: RunningSandbox
) -> None:
    events = call_events(40, without_field.clock)
    without_field.deliver_all("log_call", events[:20])
    without_field.requests()
    for number in range(20, 40):
        contact = add_contact(sandbox, Phone=phone_number(number))
        without_field.contact_cache.ids[f"email:{email_address(number)}"] = contact
        without_field.contact_cache.ids[f"phone:{phone_number(number)}"] = contact
        without_field.contact_cache.known_profiles[contact] = ContactProfile(f"Person {number}")
    results = without_field.deliver_all("log_call", events[20:])
    assert all(isinstance(result, Success) for result in results)
    assert without_field.requests() == [
        f"POST {DATA}/composite",
        f"GET {DATA}/query/",
        f"POST {COLLECTION}",
    ]


def test_external_id_field_created_later_is_used_without_duplicates(
    without_field: CrmConnection, sandbox: RunningSandbox
) -> None:
    from bridge.sandbox.salesforce.schema import Field

    source_event = event(clock=without_field.clock)
    result = without_field.deliver("log_call", source_event)
    sandbox.salesforce.add_field("Task", Field("Conversation_Id__c", unique=True, external_id=True))
    without_field.connected.client.task_field_missing_until = 0.0
    without_field.deliver("log_call", source_event, existing_id=result.id)
    other = call_events(1, without_field.clock)[0]
    without_field.deliver("log_call", other)
    assert [task["Conversation_Id__c"] for task in sandbox.salesforce.tasks] == [None, other.conversation.id]


# --------------------------------------------------------------------------------------- contact matching


@pytest.mark.parametrize("typed", ["(212) 555-0123", "212-555-0123", "+1 212 555 0123", "2125550123"])
@pytest.mark.parametrize("field", ["Phone", "MobilePhone", "HomePhone"])
def test_contact_is_found_by_phone_in_any_format(
    salesforce: CrmConnection, sandbox: RunningSandbox, typed: str, field: str
) -> None:
    contact = add_contact(sandbox, **{field: typed})
    salesforce.deliver("log_call", phone_only_event(salesforce))
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact


def test_same_digits_with_other_country_code_do_not_match(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    other_contact = add_contact(sandbox, Phone="+44 212 555 0123")
    salesforce.deliver("log_call", phone_only_event(salesforce))
    assert sandbox.salesforce.tasks[0]["WhoId"] != other_contact


def test_email_with_quote_is_escaped_in_query(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, Email="o'brien@example.com")
    add_contact(sandbox, Email="other@example.com")
    email = "o'brien@example.com"
    salesforce.deliver("log_call", event(changes={"metadata.contactEmail": email}, clock=salesforce.clock))
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact


def test_open_lead_is_found_without_contact(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    lead = add_lead(sandbox, Email="maya.lindqvist@example.com")
    other = add_lead(sandbox, Phone="212 555 0199")
    salesforce.deliver("log_call")
    salesforce.deliver("log_call", phone_only_event(salesforce, **{"metadata.contactPhone": "+12125550199"}))
    assert [task["WhoId"] for task in sandbox.salesforce.tasks] == [lead, other]
    assert sandbox.salesforce.contacts == []


def test_contact_takes_precedence_over_lead_and_converted_lead_is_ignored(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, Phone=PHONE)
    salesforce.clock.advance(days=1)
    add_lead(sandbox, Phone=PHONE)
    converted = add_lead(sandbox, Phone=phone_number(1))
    sandbox.salesforce.convert(converted, contact)
    salesforce.deliver("log_call", phone_only_event(salesforce))
    salesforce.deliver("log_call", phone_only_event(salesforce, **{"metadata.contactPhone": phone_number(1)}))

    first, second = sandbox.salesforce.tasks
    assert first["WhoId"] == contact
    assert second["WhoId"] not in (converted, contact)


def test_cached_lead_that_was_converted_leads_to_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    lead = add_lead(sandbox, Phone=PHONE, Email="maya.lindqvist@example.com")
    salesforce.deliver("log_call")
    contact = add_contact(sandbox, Phone=PHONE, Email="maya.lindqvist@example.com")
    sandbox.salesforce.convert(lead, contact)
    salesforce.deliver("log_call")

    assert [task["WhoId"] for task in sandbox.salesforce.tasks] == [lead, contact]


@pytest.mark.parametrize("change", ["deleted", "merged"])
def test_deleted_or_merged_contact_is_removed_from_cache_and_found_again(
    salesforce: CrmConnection, sandbox: RunningSandbox, change: str
) -> None:
    events = call_events(3, salesforce.clock)
    for number in range(3):
        add_contact(sandbox, Email=email_address(number), Phone=phone_number(number))
    salesforce.deliver_all("log_call", events)
    deleted_id = salesforce.contact_cache.ids[f"phone:{phone_number(1)}"]
    replacement = add_contact(sandbox, Email=email_address(1))
    if change == "deleted":
        sandbox.salesforce.delete("Contact", deleted_id)
    else:
        sandbox.salesforce.merge("Contact", replacement, deleted_id)
    later_events = [
        event(changes=_contact(number, conversationId=f"conv_b{number}"), clock=salesforce.clock)
        for number in range(3)
    ]
    results = salesforce.deliver_all("log_call", later_events)

    assert all(isinstance(result, Success) for result in results)
    tasks = {task["Conversation_Id__c"]: task["WhoId"] for task in sandbox.salesforce.tasks}
    assert len(tasks) == 6
    assert tasks["conv_b1"] == replacement


def test_most_recently_active_contact_is_used_and_noted(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    newest = add_contact(sandbox, Phone=PHONE)
    add_contact(sandbox, MobilePhone="212 555 0123")
    salesforce.clock.advance(days=1)
    contact_type = sandbox.salesforce.crm.types["Contact"]
    active = sandbox.salesforce.contacts[0]
    sandbox.salesforce.crm.update(contact_type, active, {"Title": "Owner"}, salesforce.clock.now())
    result = salesforce.deliver("log_call", phone_only_event(salesforce))

    assert sandbox.salesforce.tasks[0]["WhoId"] == newest
    assert result.detail == "2 records have this phone, the most recently active was used"
    [result] = salesforce.deliver_all(
        "log_call",
        [phone_only_event(salesforce, **{"metadata.contactPhone": PHONE})],
        {"on_multiple": "review"},
        contact_cache=InMemoryContactCache(),
    )
    assert isinstance(result, LookupInconclusive)


def test_contact_without_name_gets_phone_as_last_name_and_note(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver(
        "log_call",
        phone_only_event(salesforce, **{"metadata.contactName": None, "callMetadata.customer": None}),
    )

    [lead] = sandbox.salesforce.leads
    assert (lead["LastName"], lead["Phone"]) == (PHONE, PHONE)
    assert lead["Description"] == "Created by Heppu; the name is not known yet."


def test_on_missing_lead_creates_lead(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    existing, new = call_events(2, salesforce.clock)
    add_contact(sandbox, Email=email_address(0))
    salesforce.deliver_all("log_call", [existing, new], {"on_missing": "lead"})

    [lead] = sandbox.salesforce.leads
    assert (lead["LastName"], lead["Company"], lead["Phone"]) == ("1", "Lindqvist Cycles", phone_number(1))
    assert [task["WhoId"][:3] for task in sandbox.salesforce.tasks] == ["003", "00Q"]


def test_on_missing_skip_logs_task_without_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call", params={"on_missing": "skip"})
    assert (sandbox.salesforce.contacts, sandbox.salesforce.tasks[0]["WhoId"]) == ([], None)
    salesforce.requests()
    salesforce.deliver("log_call", params={"on_missing": "skip"})
    assert salesforce.requests() == [f"PATCH {UPSERT}"]


def test_contact_missing_from_search_index_is_not_created_twice(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.fault("salesforce", lag=300)
    sandbox.fault("salesforce", path=COLLECTION, method="POST", drop="after")
    source_event = phone_only_event(salesforce)
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("log_call", source_event)
    salesforce.deliver("log_call", source_event)

    [lead] = sandbox.salesforce.leads
    assert sandbox.salesforce.tasks[0]["WhoId"] == lead.id


def test_duplicate_rule_names_existing_contact_that_is_used(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    lead = add_lead(sandbox, Email="maya.lindqvist@example.com")
    sandbox.salesforce.set_duplicate_rule("block")
    empty = {"totalSize": 0, "done": True, "records": []}
    sandbox.fault("salesforce", path=f"{DATA}/query/", body=empty, times=2)
    salesforce.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["WhoId"] == lead


def test_duplicate_alert_without_record_is_overridden(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    error = {"statusCode": "DUPLICATES_DETECTED", "message": "Use one of these records?", "fields": []}
    sandbox.fault("salesforce", path=COLLECTION, method="POST", body=[{"success": False, "errors": [error]}])
    salesforce.deliver("log_call")

    [lead] = sandbox.salesforce.leads
    assert sandbox.salesforce.tasks[0]["WhoId"] == lead.id
    [request] = [request for request in sandbox.requests if request.path == f"{DATA}/sobjects/Lead"]
    assert request.headers["sforce-duplicate-rule-header"] == "allowSave=true"


# ---------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("drop", ["before", "after"])
def test_retry_after_lost_response_creates_one_task(
    salesforce: CrmConnection, sandbox: RunningSandbox, drop: Any
) -> None:
    source_event = event(clock=salesforce.clock)
    sandbox.fault("salesforce", path=UPSERT, drop=drop)
    with pytest.raises(OutcomeUnknown) as caught:
        salesforce.deliver("log_call", source_event)
    assert caught.value.reason == "network"
    result = salesforce.deliver("log_call", source_event, attempt=2)
    assert [task.id for task in sandbox.salesforce.tasks] == [result.id]
    assert len(sandbox.salesforce.leads) == 1


def test_batch_returns_result_per_record(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    events = call_events(4, salesforce.clock)
    for number in range(4):
        contact = add_contact(sandbox, Email=email_address(number))
        if number == 1:
            sandbox.salesforce.lock_record(contact)
    sandbox.salesforce.add_rule(
        "Task", lambda task: "No calls of Conv 2, please" if task["Conversation_Id__c"] == "conv_2" else None
    )
    first, locked, rejected, last = salesforce.deliver_all("log_call", events)

    assert isinstance(first, Success)
    assert isinstance(last, Success)
    assert type(locked) is TransientError
    assert (locked.retry_after, str(locked)) == (
        timedelta(seconds=3),
        "Salesforce answered UNABLE_TO_LOCK_ROW",
    )
    assert isinstance(rejected, PermanentError)
    assert str(rejected) == "a validation rule of the org rejects the record: No calls of Conv 2, please"
    assert len(sandbox.salesforce.tasks) == 2
    assert isinstance(salesforce.deliver_all("log_call", [events[1]])[0], Success)


def test_concurrent_writes_of_one_conversation_create_one_task(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    source_event = event(clock=salesforce.clock)
    result = salesforce.deliver("log_call", source_event)
    error = {"statusCode": "DUPLICATE_VALUE", "message": "duplicate value found", "fields": []}
    sandbox.fault("salesforce", path=UPSERT, body=[{"success": False, "errors": [error]}])
    assert salesforce.deliver("log_call", source_event).id == result.id


@pytest.mark.parametrize(
    ("fault", "error_type", "reason"),
    [
        ({"status": 500, "body": "<html>down</html>"}, OutcomeUnknown, "server_error"),
        ({"status": 503}, OutcomeUnknown, "server_error"),
        ({"status": 200, "body": "<html>log in</html>"}, OutcomeUnknown, "network"),
        ({"status": 200, "body": []}, OutcomeUnknown, "server_error"),
        ({"status": 200, "body": [{"success": False, "errors": []}]}, OutcomeUnknown, "server_error"),
        ({"status": 429, "retry_after": 7}, RateLimited, "rate_limited"),
        ({"quota": 0}, QuotaExhausted, "quota"),
        (
            {"status": 400, "body": [{"errorCode": "QUERY_TIMEOUT", "message": "x"}]},
            OutcomeUnknown,
            "server_error",
        ),
        (
            {"status": 400, "body": [{"errorCode": "UNABLE_TO_LOCK_ROW", "message": "x"}]},
            TransientError,
            "server_error",
        ),
        (
            {"status": 400, "body": [{"errorCode": "INVALID_FIELD", "message": "No such column Foo"}]},
            PermanentError,
            "rejected",
        ),
        (
            {"status": 403, "body": [{"errorCode": "INSUFFICIENT_ACCESS", "message": "x"}]},
            AccountError,
            "account",
        ),
        (
            {
                "status": 403,
                "body": [
                    {"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentRequests Limit exceeded."}
                ],
            },
            RateLimited,
            "rate_limited",
        ),
    ],
)
def test_error_response_is_mapped_by_code(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    fault: dict[str, Any],
    error_type: type[DeliveryError],
    reason: str,
) -> None:
    sandbox.fault("salesforce", path=UPSERT, **fault)
    with pytest.raises(DeliveryError) as caught:
        salesforce.deliver("log_call")
    assert (type(caught.value), caught.value.reason) == (error_type, reason)


@pytest.mark.parametrize(
    ("codes", "error_type"),
    [
        ("SERVER_UNAVAILABLE REQUEST_RUNNING_TOO_LONG UNKNOWN_EXCEPTION", OutcomeUnknown),
        ("API_DISABLED_FOR_ORG API_CURRENTLY_DISABLED", AuthenticationError),
        # DUPLICATE_EXTERNAL_ID: several Tasks have the same key.
        ("DUPLICATE_EXTERNAL_ID INVALID_TYPE MALFORMED_ID", PermanentError),
        ("REQUIRED_FIELD_MISSING STRING_TOO_LONG INVALID_EMAIL_ADDRESS", PermanentError),
    ],
)
def test_error_of_record_in_collection_is_mapped_by_code(
    salesforce: CrmConnection, sandbox: RunningSandbox, codes: str, error_type: type[DeliveryError]
) -> None:
    for code in codes.split():
        error = {"statusCode": code, "message": f"about {PHONE}", "fields": ["Subject"]}
        sandbox.fault("salesforce", path=UPSERT, body=[{"success": False, "errors": [error]}])
        with pytest.raises(DeliveryError) as caught:
            salesforce.deliver("log_call")
        assert type(caught.value) is error_type
        assert str(caught.value) == f"Salesforce answered {code} (Subject)"


def test_error_message_of_salesforce_is_not_repeated(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    [result] = salesforce.deliver_all(
        "log_call", [event(clock=salesforce.clock)], {"properties": {"Nope__c": PHONE}}
    )
    assert str(result) == (
        "a Task has no field `Nope__c` that this user can read: use the API name, or grant access to the field"
    )
    assert sandbox.salesforce.tasks == []
    sandbox.salesforce.add("Lead", LastName="Lindqvist", Company="Cycles", Phone=PHONE)
    source = event(changes={"metadata.contactPhone": PHONE}, clock=salesforce.clock)
    [result] = salesforce.deliver_all("update_lead", [source], {"status": "maya@example.com"})
    assert str(result) == "Salesforce answered INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST (Status)"


def test_hanging_request_ends_at_deadline_without_retry(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.fault("salesforce", hang=True, times=5)
    with pytest.raises(OutcomeUnknown) as caught:
        salesforce.deliver("log_call", seconds=0.5)
    assert caught.value.reason == "timeout"
    assert len(salesforce.requests()) == 1


def _contact(number: int, **more: Any) -> dict[str, Any]:
    return {
        "metadata.contactPhone": phone_number(number),
        "metadata.contactEmail": email_address(number),
        "metadata.contactName": f"Person {number}",
        **more,
    }
