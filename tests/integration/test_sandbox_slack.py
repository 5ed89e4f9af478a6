"""Mock Slack: an incoming webhook that responds in plain text."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from bridge.sandbox import RunningSandbox


def test_post_message_is_accepted(sandbox: RunningSandbox) -> None:
    url = sandbox.environment["SLACK_WEBHOOK_URL"]
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*hello*"}}]
    assert httpx.post(url, json={"text": "hello"}).text == "ok"
    assert httpx.post(url, json={"blocks": blocks}).text == "ok"
    assert httpx.post(url, data={"payload": json.dumps({"text": "as a form"})}).text == "ok"
    assert [message.text for message in sandbox.slack.messages] == ["hello", "", "as a form"]
    assert sandbox.slack.messages[1].payload["blocks"] == blocks


@pytest.mark.parametrize(
    ("payload", "status", "expected"),
    [
        ({}, 400, "no_text"),
        ({"text": ""}, 400, "no_text"),
        ({"text": 5}, 400, "invalid_payload"),
        (["text"], 400, "invalid_payload"),
        ({"text": "x" * 40_001}, 400, "msg_too_long"),
        ({"text": "x", "blocks": [{"text": "no type"}]}, 400, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "divider"}] * 51}, 400, "invalid_blocks"),
        ({"text": "x", "attachments": {}}, 400, "invalid_attachments"),
        ({"attachments": [{}] * 101}, 400, "too_many_attachments"),
        ({"text": "x", "channel": "#elsewhere"}, 404, "channel_not_found"),
    ],
)
def test_invalid_payload_is_rejected(
    sandbox: RunningSandbox, payload: Any, status: int, expected: str
) -> None:
    response = httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json=payload)
    assert (response.status_code, response.text) == (status, expected)
    assert response.headers["content-type"].startswith("text/plain")
    assert sandbox.slack.messages == []


def test_unknown_webhook_is_rejected(sandbox: RunningSandbox) -> None:
    url = sandbox.environment["SLACK_WEBHOOK_URL"]
    wrong_secret = url.rsplit("/", 1)[0] + "/guessed"
    assert httpx.post(wrong_secret, json={"text": "x"}).status_code == 403
    other_webhook = sandbox.url + "/slack/services/T1/B1/x"
    assert (httpx.post(other_webhook, json={"text": "x"}).text, httpx.get(url).status_code) == (
        "no_service",
        405,
    )


def test_rate_limit_sets_retry_after(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=429, retry_after=30)
    sandbox.fault("slack", status=429)
    first, second = (
        httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "x"}) for _ in range(2)
    )
    assert (first.status_code, first.headers["retry-after"]) == (429, "30")
    assert second.headers["retry-after"] == "1"
