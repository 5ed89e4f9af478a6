"""Calls and chats in Salesforce, through the real SDK over real HTTP, to an org as strict as the real one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.connector import Success
from bridge.errors import (
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
from tests.integration.crm import Account, address, calls, phone

PERSON = "+12125550123"
DATA = "/services/data/v66.0"
UPSERT = f"{DATA}/composite/sobjects/Task/Conversation_Id__c"
COLLECTION = f"{DATA}/composite/sobjects"


@pytest.fixture
def salesforce(sandbox: RunningSandbox) -> Iterator[Account]:
    """An org to which the connection is already logged in."""
    account = Account("salesforce", sandbox)
    account.connected.client.closed_status("Task")
    sandbox.clear_requests()
    yield account
    account.close()


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Contact", **({"LastName": "Lindqvist"} | values)).id


def add_lead(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Lead", **({"LastName": "Lindqvist", "Company": "Cycles"} | values)).id


def by_phone(account: Account, **changes: Any) -> Any:
    return event(changes={"metadata.contactEmail": None, **changes}, clock=account.clock)


# ------------------------------------------------------------------------------------- what is written


def test_a_call_is_a_closed_task_of_the_contact(salesforce: Account, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, Email="Maya.Lindqvist@example.com")
    about = event(clock=salesforce.clock)
    sent = salesforce.deliver("log_call", about)

    [task] = sandbox.salesforce.tasks
    assert sent.id == task.id
    wanted = {
        "TaskSubtype": "Call",
        "Status": "Completed",
        "Subject": "Inbound call with Nora at the front desk: completed",
        "CallDurationInSeconds": 125,
        "CallType": "Inbound",
        "CallDisposition": "Connected",
        "CallObject": "CA00000000000000000000000000000001",
        "WhoId": contact,
        "Conversation_Id__c": about.conversation.id,
    }
    assert {name: task[name] for name in wanted} == wanted
    assert task["Description"] == (
        "Asked when the repaired bicycle can be picked up. Told: Thursday from nine. Wants a receipt by mail.\n"
        f"From: {PERSON}\nTo: +12125550100\nOutcome: resolved\nConversation: {about.conversation.id}"
    )
    assert task["IsClosed"] is True


@pytest.mark.parametrize(
    ("name", "disposition", "seconds"),
    [("call.busy", "Busy", 0), ("call.no-answer", "No answer", 30), ("call.failed", "Failed", 0)],
)
def test_a_call_that_reached_nobody_is_the_same_task(
    salesforce: Account, sandbox: RunningSandbox, name: str, disposition: str, seconds: int
) -> None:
    salesforce.deliver("log_call", event(name, clock=salesforce.clock))

    [task] = sandbox.salesforce.tasks
    assert (task["TaskSubtype"], task["CallType"]) == ("Call", "Outbound")
    assert (task["CallDisposition"], task["CallDurationInSeconds"]) == (disposition, seconds)


def test_a_chat_is_a_task_without_a_subtype_of_its_own(salesforce: Account, sandbox: RunningSandbox) -> None:
    salesforce.deliver("log_chat", event("chat.resolved", clock=salesforce.clock))

    [request] = [one for one in sandbox.requests if one.path == UPSERT]
    assert "TaskSubtype" not in request.body["records"][0]
    [task] = sandbox.salesforce.tasks
    assert (task["Subject"], task["Status"]) == ("Chat: Harbour help desk", "Completed")
    assert "Messages: 12\nRating: 5\nOutcome: resolved" in task["Description"]


def test_a_chat_with_somebody_without_any_address_is_a_task_of_nobody(
    salesforce: Account, sandbox: RunningSandbox
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
def test_the_day_of_a_call_is_the_persons_own(
    salesforce: Account, sandbox: RunningSandbox, instant: str, zone: str, day: str
) -> None:
    salesforce.clock.set(datetime.fromisoformat(instant).astimezone(UTC))
    salesforce.deliver("log_call", event(changes={"callMetadata.timezone": zone}, clock=salesforce.clock))
    assert sandbox.salesforce.tasks[0]["ActivityDate"] == day


def test_without_the_persons_zone_the_day_is_that_of_the_connections_zone(sandbox: RunningSandbox) -> None:
    account = Account("salesforce", sandbox, {"SALESFORCE_TIME_ZONE": "Asia/Tokyo"})
    account.clock.set(datetime(2026, 3, 2, 16, tzinfo=UTC))
    account.deliver("log_call", event(clock=account.clock))
    assert sandbox.salesforce.tasks[0]["ActivityDate"] == "2026-03-03"
    account.close()


def test_texts_that_are_too_long_are_cut_and_not_refused(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    about = event(
        changes={"summary": "x" * 40_000, "outcome": "y" * 300, "agentName": "z" * 300, "status": "odd"},
        clock=salesforce.clock,
    )
    salesforce.deliver("log_call", about)

    [task] = sandbox.salesforce.tasks
    assert len(task["Subject"]) == len(task["CallDisposition"]) == 255
    assert len(task["Description"]) == 32_000
    assert task["Description"].endswith(f"Conversation: {about.conversation.id}")


def test_the_closed_status_is_the_orgs_own_word(sandbox: RunningSandbox) -> None:
    sandbox.salesforce.set_statuses("Task", {"Offen": False, "Erledigt": True, "Abgelegt": True})
    account = Account("salesforce", sandbox)
    account.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["Status"] == "Erledigt"
    account.close()


def test_where_the_statuses_are_hidden_salesforces_own_word_is_used(sandbox: RunningSandbox) -> None:
    account = Account("salesforce", sandbox)
    refusal = [{"errorCode": "INVALID_TYPE", "message": "sObject type 'TaskStatus' is not supported."}]
    sandbox.fault("salesforce", path=f"{DATA}/query/", status=400, body=refusal)
    account.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["Status"] == "Completed"
    account.close()


def test_a_task_gets_the_owner_of_the_rule_or_of_the_connection(sandbox: RunningSandbox) -> None:
    account = Account("salesforce", sandbox, {"SALESFORCE_OWNER": "0055g00000AbCdF"})
    first, second = calls(2, account.clock)
    account.deliver("log_call", first)
    account.deliver("log_call", second, {"owner": "0055g00000AbCdE"})
    assert [task["OwnerId"][:15] for task in sandbox.salesforce.tasks] == [
        "0055g00000AbCdF",
        "0055g00000AbCdE",
    ]
    account.close()


def test_what_it_belongs_to_is_left_out_for_a_lead(salesforce: Account, sandbox: RunningSandbox) -> None:
    case = sandbox.salesforce.add("Case", Subject="Repair").id
    add_contact(sandbox, Phone=phone(0))
    lead = add_lead(sandbox, Phone=phone(1))
    events = calls(2, salesforce.clock)
    salesforce.deliver_all("log_call", events, {"what": case})

    assert [(task["WhatId"], task["WhoId"] == lead) for task in sandbox.salesforce.tasks] == [
        (case, False),
        (None, True),
    ]


# --------------------------------------------------------------------------------- once, and how often


def test_a_known_contact_costs_one_request(salesforce: Account) -> None:
    salesforce.deliver("log_call", calls(1, salesforce.clock)[0])
    salesforce.requests()
    salesforce.deliver("log_call", event(changes=_contact(0), clock=salesforce.clock))
    assert salesforce.requests() == [f"PATCH {UPSERT}"]


def test_a_backlog_of_ten_thousand_calls_of_known_contacts_costs_fifty_requests(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    for number in range(200):
        contact = add_contact(sandbox, Email=address(number), Phone=phone(number))
        salesforce.memory.ids[f"email:{address(number)}"] = contact
        salesforce.memory.ids[f"phone:{phone(number)}"] = contact
    for batch in range(50):
        events = [
            event(changes=_contact(number, conversationId=f"conv_{batch}_{number}"), clock=salesforce.clock)
            for number in range(200)
        ]
        answers = salesforce.deliver_all("log_call", events)
        assert all(isinstance(answer, Success) for answer in answers)
    assert len(sandbox.salesforce.tasks) == 10_000
    assert len(salesforce.requests()) == 50


def test_two_hundred_people_that_only_salesforce_knows_are_found_in_few_requests(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    contacts = [
        add_contact(sandbox, Phone=f"(212) {phone(number)[5:8]}-{phone(number)[8:]}") for number in range(200)
    ]
    events = [
        event(changes=_contact(number) | {"metadata.contactEmail": None}, clock=salesforce.clock)
        for number in range(200)
    ]
    answers = salesforce.deliver_all("log_call", events)

    assert all(isinstance(answer, Success) for answer in answers)
    assert [task["WhoId"] for task in sandbox.salesforce.tasks] == contacts
    assert salesforce.requests() == [f"GET {DATA}/search/"] * 4 + [f"PATCH {UPSERT}"]


def test_a_later_event_of_the_conversation_updates_the_task(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    first = event("chat.abandoned", clock=salesforce.clock)
    sent = salesforce.deliver("log_chat", first)
    assert sandbox.salesforce.tasks[0]["WhoId"] is None
    later = event("chat.resolved", {"conversationId": first.conversation.id}, clock=salesforce.clock)
    again = salesforce.deliver("log_chat", later, existing_id=sent.id)

    [task] = sandbox.salesforce.tasks
    assert again.id == task.id == sent.id
    assert "the password was reset" in task["Description"]
    assert task["WhoId"] == sandbox.salesforce.contacts[0].id


def test_a_call_can_be_updated_although_its_subtype_cannot(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    about = event(clock=salesforce.clock)
    sent = salesforce.deliver("log_call", about)
    for facts in ({"existing_id": sent.id}, {}):
        again = salesforce.deliver("log_call", about, {"title": "Again"}, **facts)
        assert (again.id, again.detail) == (sent.id, "updated")
    [task] = sandbox.salesforce.tasks
    assert (task["Subject"], task["TaskSubtype"]) == ("Again", "Call")


def test_a_task_that_a_person_deleted_is_made_again(salesforce: Account, sandbox: RunningSandbox) -> None:
    about = event(clock=salesforce.clock)
    sent = salesforce.deliver("log_call", about)
    sandbox.salesforce.delete("Task", str(sent.id))
    again = salesforce.deliver("log_call", about, existing_id=sent.id)

    [task] = sandbox.salesforce.tasks
    assert again.id == task.id != sent.id
    assert task["TaskSubtype"] == "Call"


def test_an_id_with_odd_characters_is_one_record_and_no_other_path(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    about = event(changes={"conversationId": "../Account/001 o'clock %2F ü"}, clock=salesforce.clock)
    sent = salesforce.deliver("log_call", about)
    assert salesforce.deliver("log_call", about).id == sent.id
    assert sandbox.salesforce.tasks[0]["Conversation_Id__c"] == about.conversation.id


# ----------------------------------------------------------------------------- an org without our field


@pytest.fixture
def bare(salesforce: Account, sandbox: RunningSandbox) -> Account:
    sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    return salesforce


def test_without_our_field_the_conversation_stands_in_call_object(
    bare: Account, sandbox: RunningSandbox
) -> None:
    about = event(clock=bare.clock)
    sent = bare.deliver("log_call", about)
    again = bare.deliver("log_call", about, {"title": "Again"}, attempt=2)

    [task] = sandbox.salesforce.tasks
    assert again.id == sent.id == task.id
    assert (task["CallObject"], task["Subject"]) == (about.conversation.id, "Again")


def test_without_our_field_a_lost_answer_makes_no_second_task(bare: Account, sandbox: RunningSandbox) -> None:
    about = event(changes={"conversationId": "conv_o'clock\\"}, clock=bare.clock)
    bare.deliver("log_call", calls(1, bare.clock)[0])
    sandbox.fault("salesforce", path=COLLECTION, method="POST", drop="after", times=2)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            bare.deliver("log_call", about)
    bare.deliver("log_call", about, attempt=3)
    assert len(sandbox.salesforce.tasks) == 2
    assert len(sandbox.salesforce.contacts) == 2


def test_without_our_field_a_batch_is_two_requests(bare: Account, sandbox: RunningSandbox) -> None:
    events = calls(40, bare.clock)
    bare.deliver_all("log_call", events[:20])
    bare.requests()
    for number in range(20, 40):
        contact = add_contact(sandbox, Phone=phone(number))
        bare.memory.ids[f"email:{address(number)}"] = bare.memory.ids[f"phone:{phone(number)}"] = contact
    answers = bare.deliver_all("log_call", events[20:])
    assert all(isinstance(answer, Success) for answer in answers)
    assert bare.requests() == [f"GET {DATA}/query/", f"POST {COLLECTION}"]


def test_a_field_that_is_made_later_is_used_soon_and_doubles_nothing(
    bare: Account, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge.sandbox.salesforce.schema import Field

    about = event(clock=bare.clock)
    sent = bare.deliver("log_call", about)
    sandbox.salesforce.add_field("Task", Field("Conversation_Id__c", unique=True, external_id=True))
    bare.connected.client._field_missing_until = 0.0
    bare.deliver("log_call", about, existing_id=sent.id)
    other = calls(1, bare.clock)[0]
    bare.deliver("log_call", other)
    assert [task["Conversation_Id__c"] for task in sandbox.salesforce.tasks] == [None, other.conversation.id]


# ------------------------------------------------------------------------------------ finding the person


@pytest.mark.parametrize("typed", ["(212) 555-0123", "212-555-0123", "+1 212 555 0123", "2125550123"])
@pytest.mark.parametrize("field", ["Phone", "MobilePhone", "HomePhone"])
def test_a_number_is_found_however_it_was_typed(
    salesforce: Account, sandbox: RunningSandbox, typed: str, field: str
) -> None:
    contact = add_contact(sandbox, **{field: typed})
    salesforce.deliver("log_call", by_phone(salesforce))
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact


def test_the_same_digits_in_another_country_are_another_person(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    stranger = add_contact(sandbox, Phone="+44 212 555 0123")
    salesforce.deliver("log_call", by_phone(salesforce))
    assert sandbox.salesforce.tasks[0]["WhoId"] != stranger


def test_an_email_with_a_quote_asks_for_nobody_else(salesforce: Account, sandbox: RunningSandbox) -> None:
    contact = add_contact(sandbox, Email="o'brien@example.com")
    add_contact(sandbox, Email="other@example.com")
    email = "o'brien@example.com"
    salesforce.deliver("log_call", event(changes={"metadata.contactEmail": email}, clock=salesforce.clock))
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact


def test_an_open_lead_is_found_when_there_is_no_contact(salesforce: Account, sandbox: RunningSandbox) -> None:
    lead = add_lead(sandbox, Email="maya.lindqvist@example.com")
    other = add_lead(sandbox, Phone="212 555 0199")
    salesforce.deliver("log_call")
    salesforce.deliver("log_call", by_phone(salesforce, **{"metadata.contactPhone": "+12125550199"}))
    assert [task["WhoId"] for task in sandbox.salesforce.tasks] == [lead, other]
    assert sandbox.salesforce.contacts == []


def test_a_contact_comes_before_a_lead_and_a_converted_lead_not_at_all(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, Phone=PERSON)
    salesforce.clock.advance(days=1)
    add_lead(sandbox, Phone=PERSON)
    converted = add_lead(sandbox, Phone=phone(1))
    sandbox.salesforce.convert(converted, contact)
    salesforce.deliver("log_call", by_phone(salesforce))
    salesforce.deliver("log_call", by_phone(salesforce, **{"metadata.contactPhone": phone(1)}))

    first, second = sandbox.salesforce.tasks
    assert first["WhoId"] == contact
    assert second["WhoId"] not in (converted, contact)


def test_a_lead_that_was_converted_since_leads_to_its_contact(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    lead = add_lead(sandbox, Phone=PERSON, Email="maya.lindqvist@example.com")
    salesforce.deliver("log_call")
    contact = add_contact(sandbox, Phone=PERSON, Email="maya.lindqvist@example.com")
    sandbox.salesforce.convert(lead, contact)
    salesforce.deliver("log_call")

    assert [task["WhoId"] for task in sandbox.salesforce.tasks] == [lead, contact]


@pytest.mark.parametrize("fate", ["deleted", "merged"])
def test_a_contact_that_is_gone_is_forgotten_and_the_person_found_again(
    salesforce: Account, sandbox: RunningSandbox, fate: str
) -> None:
    events = calls(3, salesforce.clock)
    salesforce.deliver_all("log_call", events)
    gone = salesforce.memory.ids[f"phone:{phone(1)}"]
    heir = add_contact(sandbox, Email=address(1))
    if fate == "deleted":
        sandbox.salesforce.delete("Contact", gone)
    else:
        sandbox.salesforce.merge("Contact", heir, gone)
    again = [
        event(changes=_contact(number, conversationId=f"conv_b{number}"), clock=salesforce.clock)
        for number in range(3)
    ]
    answers = salesforce.deliver_all("log_call", again)

    assert all(isinstance(answer, Success) for answer in answers)
    tasks = {task["Conversation_Id__c"]: task["WhoId"] for task in sandbox.salesforce.tasks}
    assert len(tasks) == 6
    assert tasks["conv_b1"] == heir


def test_of_several_contacts_the_most_recently_active_is_taken_and_it_says_so(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    newest = add_contact(sandbox, Phone=PERSON)
    add_contact(sandbox, MobilePhone="212 555 0123")
    salesforce.clock.advance(days=1)
    kind = sandbox.salesforce.crm.types["Contact"]
    active = sandbox.salesforce.contacts[0]
    sandbox.salesforce.crm.update(kind, active, {"Title": "Owner"}, salesforce.clock.now())
    sent = salesforce.deliver("log_call", by_phone(salesforce))

    assert sandbox.salesforce.tasks[0]["WhoId"] == newest
    assert sent.detail == "2 records have this phone, the most recently active was taken"
    [answer] = salesforce.deliver_all(
        "log_call",
        [by_phone(salesforce, **{"metadata.contactPhone": PERSON})],
        {"on_multiple": "review"},
        contact_cache=_Empty(),
    )
    assert isinstance(answer, LookupInconclusive)


def test_a_caller_without_a_name_gets_the_number_for_one_and_a_remark(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    salesforce.deliver(
        "log_call", by_phone(salesforce, **{"metadata.contactName": None, "callMetadata.customer": None})
    )

    [contact] = sandbox.salesforce.contacts
    assert (contact["LastName"], contact["Phone"]) == (PERSON, PERSON)
    assert contact["Description"] == "Created by Heppu; the name is not known yet."


def test_a_stranger_may_become_a_lead(salesforce: Account, sandbox: RunningSandbox) -> None:
    known, new = calls(2, salesforce.clock)
    add_contact(sandbox, Email=address(0))
    salesforce.deliver_all("log_call", [known, new], {"on_missing": "lead"})

    [lead] = sandbox.salesforce.leads
    assert (lead["LastName"], lead["Company"], lead["Phone"]) == ("1", "Lindqvist Cycles", phone(1))
    assert [task["WhoId"][:3] for task in sandbox.salesforce.tasks] == ["003", "00Q"]


def test_strangers_may_be_left_alone(salesforce: Account, sandbox: RunningSandbox) -> None:
    salesforce.deliver("log_call", params={"on_missing": "skip"})
    assert (sandbox.salesforce.contacts, sandbox.salesforce.tasks[0]["WhoId"]) == ([], None)
    salesforce.requests()
    salesforce.deliver("log_call", params={"on_missing": "skip"})
    assert salesforce.requests() == [f"PATCH {UPSERT}"]


def test_a_new_contact_that_the_index_does_not_know_yet_is_not_made_twice(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    sandbox.fault("salesforce", lag=300)
    sandbox.fault("salesforce", path=COLLECTION, method="POST", drop="after")
    about = by_phone(salesforce)
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("log_call", about)
    salesforce.deliver("log_call", about)

    [contact] = sandbox.salesforce.contacts
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact.id


def test_a_duplicate_rule_leads_to_the_record_that_it_names(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    contact = add_contact(sandbox, Email="maya.lindqvist@example.com")
    sandbox.salesforce.set_duplicate_rule("block")
    empty = {"totalSize": 0, "done": True, "records": []}
    sandbox.fault("salesforce", path=f"{DATA}/query/", body=empty)
    salesforce.deliver("log_call")
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact


def test_a_duplicate_rule_that_names_nobody_is_passed_when_it_only_warns(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    error = {"statusCode": "DUPLICATES_DETECTED", "message": "Use one of these records?", "fields": []}
    sandbox.fault("salesforce", path=COLLECTION, method="POST", body=[{"success": False, "errors": [error]}])
    salesforce.deliver("log_call")

    [contact] = sandbox.salesforce.contacts
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact.id
    [request] = [one for one in sandbox.requests if one.path == f"{DATA}/sobjects/Contact"]
    assert request.headers["sforce-duplicate-rule-header"] == "allowSave=true"


# --------------------------------------------------------------------------------- when things go wrong


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_lost_answer_and_the_retry_after_it_make_one_task(
    salesforce: Account, sandbox: RunningSandbox, drop: Any
) -> None:
    about = event(clock=salesforce.clock)
    sandbox.fault("salesforce", path=UPSERT, drop=drop)
    with pytest.raises(OutcomeUnknown) as caught:
        salesforce.deliver("log_call", about)
    assert caught.value.reason == "network"
    sent = salesforce.deliver("log_call", about, attempt=2)
    assert [task.id for task in sandbox.salesforce.tasks] == [sent.id]
    assert len(sandbox.salesforce.contacts) == 1


def test_records_of_a_batch_answer_each_for_itself(salesforce: Account, sandbox: RunningSandbox) -> None:
    events = calls(4, salesforce.clock)
    for number in range(4):
        contact = add_contact(sandbox, Email=address(number))
        if number == 1:
            sandbox.salesforce.lock_record(contact)
    sandbox.salesforce.add_rule(
        "Task", lambda task: "No calls of Conv 2, please" if task["Conversation_Id__c"] == "conv_2" else None
    )
    first, locked, refused, last = salesforce.deliver_all("log_call", events)

    assert isinstance(first, Success)
    assert isinstance(last, Success)
    assert type(locked) is TransientError
    assert (locked.retry_after, str(locked)) == (
        timedelta(seconds=3),
        "Salesforce answered UNABLE_TO_LOCK_ROW",
    )
    assert isinstance(refused, PermanentError)
    assert str(refused) == "a validation rule of the org refuses it: No calls of Conv 2, please"
    assert len(sandbox.salesforce.tasks) == 2
    assert isinstance(salesforce.deliver_all("log_call", [events[1]])[0], Success)


def test_a_race_for_one_conversation_ends_in_one_task(salesforce: Account, sandbox: RunningSandbox) -> None:
    about = event(clock=salesforce.clock)
    sent = salesforce.deliver("log_call", about)
    error = {"statusCode": "DUPLICATE_VALUE", "message": "duplicate value found", "fields": []}
    sandbox.fault("salesforce", path=UPSERT, body=[{"success": False, "errors": [error]}])
    assert salesforce.deliver("log_call", about).id == sent.id


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
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
            PermanentError,
            "rejected",
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
def test_the_code_and_not_the_status_decides_what_comes_next(
    salesforce: Account,
    sandbox: RunningSandbox,
    fault: dict[str, Any],
    kind: type[DeliveryError],
    reason: str,
) -> None:
    sandbox.fault("salesforce", path=UPSERT, **fault)
    with pytest.raises(DeliveryError) as caught:
        salesforce.deliver("log_call")
    assert (type(caught.value), caught.value.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ("SERVER_UNAVAILABLE REQUEST_RUNNING_TOO_LONG UNKNOWN_EXCEPTION", OutcomeUnknown),
        ("API_DISABLED_FOR_ORG API_CURRENTLY_DISABLED", AuthenticationError),
        (
            "DUPLICATE_EXTERNAL_ID INVALID_TYPE MALFORMED_ID",
            PermanentError,
        ),  # the first: several Tasks have the key
        ("REQUIRED_FIELD_MISSING STRING_TOO_LONG INVALID_EMAIL_ADDRESS", PermanentError),
    ],
)
def test_a_record_refused_in_a_collection_means_what_its_own_code_says(
    salesforce: Account, sandbox: RunningSandbox, codes: str, kind: type[DeliveryError]
) -> None:
    for code in codes.split():
        error = {"statusCode": code, "message": f"about {PERSON}", "fields": ["Subject"]}
        sandbox.fault("salesforce", path=UPSERT, body=[{"success": False, "errors": [error]}])
        with pytest.raises(DeliveryError) as caught:
            salesforce.deliver("log_call")
        assert type(caught.value) is kind
        assert str(caught.value) == f"Salesforce answered {code} (Subject)"


def test_what_salesforce_says_about_a_person_is_not_repeated(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    [answer] = salesforce.deliver_all(
        "log_call", [event(clock=salesforce.clock)], {"properties": {"Nope__c": PERSON}}
    )
    assert str(answer) == "Salesforce answered INVALID_FIELD"
    [answer] = salesforce.deliver_all(
        "log_call", [event(clock=salesforce.clock)], {"properties": {"Priority": "maya@example.com"}}
    )
    assert str(answer) == "Salesforce answered INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST (Priority)"
    assert sandbox.salesforce.tasks == []


def test_a_partner_that_hangs_is_asked_once_and_left_in_time(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    sandbox.fault("salesforce", hang=True, times=5)
    with pytest.raises(OutcomeUnknown) as caught:
        salesforce.deliver("log_call", seconds=0.5)
    assert caught.value.reason == "timeout"
    assert len(salesforce.requests()) == 1


class _Empty:
    def get(self, keys: Any) -> dict[str, str]:
        return {}

    def remember(self, ids: Any, ttl: Any = None) -> None:
        pass

    def forget(self, keys: Any) -> None:
        pass


def _contact(number: int, **more: Any) -> dict[str, Any]:
    return {
        "metadata.contactPhone": phone(number),
        "metadata.contactEmail": address(number),
        "metadata.contactName": f"Person {number}",
        **more,
    }
