"""Contacts in both CRMs, through the shipped rules, the store and the real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.bootstrap import Role, Service, build_service
from bridge.clock import Clock
from bridge.sandbox import RunningSandbox
from bridge.signing import read_event
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.possible_duplicates import list_possible_duplicates
from bridge.store.queries import list_events
from bridge.testing import event
from tests.acceptance.service_process import eventually

SHIPPED = Path(__file__).parents[2] / "rules.yaml"
UNFINISHED = ("pending", "running", "retrying")


@pytest.fixture
def service(tmp_path: Path, sandbox: RunningSandbox) -> Iterator[Service]:
    (tmp_path / "rules.yaml").write_text(SHIPPED.read_text("utf-8"), "utf-8")
    environ = {
        "HEPPU_WEBHOOK_SECRET": "whsec_of_the_contacts",
        "BRIDGE_RULES_FILE": str(tmp_path / "rules.yaml"),
        "BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db",
    }
    running = build_service(Role.WORKER, sandbox.environment | environ)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        running.close()


def send(service: Service, event_type: str, conversation: str, **contact: str) -> list[dict[str, Any]]:
    """Store an event with this contact, wait for its deliveries and return those to the CRMs."""
    changes: dict[str, Any] = {
        "conversationId": conversation,
        "callMetadata.customer": {},
        "metadata.contactPhone": contact.get("phone"),
        "metadata.contactEmail": contact.get("email"),
        "metadata.contactName": contact.get("name"),
    }
    body = dict(event(event_type, changes, clock=Clock()).body) | {"webhookId": f"whd_{conversation}"}
    raw = json.dumps(body).encode()
    database = service.database
    assert store_events(database, [IncomingEvent(read_event(raw, database.clock.now()), raw)]) == ["stored"]

    [stored] = [item for item in list_events(database).items if item["conversation_id"] == conversation]

    def deliveries() -> list[dict[str, Any]]:
        return list(list_deliveries(database, DeliveryFilter(event=stored["id"])).items)

    def finished() -> bool:
        states = [item["state"] for item in deliveries()]
        return bool(states) and not any(state in UNFINISHED for state in states)

    assert eventually(finished, 30.0)
    return [item for item in deliveries() if item["connection"] in ("hubspot", "salesforce")]


def test_calls_and_chat_of_one_person_are_one_contact_in_both_crms(
    service: Service, sandbox: RunningSandbox
) -> None:
    send(service, "call.completed", "conv_1", phone="+1 (212) 555-0123")
    send(
        service,
        "call.completed",
        "conv_2",
        phone="+12125550123",
        email="maya@example.com",
        name="Maya Lindqvist",
    )
    send(service, "chat.completed", "conv_3", email="Maya@Example.com", name="Maya Lindqvist")

    [contact] = sandbox.hubspot.contacts
    fields = ("firstname", "lastname", "email", "phone")
    assert [contact.properties[name] for name in fields] == [
        "Maya",
        "Lindqvist",
        "maya@example.com",
        "+12125550123",
    ]
    [record] = sandbox.salesforce.leads
    names = ("FirstName", "LastName", "Email", "Phone")
    assert [record[name] for name in names] == ["Maya", "Lindqvist", "maya@example.com", "+12125550123"]
    assert {task["WhoId"] for task in sandbox.salesforce.tasks} == {record.id}
    linked = [sandbox.hubspot.associated("calls", call.id, "contacts") for call in sandbox.hubspot.calls]
    assert linked == [[contact.id]] * 2


def test_pair_is_listed_with_the_delivery_that_shows_it(service: Service, sandbox: RunningSandbox) -> None:
    records = [
        sandbox.hubspot.add("contacts", phone="+12125550123").id,
        sandbox.hubspot.add("contacts", email="maya@example.com").id,
    ]
    deliveries = send(service, "call.completed", "conv_1", phone="+12125550123", email="maya@example.com")
    [delivery] = [item for item in deliveries if item["connection"] == "hubspot"]
    [pair] = list_possible_duplicates(service.database).items
    assert (pair["connection"], pair["delivery_id"]) == ("hubspot", delivery["id"])
    assert [pair["first_record"], pair["second_record"]] == records
    assert "possible duplicate" in delivery["detail"]


def test_call_with_withheld_number_is_logged_without_a_contact(
    service: Service, sandbox: RunningSandbox
) -> None:
    deliveries = send(service, "call.completed", "conv_1", phone="anonymous")
    assert [(item["state"], item["detail"]) for item in deliveries] == [
        ("succeeded", "without a contact: the caller withheld the number")
    ] * 2
    assert (len(sandbox.hubspot.calls), len(sandbox.salesforce.tasks)) == (1, 1)
    assert (sandbox.hubspot.contacts, sandbox.salesforce.leads) == ([], [])
