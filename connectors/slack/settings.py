"""Settings of a Slack connection, and the connector that the other modules add the action to."""

from __future__ import annotations

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bridge.connector import Connector, ConnectorGroup, ConnectorSettings, Limits, ProviderUrl, SecretUrl

SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
CHANNEL = r"^(#[^\s#@<>&|,]{1,80}|[CDGUW][A-Z0-9]{6,20})$"
"""A channel in settings and rules."""
CHANNEL_FORM = "a channel's ID, such as C0123ABCD, or the #name of a public channel"
_WORKFLOW_PATHS = ("/triggers/", "/workflows/")
_WEBHOOK_PATH = re.compile(r"/services/\w+/\w+/\w+/?")


def _takes_messages(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if parts.hostname in SLACK_HOSTS and parts.path.startswith(_WORKFLOW_PATHS):
        raise ValueError(
            "starts a workflow of Slack, which accepts every request and shows none of its text. In Slack, create an "
            "app with an incoming webhook (https://api.slack.com/apps) and use its URL, which contains /services/"
        )
    host = parts.hostname or ""
    is_webhook = host in SLACK_HOSTS and _WEBHOOK_PATH.fullmatch(parts.path)
    if not is_webhook and (host == "slack.com" or host.endswith((".slack.com", ".slack-gov.com"))):
        raise ValueError(
            "is not the whole URL of an incoming webhook: copy it from the page Incoming Webhooks of the app; it "
            "looks like https://hooks.slack.com/services/T.../B.../..."
        )
    return url


def _is_bot_token(token: SecretStr) -> SecretStr:
    value = token.get_secret_value()
    if value.startswith("xoxe"):
        raise ValueError(
            "expires after 12 hours: turn off token rotation of the app, or use an app without it"
        )
    if not re.fullmatch(r"xoxb-[A-Za-z0-9-]+", value):
        raise ValueError(
            "is not a bot token: copy the Bot User OAuth Token, which starts with xoxb-, from the page OAuth & "
            "Permissions of the app"
        )
    return token


class Settings(ConnectorSettings):
    """Settings: `SLACK_WEBHOOK_URL` for one channel, or `SLACK_BOT_TOKEN` for any channel and for threads."""

    webhook_url: Annotated[SecretUrl, AfterValidator(_takes_messages)] | None = None
    """URL of an incoming webhook of the channel (`https://hooks.slack.com/services/...`), also of Mattermost,
    Rocket.Chat and others that accept Slack's messages. The URL of a workflow does not work."""
    bot_token: Annotated[SecretStr, AfterValidator(_is_bot_token)] | None = None
    """Bot token of an app (`xoxb-...`), with the scope `chat:write`, instead of a webhook."""
    channel: str | None = Field(None, pattern=CHANNEL)
    """Channel of steps without `channel`, for a bot token: an ID such as C0123ABCD, or a public channel's #name."""
    url: ProviderUrl = "https://slack.com/api"
    """URL of Slack's API, for a bot token. GovSlack: `https://slack-gov.com/api`."""

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if self.webhook_url is None and self.bot_token is None:
            raise ValueError("SLACK_WEBHOOK_URL is not set")
        if self.webhook_url is not None and self.bot_token is not None:
            raise ValueError(
                "set either SLACK_WEBHOOK_URL or SLACK_BOT_TOKEN; for both, name a second connection in the rules"
            )
        if self.bot_token is None and self.channel is not None:
            raise ValueError("SLACK_CHANNEL needs SLACK_BOT_TOKEN: a webhook posts to its own channel")
        return self


connector = Connector(
    "slack",
    settings=Settings,
    limits=Limits(per_second=1, concurrency=2),
    description="Posts messages to channels of the team's Slack.",
    group=ConnectorGroup.TEAM_MESSAGES,
)
