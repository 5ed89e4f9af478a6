"""Texts and WhatsApp messages from event to callback and reply: a real service, the real SDK, signed callbacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.service_process import ServiceProcess, eventually, free_port, running_service

RULES = """
version: 1
messaging: {quiet_hours: none, caps: {sms: 100 per 24h, whatsapp: 100 per 24h}}
rules:
  - name: text
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "Hi, we tried to reach you."}
    on_failure:
      - use: slack.post
        with: {text: "{{ delivery.action }}: {{ delivery.reason }}"}
  - name: reply
    when: sms.received
    do:
      - use: slack.post
        with: {text: "{{ contact.first_name }} on {{ event.conversationId }}: {{ event.text }}"}
  - name: whatsapp-after-missed-call
    when: call.no-answer
    do:
      - use: twilio.send_whatsapp
        with: {template: missed_call, variables: {1: "{{ contact.first_name | default('there') }}"}}
    on_failure:
      - use: twilio.send_sms
        with: {body: "Hi, we tried to call you."}
  - name: whatsapp-answer
    when: sms.received
    where: {event.channel: whatsapp, event.optOut: false}
    do:
      - use: twilio.send_whatsapp
        with: {body: "Thanks, {{ contact.first_name }}. We call you at once."}
"""
RECIPIENT, OTHER_RECIPIENT = "+12125550167", "+12125550168"


@pytest.fixture(scope="module")
def running_sandbox() -> Iterator[RunningSandbox]:
    """The mock providers of `running`."""
    with start_sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, running_sandbox: RunningSandbox
) -> Iterator[ServiceProcess]:
    """One service for these tests."""
    folder = tmp_path_factory.mktemp("sms")
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    port = free_port()
    environ = {"BRIDGE_PORT": str(port), "BRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    with running_service(folder, running_sandbox.environment, **environ) as service:
        yield service


@pytest.fixture
def sandbox(running_sandbox: RunningSandbox) -> RunningSandbox:
    """Mock providers with empty accounts."""
    running_sandbox.reset()
    return running_sandbox


@pytest.fixture
def service(running: ServiceProcess, sandbox: RunningSandbox) -> ServiceProcess:
    """The service without opt-outs."""
    for address in opted_out_addresses(running):
        assert running.run("opt-outs", "remove", address).returncode == 0
    return running


def sms_deliveries(service: ServiceProcess) -> dict[str, dict[str, Any]]:
    """Return the deliveries of `twilio.send_sms` by ID."""
    items = service.api_items("deliveries?limit=200")
    return {item["id"]: item for item in items if item["action"] == "twilio.send_sms"}


def send_busy_event(service: ServiceProcess, recipient: str = RECIPIENT) -> dict[str, Any]:
    """Post a `call.busy` event and return its delivery once it has finished."""
    body = refresh_sample(sample("call.busy"), datetime.now(UTC))
    body["metadata"]["contactPhone"] = recipient
    existing_ids = sms_deliveries(service).keys()
    assert service.post(body).json() == {"received": True}

    def finished_delivery() -> Any:
        created = [
            item for delivery_id, item in sms_deliveries(service).items() if delivery_id not in existing_ids
        ]
        return (
            created[0] if created and created[0]["state"] not in ("pending", "running", "retrying") else None
        )

    delivery = eventually(finished_delivery)
    assert delivery, service.log.read_text()[-2000:]
    return dict(delivery)


def message_status(service: ServiceProcess, delivery: dict[str, Any]) -> str:
    return str(sms_deliveries(service)[delivery["id"]]["message_status"])


def opted_out_addresses(service: ServiceProcess) -> set[str]:
    return {item["address"] for item in service.items("opt-outs")}


def receive_reply(
    service: ServiceProcess, sandbox: RunningSandbox, body: str, recipient: str = RECIPIENT
) -> None:
    response = sandbox.twilio.receive(recipient, body, f"{service.url}/webhooks/twilio/inbound")
    assert response["http"] == 200


def test_message_status_reaches_delivered_in_any_callback_order(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    delivery = send_busy_event(service)
    assert (delivery["state"], delivery["message_status"]) == ("succeeded", "queued")
    [message] = sandbox.twilio.messages
    assert message.status_callback == f"{service.url}/webhooks/twilio/status?delivery={delivery['id']}"

    callbacks = sandbox.twilio.send_status_callbacks(statuses=["sent", "delivered", "delivered", "sent"])
    assert {callback["http"] for callback in callbacks} == {200}
    assert message_status(service, delivery) == "delivered"


def test_undelivered_message_states_reason_and_runs_on_failure(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    delivery = send_busy_event(service)
    sandbox.twilio.send_status_callbacks(statuses=["undelivered"], error_code=30003)
    assert message_status(service, delivery) == "undelivered"
    assert eventually(lambda: sandbox.slack.messages), service.log.read_text()[-2000:]
    assert "off or out of reach" in service.run("show", delivery["id"]).stdout


def test_stop_suppresses_messages_until_start(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    assert send_busy_event(service)["state"] == "succeeded"
    receive_reply(service, sandbox, "Stop")
    assert opted_out_addresses(service) == {RECIPIENT}
    suppressed = send_busy_event(service)
    assert (suppressed["state"], suppressed["reason"]) == ("suppressed", "opted_out")
    assert send_busy_event(service, OTHER_RECIPIENT)["state"] == "succeeded"

    receive_reply(service, sandbox, "START")
    assert opted_out_addresses(service) == set()
    assert send_busy_event(service)["state"] == "succeeded"
    assert [message.to for message in sandbox.twilio.messages] == [RECIPIENT, OTHER_RECIPIENT, RECIPIENT]


def test_reply_reaches_the_team_with_the_name_and_the_call(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    delivery = send_busy_event(service)
    receive_reply(service, sandbox, "Please call me after 5")
    conversation = json.loads(service.run("show", delivery["id"], "--json").stdout)["conversation"]
    expected = f"Ines on {conversation}: Please call me after 5"
    # The replies of an earlier test may still be on their way.
    assert eventually(lambda: expected in [message.text for message in sandbox.slack.messages]), (
        sandbox.slack.messages,
        service.log.read_text()[-2000:],
    )
    assert RECIPIENT not in service.log.read_text()


@pytest.mark.parametrize(
    "text", ["Stop please", "ARRÊT", "Please don't text me again", "Stop\n\nInes Okafor"]
)
def test_stop_that_twilio_does_not_know_suppresses_messages(
    service: ServiceProcess, sandbox: RunningSandbox, text: str
) -> None:
    receive_reply(service, sandbox, text)
    assert sandbox.twilio.opted_out == set()
    assert (send_busy_event(service)["state"], sandbox.twilio.messages) == ("suppressed", [])


def test_stop_by_whatsapp_ends_texts_as_well(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    receive_reply(service, sandbox, "Stop", f"whatsapp:{RECIPIENT}")
    assert send_busy_event(service)["reason"] == "opted_out"


def test_stop_through_rcs_ends_texts(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    receive_reply(service, sandbox, "STOP", f"rcs:{RECIPIENT}")
    assert sandbox.twilio.opted_out == {RECIPIENT}
    assert opted_out_addresses(service) == {RECIPIENT}
    assert (send_busy_event(service)["reason"], sandbox.twilio.messages) == ("opted_out", [])


def test_yes_reply_does_not_opt_in(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    """Twilio itself takes YES as START. The bridge opts in only if Twilio's OptOutType or an operator says so."""
    receive_reply(service, sandbox, "STOP")
    receive_reply(service, sandbox, "Yes")
    assert RECIPIENT not in sandbox.twilio.opted_out
    assert send_busy_event(service)["reason"] == "opted_out"
    assert service.run("opt-outs", "remove", RECIPIENT).returncode == 0
    assert send_busy_event(service)["state"] == "succeeded"


