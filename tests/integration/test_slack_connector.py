"""The Slack connector: posts to an incoming webhook over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from bridge.errors import AuthenticationError, ConfigError, OutcomeUnknown, PermanentError, RateLimited
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import Connected, connect, event, load_connector

slack = load_connector("slack")


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox() as running:
        yield running


@pytest.fixture
def webhook(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(slack, sandbox.environment) as connected:
        yield connected


def test_post_sends_rendered_text(webhook: Connected, sandbox: RunningSandbox) -> None:
    webhook.run("post", {"text": "Call {{ event.event }} *failed*"}, event=event("call.failed"))
    assert [message.payload for message in sandbox.slack.messages] == [{"text": "Call call.failed *failed*"}]


def test_post_escapes_markup_in_contact_name(webhook: Connected, sandbox: RunningSandbox) -> None:
    visitor = event("chat.abandoned", {"metadata.contactName": "<!channel> & <https://evil.example|Bank>"})
    webhook.run("post", {"text": "{{ contact.name }} left"}, event=visitor)
    assert sandbox.slack.messages[0].payload["text"] == (
        "&lt;!channel&gt; &amp; &lt;https://evil.example|Bank&gt; left"
    )


def test_post_truncates_long_text_with_ellipsis(webhook: Connected, sandbox: RunningSandbox) -> None:
    webhook.run("post", {"text": "&" * 50_000})
    text = sandbox.slack.messages[0].payload["text"]
    assert len(text) <= 40_000
    assert text.endswith("&amp;…")


@pytest.mark.parametrize(
    ("status", "body", "error_type", "message"),
    [
        (400, "invalid_payload", PermanentError, "invalid_payload"),
        (400, "no_text", PermanentError, "no_text"),
        (403, "action_prohibited", AuthenticationError, "set SLACK_WEBHOOK_URL"),
        (403, "invalid_token", AuthenticationError, "set SLACK_WEBHOOK_URL"),
        (404, "no_service", AuthenticationError, "no_service"),
        (404, "channel_not_found", AuthenticationError, "channel_not_found"),
        (410, "channel_is_archived", AuthenticationError, "channel_is_archived"),
        (500, "rollup_error", OutcomeUnknown, "500"),
        (503, "<html>down</html>", OutcomeUnknown, "503"),
        (200, "<html>login</html>", OutcomeUnknown, "without `ok`"),
        (200, "no", OutcomeUnknown, "without `ok`"),
    ],
)
def test_post_maps_error_response(
    webhook: Connected, sandbox: RunningSandbox, status: int, body: str, error_type: type, message: str
) -> None:
    sandbox.fault("slack", status=status, body=body)
    with pytest.raises(error_type, match=message) as caught:
        webhook.run("post", {"text": "Hello"})
    assert "html" not in str(caught.value)


def test_post_keeps_retry_after(webhook: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=429, retry_after=30)
    with pytest.raises(RateLimited) as caught:
        webhook.run("post", {"text": "Hello"})
    assert caught.value.retry_after == timedelta(seconds=30)


def test_check_reports_active_webhook_and_posts_nothing(webhook: Connected, sandbox: RunningSandbox) -> None:
    assert webhook.check() == "webhook is active"
    assert sandbox.slack.messages == []


def test_check_reports_disabled_webhook(webhook: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=404, body="no_service")
    with pytest.raises(AuthenticationError, match="create a new one"):
        webhook.check()


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.example/services/T1/B1/hidden-part",
        "hooks.slack.example/services/T1/B1/hidden-part",
        "ftp://hooks.slack.example/hidden-part",
        "https://[::1/hidden-part",
        "https://hooks.slack.example:port/hidden-part",
    ],
)
def test_invalid_webhook_url_is_reported_without_its_value(url: str) -> None:
    with pytest.raises(ConfigError, match="SLACK_WEBHOOK_URL") as caught:
        connect(slack, {"SLACK_WEBHOOK_URL": url})
    assert "hidden-part" not in str(caught.value)
