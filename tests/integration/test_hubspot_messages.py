"""Sent messages on the timeline of HubSpot contacts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.connector import Success
from bridge.errors import OutcomeUnknown
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events, email_address

EMAIL = "maya.lindqvist@example.com"
SENT_AT = "2026-03-02T15:31:00+00:00"


def message(channel: str, **params: Any) -> dict[str, Any]:
    return {"body": "Your order\nhas <shipped>.", "channel": channel, "sent_at": SENT_AT, **params}


def milliseconds(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).astimezone(UTC)


@pytest.mark.parametrize(("channel", "channel_type"), [("sms", "SMS"), ("whatsapp", "WHATS_APP")])
def test_text_message_appears_as_a_communication(
    hubspot: CrmConnection, sandbox: RunningSandbox, channel: str, channel_type: str
) -> None:
    contact = sandbox.hubspot.add("contacts", email=EMAIL, hubspot_owner_id="70011").id
    about = event("call.busy", {"metadata.contactEmail": EMAIL})
    result = hubspot.deliver("log_message", about, message(channel))
    [logged] = sandbox.hubspot.objects("communications")
    assert logged.id == result.id
    expected = {
        "hs_communication_channel_type": channel_type,
        "hs_communication_logged_from": "CRM",
        "hs_communication_body": "Your order<br>has &lt;shipped&gt;.",
        "hubspot_owner_id": "70011",
    }
    assert {name: logged.properties.get(name) for name in expected} == expected
    assert milliseconds(logged.properties["hs_timestamp"]) == datetime.fromisoformat(SENT_AT)
    assert sandbox.hubspot.associated("communications", logged.id, "contacts") == [contact]


def test_email_appears_as_an_email(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    contact = sandbox.hubspot.add("contacts", email=EMAIL).id
    about = event("call.busy", {"metadata.contactEmail": EMAIL})
    hubspot.deliver("log_message", about, message("email"))
    [logged] = sandbox.hubspot.objects("emails")
    expected = {
        "hs_email_direction": "EMAIL",
        "hs_email_status": "SENT",
        "hs_email_subject": "Your order",
        "hs_email_text": "Your order\nhas <shipped>.",
    }
    assert {name: logged.properties.get(name) for name in expected} == expected
    assert sandbox.hubspot.associated("emails", logged.id, "contacts") == [contact]


@pytest.mark.parametrize(("channel", "kind"), [("sms", "communications"), ("email", "emails")])
@pytest.mark.parametrize("missing_scopes", [set(), {"sales-email-read"}])
def test_retry_after_a_lost_response_logs_no_second_message(
    hubspot: CrmConnection, sandbox: RunningSandbox, channel: str, kind: str, missing_scopes: set[str]
) -> None:
    sandbox.hubspot.missing_scopes = missing_scopes
    about = event("call.busy", {"metadata.contactEmail": EMAIL})
    sandbox.fault("hubspot", path=f"*/{kind}/batch/create", drop="after")
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("log_message", about, message(channel))
    result = hubspot.deliver("log_message", about, message(channel), attempt=2)
    assert [item.id for item in sandbox.hubspot.objects(kind)] == [result.id]


def test_messages_of_known_contacts_are_logged_in_one_request(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    for number in range(20):
        sandbox.hubspot.add("contacts", email=email_address(number), phone=f"+1212555{number:04}")
    events = call_events(20, hubspot.clock)
    hubspot.deliver_all("log_call", events)
    hubspot.requests()
    results = hubspot.deliver_all("log_message", events, message("sms"))
    assert all(isinstance(result, Success) and result.id for result in results)
    assert hubspot.requests() == ["POST /crm/objects/2026-03/communications/batch/create"]


def test_message_to_a_stranger_creates_the_contact_unless_skipped(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    about = event("call.busy", {"metadata.contactEmail": EMAIL})
    skipped = hubspot.deliver("log_message", about, message("sms", on_missing="skip"))
    assert (skipped.id, sandbox.hubspot.contacts) == (None, [])
    assert skipped.detail.startswith("not logged: HubSpot has no such contact")
    hubspot.deliver("log_message", about, message("sms", new_contact={"lifecyclestage": "lead"}))
    [contact] = sandbox.hubspot.contacts
    assert contact.properties["lifecyclestage"] == "lead"
