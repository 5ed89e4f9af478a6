"""The Slack connector: posts to an incoming webhook over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
)
from bridge.sandbox import RunningSandbox
from bridge.sandbox.slack import SlackMessage
from bridge.testing import Connected, connect, event, load_connector
from bridge.testing.connection import render_params

slack = load_connector("slack")
written = slack.actions["post"].run.__globals__["mrkdwn"]
"""How a rendered text goes out."""
MENTION = (
    "<!here> {{ event.summary }} <https://crm.example|{{ event.summary }}> <!channel {{ event.summary }}"
)
"""Two values within and after markup, and one that must not close what the rule has left open."""
NOW = datetime(2026, 3, 2, tzinfo=UTC)


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


def test_rule_writes_links_and_mentions_and_a_visitor_does_not(
    webhook: Connected, sandbox: RunningSandbox
) -> None:
    visitor = event("chat.abandoned", {"metadata.contactName": "<!channel> <https://evil.example|Bank>"})
    text = "<!here> <@U012AB3CD>: <https://crm.example/a?b=1&c=2|open> {{ contact.name }} <- 5 < 6 & 7 > 6"
    webhook.run("post", {"text": text}, event=visitor)
    [message] = sandbox.slack.messages
    assert (message.mentions, message.links) == (["!here", "@U012AB3CD"], ["https://crm.example/a?b=1&c=2"])
    assert message.text.endswith(
        "&lt;!channel&gt; &lt;https://evil.example|Bank&gt; &lt;- 5 &lt; 6 &amp; 7 &gt; 6"
    )


@given(name=st.text(st.sampled_from("<>!@#|&;:/.~ achnelrhttpsmk"), max_size=30))
def test_no_name_of_a_visitor_mentions_or_links(name: str) -> None:
    params = render_params(
        slack.actions["post"], {"text": MENTION}, event("call.completed", {"summary": name})
    )
    message = SlackMessage(written(params["text"]), {}, NOW)
    assert message.mentions == ["!here"]
    assert message.links == ["https://crm.example"]


@pytest.mark.parametrize("server", ["mattermost", "rocket_chat", "google_chat", "ok_json", "empty"])
def test_compatible_server_accepts_messages(sandbox: RunningSandbox, server: str) -> None:
    url = sandbox.environment["SLACK_WEBHOOK_URL"].split("/services/")[0] + f"/compatible/{server}"
    with connect(slack, {"SLACK_WEBHOOK_URL": url}) as connected:
        assert connected.run("post", {"text": "Hello"}).detail == "posted"
    assert [message.text for message in sandbox.slack.messages] == ["Hello"]


def test_check_of_a_compatible_server(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=400, body='{"id": "api.context.invalid_body_param.app_error"}')
    with connect(slack, sandbox.environment) as connected:
        assert "the server answers" in connected.check()


@pytest.mark.parametrize("path", ["/triggers/T1/2/hidden-part", "/workflows/T1/A2/3/hidden-part"])
def test_address_of_a_workflow_is_refused_with_the_reason(path: str) -> None:
    with pytest.raises(ConfigError, match="starts a workflow of Slack") as caught:
        connect(slack, {"SLACK_WEBHOOK_URL": f"https://hooks.slack.com{path}"})
    assert "incoming webhook" in str(caught.value)
    assert "hidden-part" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T1/hidden-part",
        "https://hooks.slack.com/",
        "https://hooks.slack.com/services/T1/B1/",
        "https://hooks.slack.com/services/T1/B1/hidden/part",
        "https://slack.com/app_redirect?channel=hidden-part",
        "https://harbourlight.slack.com/archives/hidden-part",
    ],
)
def test_other_address_of_slack_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the whole URL of an incoming webhook") as caught:
        connect(slack, {"SLACK_WEBHOOK_URL": url})
    assert "hidden" not in str(caught.value)


def test_empty_error_of_a_compatible_server_is_none(webhook: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=200, body={"ok": True, "error": None})
    assert webhook.run("post", {"text": "Hello"}).detail == "posted"


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
        (403, "action_prohibited", AccountError, "action_prohibited"),
        (400, "posting_to_general_channel_denied", AccountError, "posting_to_general"),
        (403, "invalid_token", AuthenticationError, "invalid_token"),
        (404, "no_service", AuthenticationError, "no_service"),
        (400, "no_active_hooks", AuthenticationError, "no_active_hooks"),
        (404, "team_disabled", AccountError, "team_disabled"),
        (404, "channel_not_found", AccountError, "channel_not_found"),
        (410, "channel_is_archived", AccountError, "channel_is_archived"),
        (404, "<html>gone</html>", AuthenticationError, "404"),
        (200, '{"ok": false, "error": "channel_not_found"}', AccountError, "channel_not_found"),
        (200, '{"ok": false}', OutcomeUnknown, "without `ok`"),
        (200, '{"success": false}', OutcomeUnknown, "without `ok`"),
        (200, '["ok"]', OutcomeUnknown, "without `ok`"),
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
    with pytest.raises(AuthenticationError) as caught:
        webhook.check()
    assert "SLACK_WEBHOOK_URL" in caught.value.fix


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
