"""A HubSpot account as a service meets it: messages and tickets on the timeline, and a scope that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.service_process import ServiceProcess, eventually, free_port, running_service

RULES = """
version: 1
messaging: {quiet_hours: none}
rules:
  - name: text
    when: call.busy
    do: [{use: twilio.send_sms, with: {body: "Hi, we tried to reach you."}}]
    on_success: [{use: hubspot.log_message}]
  - name: ticket
    when: call.completed
    do:
      - use: hubspot.log_call
      - use: hubspot.create_ticket
"""
PHONE = "+12125550167"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Iterator[ServiceProcess]:
    folder: Path = tmp_path_factory.mktemp("hubspot_account")
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    with running_service(folder, sandbox.environment, BRIDGE_PORT=str(free_port())) as running:
        yield running


def send(service: ServiceProcess, event_type: str, conversation: str) -> None:
    body = refresh_sample(sample(event_type), datetime.now(UTC))
    body["metadata"] = {"contactPhone": PHONE}
    body["conversationId"] = conversation
    assert service.post(body).json() == {"received": True}


def states(service: ServiceProcess, action: str) -> list[Any]:
    items = service.api_items("deliveries?limit=200")
    return [(item["state"], item["reason"]) for item in items if item["action"] == action]


def pause_of(service: ServiceProcess, connection: str) -> str:
    """Return why a connection is paused, empty if it is not."""
    reasons = {item["name"]: item["pause_reason"] for item in service.api_items("connections")}
    return reasons.get(connection) or ""


def test_sent_text_appears_on_the_timeline_of_the_contact(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    send(service, "call.busy", "conv_busy")
    logged = eventually(lambda: sandbox.hubspot.objects("communications"))
    assert logged, service.log.read_text()[-2000:]
    assert logged[0].properties["hs_communication_body"] == "Hi, we tried to reach you."
    [contact] = sandbox.hubspot.contacts
    assert sandbox.hubspot.associated("communications", logged[0].id, "contacts") == [contact.id]


def test_missing_scope_pauses_the_connection_until_it_is_granted(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"tickets"}
    send(service, "call.completed", "conv_ticket")

    reason = eventually(lambda: pause_of(service, "hubspot"))
    assert "the HubSpot key lacks the scope tickets; add it in HubSpot under Development > Keys" in str(
        reason
    )
    assert sandbox.hubspot.tickets == []
    sandbox.hubspot.missing_scopes = set()
    assert service.run("resume", "hubspot").returncode == 0
    done = eventually(lambda: states(service, "hubspot.create_ticket") == [("succeeded", None)])
    assert done, service.log.read_text()[-2000:]
    [call] = sandbox.hubspot.calls
    [ticket] = sandbox.hubspot.tickets
    assert sandbox.hubspot.associated("tickets", ticket.id, "calls") == [call.id]
