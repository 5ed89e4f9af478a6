"""Opt-out flags of a CRM in both directions: a real service, the real SDKs, the mock CRMs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.service_process import ServiceProcess, eventually, free_port, running_service

RULES = """
version: 1
messaging:
  quiet_hours: none
  crm_opt_outs: [hubspot, salesforce]
rules:
  - name: text
    when: call.busy
    do: [{use: twilio.send_sms, with: {body: "Hi, we tried to reach you."}}]
  - name: opt-outs-to-crm
    when: contact.opted_out
    do:
      - use: hubspot.set_opt_out
      - use: salesforce.set_opt_out
"""
FLAGGED, OTHER = "+12125550167", "+12125550168"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """The mock providers, with a HubSpot account that has a do-not-call property."""
    with start_sandbox() as running:
        headers = {"Authorization": f"Bearer {running.environment['HUBSPOT_ACCESS_TOKEN']}"}
        definition = {
            "name": "do_not_call",
            "label": "Do not call",
            "groupName": "contactinformation",
            "type": "bool",
            "fieldType": "booleancheckbox",
        }
        url = f"{running.environment['HUBSPOT_URL']}/crm/properties/2026-03/contacts"
        httpx.post(url, json=definition, headers=headers).raise_for_status()
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Iterator[ServiceProcess]:
    """The service."""
    folder: Path = tmp_path_factory.mktemp("crm_opt_outs")
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    port = free_port()
    environ = {
        "BRIDGE_PORT": str(port),
        "BRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "HUBSPOT_DO_NOT_CALL_PROPERTY": "do_not_call",
    }
    with running_service(folder, sandbox.environment, **environ) as running:
        yield running


def send_busy_event(service: ServiceProcess, phone: str) -> dict[str, Any]:
    """Post a `call.busy` event and return its text message once it is finished."""
    body = refresh_sample(sample("call.busy"), datetime.now(UTC))
    body["metadata"] = {"contactPhone": phone}
    body["conversationId"] = f"conv_{phone}"
    assert service.post(body).json() == {"received": True}

    def finished() -> Any:
        items = service.api_items("deliveries?limit=200")
        mine = [item for item in items if item["recipient"] == phone and item["action"] == "twilio.send_sms"]
        return mine and mine[0]["state"] not in ("pending", "running", "retrying") and mine[0]

    delivery = eventually(finished)
    assert delivery, service.log.read_text()[-2000:]
    return dict(delivery)


def test_flagged_contact_gets_no_text(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.add("Lead", LastName="X", Company="Y", Phone="(212) 555-0167", DoNotCall=True)
    delivery = send_busy_event(service, FLAGGED)
    assert (delivery["state"], delivery["reason"]) == ("suppressed", "opted_out")
    assert "Lead.DoNotCall is set in salesforce" in delivery["detail"]
    assert send_busy_event(service, OTHER)["state"] == "succeeded"
    assert [message.to for message in sandbox.twilio.messages] == [OTHER]


def test_stop_sets_the_flag_in_both_crms(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    contact = sandbox.hubspot.add("contacts", phone="+1 212-555-0169")
    person = sandbox.salesforce.add("Contact", LastName="X", MobilePhone="212.555.0169")
    response = sandbox.twilio.receive("+12125550169", "Stop please", f"{service.url}/webhooks/twilio/inbound")
    assert response["http"] == 200
    assert eventually(lambda: contact.properties.get("do_not_call") == "true" and person["DoNotCall"])
