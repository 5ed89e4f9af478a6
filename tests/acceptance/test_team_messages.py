"""Messages to the team from the real service: a thread of Slack, and cards of Teams with links."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.samples import refresh_sample, sample
from bridge.sandbox import start_sandbox
from tests.acceptance.service_process import eventually, running_service

RULES = """
version: 1
alerts:
  - use: teams.post
    with: {text: "{{ delivery.message }}", severity: critical}
rules:
  - name: refused
    when: call.completed
    do: [{use: slack.post, with: {text: refused, channel: "#other"}}]
  - name: missed
    when: call.busy
    do: [{use: slack.post, with: {text: "Missed: {{ contact.name }}"}}]
  - name: reached
    when: call.completed
    do:
      - use: slack.post
        with: {text: "Reached: {{ contact.name }}", thread: true}
      - use: teams.post
        with: {text: "Reached", facts: {Name: "{{ contact.name }}"}}
"""
PUBLIC_URL = "https://bridge.example.com"


def call(name: str) -> dict[str, Any]:
    body = refresh_sample(sample(name), datetime.now(UTC))
    body["conversationId"] = "conv_maya"
    body["metadata"] |= {"contactName": "Maya Lindqvist", "contactEmail": "maya@lindqvist.example"}
    return body


def test_messages_share_a_thread_and_link_to_the_event(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    with start_sandbox() as sandbox:
        environ = {
            name: value for name, value in sandbox.environment.items() if not name.startswith("SLACK_")
        }
        environ |= sandbox.slack_bot_environment | {"SLACK_PER_SECOND": "50"}
        environ |= {"BRIDGE_PUBLIC_URL": PUBLIC_URL}
        with running_service(tmp_path, environ) as running:
            running.post(call("call.busy"))
            assert eventually(lambda: sandbox.slack.messages)
            running.post(call("call.completed"))
            assert eventually(lambda: len(sandbox.slack.messages) == 2 and len(sandbox.teams.messages) == 2)
            event_id = next(
                item["id"] for item in running.api_items("events?limit=9") if item["type"] == "call.completed"
            )
    first, second = sandbox.slack.workspace.messages
    assert (first.thread_ts, second.thread_ts) == (None, first.ts)
    page = f"{PUBLIC_URL}/events/{event_id}"
    assert second.text == f"Reached: Maya Lindqvist\n<{page}|Open event>"
    card, alert = sorted(sandbox.teams.messages, key=lambda message: message.style != "default")
    assert (card.facts, card.buttons) == ({"Name": "Maya Lindqvist"}, {"Open event": page})
    assert "not\\_in\\_channel" in alert.texts[0]
    assert alert.style == "attention"
