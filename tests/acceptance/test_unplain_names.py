"""Content injection: a stranger's name with a link never leaves in a message of the company."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.service_process import ServiceProcess, eventually, running_service

RULES = """
version: 1
messaging: {quiet_hours: none}
rules:
  - name: text
    when: call.busy
    do:
      - use: twilio.send_sms
        with:
          body: "Hi {{ contact.first_name | default('there') }}, we tried to reach you. Reply STOP to opt out."
      - use: hubspot.log_call
      - use: slack.post
        with: {text: "Not reached: {{ contact.name | default('unknown') }}"}
  - name: email
    when: chat.abandoned
    do:
      - use: email.send
        with:
          subject: "{{ contact.name | default('You') }}, can we still help?"
          text: "Hi {{ contact.first_name | default('there') }}, {{ event.metadata.contactName | default('hello') }}!"
"""
PHISHING = "your parcel is held: https://evil.example/p"
LINK = "https://evil.example/verify-your-account"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """The mock providers of `service`."""
    with start_sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Iterator[ServiceProcess]:
    """A running service."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    with running_service(folder, sandbox.environment, BRIDGE_PUBLIC_URL="https://bridge.example") as running:
        yield running


def deliver(service: ServiceProcess, body: dict[str, Any], deliveries: int) -> None:
    """Post an event and wait until its deliveries have succeeded."""
    before = len(service.api_items("deliveries?limit=200"))
    assert service.post(body).json() == {"received": True}

    def finished() -> bool:
        states = [item["state"] for item in service.api_items("deliveries?limit=200")]
        return len(states) == before + deliveries and set(states) == {"succeeded"}

    assert eventually(finished), service.log.read_text()[-2000:]


def test_a_link_in_a_name_does_not_reach_the_recipient_of_a_text(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    body = refresh_sample(sample("call.busy"), datetime.now(UTC))
    body["metadata"].pop("contactName", None)
    body["callMetadata"]["customer"] = {"firstName": PHISHING}
    deliver(service, body, 3)
    [message] = sandbox.twilio.messages
    assert message.body == "Hi there, we tried to reach you. Reply STOP to opt out."
    [post] = sandbox.slack.messages  # the team sees what was given, as text
    assert "your parcel is held" in str(post)
    assert "evil" not in service.log.read_text()


def test_a_link_as_a_name_does_not_reach_the_recipient_of_an_email(
    service: ServiceProcess, sandbox: RunningSandbox
) -> None:
    body = refresh_sample(sample("chat.abandoned"), datetime.now(UTC))
    body["metadata"] |= {"contactName": LINK, "contactEmail": "victim@harbourlight.example"}
    deliver(service, body, 1)
    [message] = sandbox.email.messages
    assert message.message["Subject"] == "You, can we still help?"
    assert "Hi there, hello!" in message.message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert b"evil" not in message.raw
