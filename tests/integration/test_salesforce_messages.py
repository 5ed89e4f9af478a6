"""Sent messages as closed Tasks of Salesforce: once per message, in batches, under `on_success`."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.connector import Success
from bridge.connector.discovery import Registry
from bridge.errors import OutcomeUnknown
from bridge.rules.load import load
from bridge.rules.route import follow_up
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events, email_address

PHONE = "+12125550123"
EMAIL = "maya.lindqvist@example.com"
UPSERT = "*/Task/Conversation_Id__c"
TEXT = {
    "body": "Your order has shipped.\nReply STOP to opt out.",
    "channel": "sms",
    "sent_to": PHONE,
    "sent_at": "2026-03-02T23:30:00Z",
}


RULES = """
version: 1
rules:
  - name: text-when-busy
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "We tried to call you."}
    on_success:
      - use: salesforce.log_message
"""


def fields(record: Any, *names: str) -> tuple[Any, ...]:
    return tuple(record[name] for name in names)


def test_text_message_is_a_closed_task_of_the_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Phone=PHONE).id
    changes = {"metadata.contactPhone": PHONE, "callMetadata.timezone": "America/New_York"}
    source = event("call.busy", changes, clock=salesforce.clock)
    result = salesforce.deliver("log_message", source, TEXT)

    [task] = sandbox.salesforce.tasks
    assert result.id == task.id
    assert fields(task, "WhoId", "Status", "TaskSubtype", "Type") == (contact, "Completed", "Task", None)
    assert fields(task, "Subject", "ActivityDate") == ("Text message: Your order has shipped.", "2026-03-02")
    assert task["Description"].startswith(TEXT["body"])
    assert f"To: {PHONE}\nSent: 2026-03-02 18:30 (America/New_York)\nConversation: " in task["Description"]


@pytest.mark.parametrize(
    ("params", "subtype", "task_type", "subject"),
    [
        ({"channel": "email"}, "Email", "Email", "Email: Your order has shipped."),
        ({"channel": "email", "subject": "Order 7"}, "Email", "Email", "Email: Order 7"),
        ({"channel": "whatsapp"}, "Task", None, "WhatsApp message: Your order has shipped."),
        ({"message_type": "Other"}, "Task", "Other", "Text message: Your order has shipped."),
        ({"message_type": "Fax"}, "Task", None, "Text message: Your order has shipped."),
    ],
)
def test_subtype_type_and_subject_depend_on_the_channel(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    params: dict[str, str],
    subtype: str,
    task_type: str | None,
    subject: str,
) -> None:
    salesforce.deliver("log_message", params=TEXT | params)
    [task] = sandbox.salesforce.tasks
    assert fields(task, "TaskSubtype", "Type", "Subject") == (subtype, task_type, subject)


def test_messages_of_a_backlog_take_one_write(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    for number in range(40):
        sandbox.salesforce.add("Contact", LastName=f"Person {number}", Email=email_address(number))
    events = call_events(40, salesforce.clock)
    results = salesforce.deliver_all("log_message", events, TEXT)
    assert all(isinstance(result, Success) for result in results)
    assert len(sandbox.salesforce.tasks) == 40
    writes = [
        request for request in salesforce.requests() if request.startswith(("POST /services/data", "PATCH"))
    ]
    assert len([request for request in writes if "/Task/" in request]) == 1


@pytest.mark.parametrize("drop", ["before", "after"])
def test_lost_response_makes_no_second_task(
    salesforce: CrmConnection, sandbox: RunningSandbox, drop: Any
) -> None:
    source = event("call.busy", clock=salesforce.clock)
    params = TEXT | {"channel": "email"}
    sandbox.fault("salesforce", path=UPSERT, drop=drop)
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("log_message", source, params)
    result = salesforce.deliver("log_message", source, params, attempt=2)
    assert [task.id for task in sandbox.salesforce.tasks] == [result.id]


def test_call_and_message_of_one_conversation_are_two_tasks(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    source = event("call.busy", clock=salesforce.clock)
    salesforce.deliver("log_call", source)
    salesforce.deliver("log_message", source, TEXT)
    assert len(sandbox.salesforce.tasks) == 2
    assert len(sandbox.salesforce.leads) == 1


def test_long_message_is_cut_with_a_mark(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    salesforce.deliver("log_message", params=TEXT | {"body": "word " * 10_000})
    [task] = sandbox.salesforce.tasks
    assert len(task["Description"]) <= 32_000
    assert f"…\n\nTo: {PHONE}" in task["Description"]
    assert len(task["Subject"]) < 120


def test_defaults_are_those_of_the_message_that_was_sent(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    loaded = load(RULES, path="rules.yaml", registry=Registry())
    assert loaded.rules is not None, loaded.diagnostics
    source = event("call.busy", {"metadata.contactPhone": PHONE}, clock=salesforce.clock)
    delivery = {
        "id": "dlv_1",
        "rule": "text-when-busy",
        "action": "twilio.send_sms",
        "state": "succeeded",
        "channel": "sms",
        "recipient": PHONE,
        "params": {"body": "We tried to call you."},
        "sent_at": "2026-03-02T23:30:00Z",
    }
    [planned] = follow_up(source, loaded.rules, "text-when-busy", delivery, salesforce.clock.now())
    assert planned.render_error is None
    salesforce.deliver("log_message", source, planned.params)
    [task] = sandbox.salesforce.tasks
    assert fields(task, "Subject", "ActivityDate") == ("Text message: We tried to call you.", "2026-03-02")
    assert f"To: {PHONE}" in task["Description"]


def test_outside_on_success_the_text_is_required() -> None:
    outside = RULES[: RULES.index("    on_success")].replace(
        'twilio.send_sms\n        with: {body: "We tried to call you."}', "salesforce.log_message"
    )
    loaded = load(outside, path="rules.yaml", registry=Registry())
    assert [diagnostic.text for diagnostic in loaded.diagnostics][:1] == [
        "`salesforce.log_message` needs `body` here"
    ]
