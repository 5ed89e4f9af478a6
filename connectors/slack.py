"""Slack: tell the team, through an incoming webhook."""

from __future__ import annotations

import re

import httpx

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Limits,
    Params,
    SecretUrl,
    SerializeBy,
    Success,
    failure_from_exception,
    failure_from_status,
    http_client,
    param,
    parse_retry_after,
    per_event,
)
from bridge.errors import AuthenticationError, DeliveryError, OutcomeUnknown, PermanentError

LONGEST_TEXT = 40_000
"""Slack cuts a message here without a word; we cut visibly."""

_GONE = ("invalid_token", "no_service", "no_service_id", "no_team", "team_disabled", "channel_is_archived")


class Settings(ConnectorSettings):
    """`SLACK_WEBHOOK_URL`; whoever knows it can post, so it is a secret."""

    webhook_url: SecretUrl


connector = Connector(
    "slack",
    settings=Settings,
    limits=Limits(per_second=1, concurrency=2),
    description="Posts to a channel of the team's Slack.",
)


class Webhook:
    """One incoming webhook."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = http_client()

    def post(self, body: dict[str, object]) -> httpx.Response:
        """Send one message; raises what httpx raises."""
        return self._http.post(self._url, json=body)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


@connector.client
def client(settings: Settings) -> Webhook:
    """The webhook, over connections that are kept."""
    return Webhook(settings.webhook_url.get_secret_value())


@connector.check
def check(webhook: Webhook) -> str:
    """Send Slack a message without text, which it refuses without posting anything."""
    response = webhook.post({})
    word = _word(response)
    if response.status_code == 400 and word in (
        "no_text",
        "invalid_payload",
        "missing_text_or_fallback_or_attachments",
    ):
        return "the webhook is there"
    raise _refusal(response, word)


class Post(Params):
    """A message to the team."""

    text: str = param(
        ...,
        "What to post. Slack's *bold* and _italics_ work; `<` and `&` are shown as they are, so no visitor's name "
        "can call @channel.",
        example="A call from {{ contact.name | default('somebody') }} failed: {{ event.conversationId }}",
        min_length=1,
    )


@connector.action(idempotency=per_event, dedupe_by="text", serialize_by=SerializeBy.NONE)
def post(webhook: Webhook, message: Post, context: Context) -> Success:
    """Post a message to the webhook's channel."""
    del context
    response = webhook.post({"text": _plain(message.text)})
    word = _word(response)
    if response.status_code == 200 and word == "ok":
        return Success(detail="posted")
    raise _refusal(response, word)


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Slack's refusals are typed where they are read; what is left is the network."""
    return failure_from_exception(error)


def _plain(text: str) -> str:
    """Slack reads `<!channel>`, `<@U1>` and `<http://a|b>` as commands; escaped they are only text."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= LONGEST_TEXT:
        return escaped
    return re.sub(r"&[a-z]*$", "", escaped[: LONGEST_TEXT - 1]) + "…"


def _word(response: httpx.Response) -> str:
    """Slack's one-word answer; anything longer is a proxy's page, of which nothing is repeated."""
    word = response.text[:100].strip()
    return word if re.fullmatch(r"[a-z_]{1,60}", word) else ""


def _refusal(response: httpx.Response, word: str) -> DeliveryError:
    status = response.status_code
    if word in _GONE or status in (403, 404, 410):
        return AuthenticationError(
            f"Slack no longer takes this webhook ({word or status}); make a new one, set SLACK_WEBHOOK_URL"
        )
    if status < 400:
        return OutcomeUnknown(f"Slack answered {status} without its `ok`", reason="server_error")
    if status == 400:
        return PermanentError(f"Slack refused the message: {word or status}", code=word or "400")
    return failure_from_status(
        status,
        f"Slack answered {status} {word}".rstrip(),
        parse_retry_after(response.headers.get("Retry-After")),
    )
