"""Slack connector: posts messages to a team channel through an incoming webhook."""

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

MAX_TEXT_LENGTH = 40_000
"""Characters. Slack silently truncates longer messages; the connector truncates them with a visible ellipsis."""

_WEBHOOK_DISABLED = (
    "invalid_token",
    "no_service",
    "no_service_id",
    "no_team",
    "team_disabled",
    "channel_is_archived",
)
"""Slack error codes after which the webhook accepts no further message."""


class Settings(ConnectorSettings):
    """Settings: `SLACK_WEBHOOK_URL`, a secret, because anyone who knows it can post."""

    webhook_url: SecretUrl
    """URL of an incoming webhook of the channel (`https://hooks.slack.com/services/...`)."""


connector = Connector(
    "slack",
    settings=Settings,
    limits=Limits(per_second=1, concurrency=2),
    description="Posts messages to a channel of the team's Slack.",
)


class Webhook:
    """Client of one incoming webhook."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = http_client()

    def post(self, body: dict[str, object]) -> httpx.Response:
        """Post one message and return the response. httpx exceptions propagate."""
        return self._http.post(self._url, json=body)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()


@connector.client
def client(settings: Settings) -> Webhook:
    """Return a client of the webhook that reuses its HTTP connections."""
    return Webhook(settings.webhook_url.get_secret_value())


@connector.check
def check(webhook: Webhook) -> str:
    """Send a message without text, which Slack rejects without posting anything."""
    response = webhook.post({})
    code = _error_code(response)
    if response.status_code == 400 and code in (
        "no_text",
        "invalid_payload",
        "missing_text_or_fallback_or_attachments",
    ):
        return "webhook is active"
    raise _failure_from_response(response, code)


class PostParams(Params):
    """A message to the team."""

    text: str = param(
        ...,
        "Message text. Slack's *bold* and _italics_ work; `<`, `>` and `&` are shown literally, so a visitor's "
        "name cannot mention @channel.",
        example="A call from {{ contact.name | default('an unknown caller') }} failed: {{ event.conversationId }}",
        min_length=1,
    )


@connector.action(idempotency=per_event, dedupe_by="text", serialize_by=SerializeBy.NONE)
def post(webhook: Webhook, params: PostParams, context: Context) -> Success:
    """Post a message to the webhook's channel."""
    del context
    response = webhook.post({"text": _escape(params.text)})
    code = _error_code(response)
    if response.status_code == 200 and code == "ok":
        return Success(detail="posted")
    raise _failure_from_response(response, code)


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map network errors. Error responses are mapped where they are read."""
    return failure_from_exception(error)


def _escape(text: str) -> str:
    """Escape and truncate the text: Slack would interpret `<!channel>`, `<@U1>` and `<http://a|b>` as markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= MAX_TEXT_LENGTH:
        return escaped
    return re.sub(r"&[a-z]*$", "", escaped[: MAX_TEXT_LENGTH - 1]) + "…"


def _error_code(response: httpx.Response) -> str:
    """Return Slack's one-word response, or "" for anything longer: that is a proxy's page and is not repeated."""
    code = response.text[:100].strip()
    return code if re.fullmatch(r"[a-z_]{1,60}", code) else ""


def _failure_from_response(response: httpx.Response, code: str) -> DeliveryError:
    status = response.status_code
    if code in _WEBHOOK_DISABLED or status in (403, 404, 410):
        return AuthenticationError(
            f"Slack no longer accepts this webhook ({code or status}): create a new one and set SLACK_WEBHOOK_URL"
        )
    if status < 400:
        return OutcomeUnknown(f"Slack answered {status} without `ok`", reason="server_error")
    if status == 400:
        return PermanentError(f"Slack rejected the message: {code or status}", code=code or "400")
    return failure_from_status(
        status,
        f"Slack answered {status} {code}".rstrip(),
        parse_retry_after(response.headers.get("Retry-After")),
    )