def test_opt_out_is_recorded_from_twilio_error(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    sandbox.twilio.opt_out(RECIPIENT)
    rejected = send_busy_event(service)
    assert (rejected["state"], rejected["reason"]) == ("failed", "rejected")
    assert opted_out_addresses(service) == {RECIPIENT}
    requests_before = len(sandbox.requests_to("twilio"))
    assert send_busy_event(service)["reason"] == "opted_out"
    assert len(sandbox.requests_to("twilio")) == requests_before


def test_callback_with_wrong_signature_does_not_opt_out(service: ServiceProcess) -> None:
    response = httpx.post(
        f"{service.url}/webhooks/twilio/inbound",
        data={"From": RECIPIENT, "Body": "STOP"},
        headers={"X-Twilio-Signature": "bm90IGEgc2lnbmF0dXJl"},
    )
    assert response.status_code == 403
    assert opted_out_addresses(service) == set()


def test_validity_period_ends_before_quiet_hours(tmp_path: Path, sandbox: RunningSandbox) -> None:
    now = datetime.now(UTC)
    quiet_hours = f"{now + timedelta(minutes=20):%H:%M}-{now + timedelta(hours=10):%H:%M}"
    setting = f'quiet_hours: "{quiet_hours}", time_zone: Atlantic/Reykjavik'
    (tmp_path / "rules.yaml").write_text(RULES.replace("quiet_hours: none", setting), "utf-8")
    body = refresh_sample(sample("call.busy"), now)
    body["metadata"] |= {"timezone": "Atlantic/Reykjavik", "contactPhone": RECIPIENT}
    with running_service(tmp_path, sandbox.environment) as running:
        assert running.post(body).status_code == 200
        assert eventually(lambda: sandbox.twilio.messages), running.log.read_text()[-2000:]
    [message] = sandbox.twilio.messages
    assert 1000 < int(message.parameters["ValidityPeriod"]) <= 1200


# ------------------------------------------------------------ WhatsApp


def whatsapp_deliveries(service: ServiceProcess) -> list[dict[str, Any]]:
    """Return the finished deliveries of `twilio.send_whatsapp`, newest first."""
    items = service.api_items("deliveries?limit=200")
    unfinished = ("pending", "running", "retrying")
    return [
        item for item in items if item["action"] == "twilio.send_whatsapp" and item["state"] not in unfinished
    ]


def post_call(service: ServiceProcess, name: str, phone: str = RECIPIENT) -> None:
    body = refresh_sample(sample(name), datetime.now(UTC))
    body["metadata"] |= {"contactPhone": phone, "contactName": "Ines Okafor"}
    assert service.post(body).json() == {"received": True}


def test_conversation_by_whatsapp_from_template_to_opt_out(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    """A template to a stranger; free text once she has answered; nothing after STOP."""
    inbound = f"{service.url}/webhooks/twilio/inbound"
    post_call(service, "call.no-answer")
    assert eventually(lambda: len(sandbox.twilio.messages) == 1), service.log.read_text()[-2000:]
    [template] = sandbox.twilio.messages
    assert (template.to, template.body[:8]) == (f"whatsapp:{RECIPIENT}", "Hi Ines,")
    assert {item["http"] for item in sandbox.twilio.send_status_callbacks(statuses=["sent", "read"])} == {200}
    assert whatsapp_deliveries(service)[0]["message_status"] == "delivered"

    fields = {"ButtonPayload": "call_me"}
    assert sandbox.twilio.receive(f"whatsapp:{RECIPIENT}", "Call me", inbound, fields=fields)["http"] == 200
    assert eventually(lambda: len(sandbox.twilio.messages) == 2)
    assert sandbox.twilio.messages[1].body == "Thanks, Ines. We call you at once."
    assert sandbox.twilio.messages[1].refusal is None
    assert eventually(lambda: any("Call me" in message.text for message in sandbox.slack.messages))

    assert sandbox.twilio.receive(f"whatsapp:{RECIPIENT}", "Stop", inbound)["http"] == 200
    post_call(service, "call.no-answer")
    assert eventually(lambda: whatsapp_deliveries(service)[0]["state"] == "suppressed")
    assert whatsapp_deliveries(service)[0]["reason"] == "opted_out"
    assert len(sandbox.twilio.messages) == 2


def test_person_without_whatsapp_gets_a_text_and_no_further_template(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    stranger = "+12125550171"
    sandbox.twilio.configure(no_whatsapp=[stranger])
    post_call(service, "call.no-answer", stranger)
    assert eventually(lambda: len(sandbox.twilio.messages) == 1), service.log.read_text()[-2000:]
    sandbox.twilio.send_status_callbacks()
    assert eventually(lambda: [message.to for message in sandbox.twilio.messages][1:] == [stranger])
    post_call(service, "call.no-answer", stranger)
    assert eventually(lambda: whatsapp_deliveries(service)[0]["state"] == "suppressed")
    assert whatsapp_deliveries(service)[0]["reason"] == "undeliverable"
