"""Check of the webhooks at Heppu: each finding says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.cli.heppu_check import check_webhooks
from bridge.connector.discovery import Registry
from bridge.events import HEPPU_EVENTS
from bridge.rules.event_uses import event_uses
from bridge.rules.load import load_or_raise

URL = "https://bridge.example.com/webhooks/heppu"
PUBLIC = "https://bridge.example.com"
NEEDED = {"call.busy": ["text"], "call.failed": ["alert", "log"]}


def webhook(**changes: Any) -> dict[str, Any]:
    return {
        "id": "webhook_1",
        "url": URL,
        "events": list(HEPPU_EVENTS),
        "status": "active",
        "lastDeliveredAt": "2026-03-02T15:04:05Z",
    } | changes


def problems(*webhooks: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item.text, item.fix) for item in check_webhooks(webhooks, NEEDED, PUBLIC) if not item.ok]


def test_right_webhook_has_no_problem() -> None:
    [fact] = check_webhooks([webhook()], NEEDED, PUBLIC + "/")
    assert fact.ok
    assert fact.text == (f"webhook webhook_1: 7 event types to {URL}, last delivered 2026-03-02 15:04:05 UTC")
    [never] = check_webhooks([webhook(lastDeliveredAt=None)], NEEDED, PUBLIC)
    assert never.text.endswith("nothing has been delivered yet")


def test_missing_events_name_the_rules_and_the_command() -> None:
    assert problems(webhook(events=["call.completed"])) == [
        (
            "call.busy is not sent, but text needs it",
            "bridge heppu webhooks update webhook_1 --event call.busy --event call.completed --event call.failed",
        ),
        (
            "call.failed is not sent, but alert, log need it",
            "bridge heppu webhooks update webhook_1 --event call.busy --event call.completed --event call.failed",
        ),
    ]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (
            f"{PUBLIC}/webhook/heppu",
            "it sends to the path /webhook/heppu instead of /webhooks/heppu, which is",
        ),
        (PUBLIC, "it sends to the path / instead of /webhooks/heppu"),
        (URL + "/", "its URL ends with a slash"),
        (URL.replace("https", "http"), "it sends to http:// instead of https://"),
        (URL.replace(".com", ".com:8443"), "it sends to port 8443 instead of 443"),
        (
            URL.replace("bridge.example.com", "old.example.com"),
            "it sends to old.example.com, but BRIDGE_PUBLIC_URL",
        ),
        (URL + "?x=1", f"its URL is {URL}?x=1 instead of"),
    ],
)
def test_wrong_url_is_named(url: str, problem: str) -> None:
    found = problems(webhook(url=url))
    assert found[0][0].startswith(f"webhook webhook_1: {problem}")
    assert found[0][1].startswith("bridge heppu webhooks create, then bridge heppu webhooks delete webhook_1")


def test_inactive_webhook_sends_nothing() -> None:
    found = problems(webhook(status="failed"))
    assert found[0] == (
        "webhook webhook_1 is failed, so Heppu may not send to it",
        f"make sure that {URL} answers, then bridge heppu webhooks update webhook_1 --status active",
    )
    assert [text for text, _ in found[1:]] == [
        "call.busy is not sent, but text needs it",
        "call.failed is not sent, but alert, log need it",
    ]


def test_webhook_of_another_system_is_only_mentioned() -> None:
    other = webhook(id="webhook_2", url="https://crm.example.net/in")
    assert problems(webhook(), other) == []
    assert problems(other) == [
        (f"no webhook sends to {URL}, so no event comes", "bridge heppu webhooks create")
    ]
    assert problems() == problems(other)


def test_two_webhooks_with_the_same_events() -> None:
    [(text, fix)] = problems(webhook(), webhook(id="webhook_2", events=["call.busy"]))
    assert text == "webhook_1 and webhook_2 both send call.busy here, so each event comes twice"
    assert fix == "bridge heppu webhooks delete webhook_2"


def test_rules_need_what_they_are_for_are_cancelled_by_and_count() -> None:
    rules = load_or_raise(
        """\
version: 1
rules:
  - name: text
    when: call.busy
    where:
      count(call.failed, 7d): {gte: 2}
    if: count('call.no-answer', '7d') > 1
    do: [{use: twilio.send_sms, cancel_on: call.completed, with: {body: "Hi {{ count('chat.resolved', '1d') }}"}}]
  - name: replies
    when: sms.received
    do: [{use: slack.post, with: {text: x}}]
  - name: disabled
    enabled: false
    when: chat.abandoned
    do: [{use: slack.post, with: {text: x}}]
""",
        path="rules.yaml",
        registry=Registry(),
    )
    assert event_uses(rules) == {
        name: ["text"]
        for name in ("call.completed", "call.failed", "call.busy", "call.no-answer", "chat.resolved")
    }
