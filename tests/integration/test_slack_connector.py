"""Posts to Slack's incoming webhook over real HTTP."""

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


def test_the_team_reads_the_rendered_text(webhook: Connected, sandbox: RunningSandbox) -> None:
    webhook.run("post", {"text": "Call {{ event.event }} *failed*"}, event=event("call.failed"))
    assert [message.payload for message in sandbox.slack.messages] == [{"text": "Call call.failed *failed*"}]


def test_what_a_visitor_calls_himself_is_no_command_to_slack(
    webhook: Connected, sandbox: RunningSandbox
) -> None:
    visitor = event("chat.abandoned", {"metadata.contactName": "<!channel> & <https://evil.example|Bank>"})
    webhook.run("post", {"text": "{{ contact.name }} left"}, event=visitor)
    assert sandbox.slack.messages[0].payload["text"] == (
        "&lt;!channel&gt; &amp; &lt;https://evil.example|Bank&gt; left"
    )


def test_a_text_that_slack_would_cut_is_cut_visibly(webhook: Connected, sandbox: RunningSandbox) -> None:
    webhook.run("post", {"text": "&" * 50_000})
    text = sandbox.slack.messages[0].payload["text"]
    assert len(text) <= 40_000
    assert text.endswith("&amp;…")


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
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
        (200, "<html>login</html>", OutcomeUnknown, "without its `ok`"),
        (200, "no", OutcomeUnknown, "without its `ok`"),
    ],
)
def test_slacks_words_for_no(
    webhook: Connected, sandbox: RunningSandbox, status: int, body: str, kind: type, words: str
) -> None:
    sandbox.fault("slack", status=status, body=body)
    with pytest.raises(kind, match=words) as refused:
        webhook.run("post", {"text": "Hello"})
    assert "html" not in str(refused.value)


def test_slacks_wait_is_kept(webhook: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=429, retry_after=30)
    with pytest.raises(RateLimited) as limited:
        webhook.run("post", {"text": "Hello"})
    assert limited.value.retry_after == timedelta(seconds=30)


def test_check_finds_the_webhook_and_posts_nothing(webhook: Connected, sandbox: RunningSandbox) -> None:
    assert webhook.check() == "the webhook is there"
    assert sandbox.slack.messages == []


def test_check_says_when_the_webhook_is_gone(webhook: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=404, body="no_service")
    with pytest.raises(AuthenticationError, match="make a new one"):
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
def test_a_webhook_url_that_is_none_is_explained_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="SLACK_WEBHOOK_URL") as wrong:
        connect(slack, {"SLACK_WEBHOOK_URL": url})
    assert "hidden-part" not in str(wrong.value)
