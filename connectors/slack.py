"""Slack connector: posts messages to a team channel through an incoming webhook of Slack, or of a compatible server."""

from __future__ import annotations

import json
import re
from typing import Annotated
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, SecretStr

from bridge.connector import (
    Connector,
    ConnectorGroup,
    ConnectorSettings,
    Context,
    Limits,
    Params,
    SecretUrl,
    SerializeBy,
    Success,
    failure_from_status,
    http_client,
    param,
    parse_retry_after,
    per_event,
)
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
)

MAX_TEXT_LENGTH = 40_000
"""Characters. Slack silently truncates longer messages; the connector truncates them with a visible ellipsis."""

_WEBHOOK_REVOKED = ("invalid_token", "no_service", "no_service_id", "no_team", "no_active_hooks")
"""Slack error codes for a webhook that does not exist any more."""
_CHANNEL_CLOSED = {
    "action_prohibited": "ask an administrator of the workspace to allow the webhook, or choose another channel",
    "posting_to_general_channel_denied": "choose a channel in which the app may post",
    "channel_is_archived": "unarchive the channel, or choose another one",
    "channel_not_found": "choose a channel that exists",
    "user_not_found": "choose a person or channel that exists",
    "team_disabled": "reactivate the workspace",
}
"""Slack error codes for a webhook that may not post there, and what ends that."""
_NEW_WEBHOOK = "create a new one and set SLACK_WEBHOOK_URL"
_NOT_TEXT = ("no_text", "invalid_payload", "missing_text_or_fallback_or_attachments")
"""Slack error codes for a message without text."""

_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_WORKFLOW_PATHS = ("/triggers/", "/workflows/")
_WEBHOOK_PATH = re.compile(r"/services/\w+/\w+/\w+/?")

_MARKUP = re.compile(r"<(?:https?://|mailto:|tel:|[!@#])[^<>\s][^<>]*>")
"""A link or a mention. Values of events are escaped and contain no angle brackets: only a rule's own text has any."""


def _takes_messages(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if parts.hostname in _SLACK_HOSTS and parts.path.startswith(_WORKFLOW_PATHS):
        raise ValueError(
            "starts a workflow of Slack, which accepts every request and shows none of its text. In Slack, create an "
            "app with an incoming webhook (https://api.slack.com/apps) and use its address, which contains /services/"
        )
    host = parts.hostname or ""
    is_webhook = host in _SLACK_HOSTS and _WEBHOOK_PATH.fullmatch(parts.path)
    if not is_webhook and (host == "slack.com" or host.endswith((".slack.com", ".slack-gov.com"))):
        raise ValueError(
            "is not the whole address of an incoming webhook: copy it from the page Incoming Webhooks of the app; it "
            "looks like https://hooks.slack.com/services/T.../B.../..."
        )
    return url


class Settings(ConnectorSettings):
    """Settings: `SLACK_WEBHOOK_URL`, a secret, because anyone who knows it can post."""

    webhook_url: Annotated[SecretUrl, AfterValidator(_takes_messages)]
    """URL of an incoming webhook of the channel (`https://hooks.slack.com/services/...`), also of Mattermost,
    Rocket.Chat and others that accept Slack's messages. The address of a workflow does not work."""


connector = Connector(
    "slack",
    settings=Settings,
    limits=Limits(per_second=1, concurrency=2),
    description="Posts messages to a channel of the team's Slack.",
    group=ConnectorGroup.TEAM_MESSAGES,
)


@connector.client
class Webhook:
    """Client of one incoming webhook."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.webhook_url.get_secret_value()
        self._http = http_client()
        self.is_slack = urlsplit(self._url).hostname in _SLACK_HOSTS

    def post(self, body: dict[str, object]) -> httpx.Response:
        """Post one message and return the response. httpx exceptions propagate."""
        return self._http.post(self._url, json=body)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()


@connector.check
def check(webhook: Webhook) -> str:
    """Send a message without text, which Slack rejects without posting anything."""
    response = webhook.post({})
    code = _error_code(response)
    if response.status_code == 400 and code in _NOT_TEXT:
        return "webhook is active"
    if response.status_code == 400 and not webhook.is_slack and code not in _CHANNEL_CLOSED:
        return (
            "the server answers; whether it posts messages shows with the first one, because it is not Slack"
        )
    raise _failure_from_response(response, code)


class PostParams(Params):
    """A message to the team."""

    text: str = param(
        ...,
        "Message text, with Slack's *bold*, _italics_, links (`<https://example.com|text>`) and mentions "
        "(`<!channel>`, `<@U012AB3CD>`). Values from the event are escaped: a visitor's name cannot mention @channel.",
        example="A call from {{ contact.name | default('an unknown caller') }} failed: {{ event.conversationId }}",
        markup="slack",
        min_length=1,
    )


@connector.action(idempotency=per_event, dedupe_by="text", serialize_by=SerializeBy.NONE)
def post(webhook: Webhook, params: PostParams, context: Context) -> Success:
    """Post a message to the webhook's channel."""
    del context
    response = webhook.post({"text": _mrkdwn(params.text)})
    if response.is_success and _is_acceptance(response.text):
        return Success(detail="posted")
    raise _failure_from_response(response, _error_code(response))


def _mrkdwn(text: str) -> str:
    """Return the text with only links and mentions as markup, truncated: Slack cuts longer texts silently."""
    parts, end = [], 0
    for markup in _MARKUP.finditer(text):
        parts += [_escape(text[end : markup.start()]), markup[0]]
        end = markup.end()
    escaped = "".join([*parts, _escape(text[end:])])
    if len(escaped) <= MAX_TEXT_LENGTH:
        return escaped
    return re.sub(r"(?:&[a-z]*|<[^<>]*)$", "", escaped[: MAX_TEXT_LENGTH - 1]) + "…"


def _escape(text: str) -> str:
    """Escape the characters that are markup to Slack, unless they are escaped already, as values of events are."""
    text = re.sub(r"&(?!(?:amp|lt|gt);)", "&amp;", text)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _is_acceptance(body: str) -> bool:
    """Return True for the body of a success: Slack says `ok`, other servers nothing, or JSON without an error."""
    body = body.strip()
    if body in ("", "ok"):
        return True
    answer = _json_object(body)
    return answer is not None and not (
        answer.get("ok") is False or answer.get("success") is False or answer.get("error")
    )


def _json_object(body: str) -> dict[str, object] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _error_code(response: httpx.Response) -> str:
    """Return Slack's one-word error, or "" for anything longer: that is a proxy's page and is not repeated."""
    body = response.text.strip()
    code = str((_json_object(body) or {"error": body}).get("error", ""))
    return code if re.fullmatch(r"[a-z_]{1,60}", code) else ""


def _failure_from_response(response: httpx.Response, code: str) -> DeliveryError:
    status = response.status_code
    if code in _CHANNEL_CLOSED:
        return AccountError(
            f"Slack does not accept messages of this webhook ({code})",
            fix=f"{_CHANNEL_CLOSED[code]}; a webhook for another channel goes into SLACK_WEBHOOK_URL",
        )
    if code in _WEBHOOK_REVOKED or status in (401, 403, 404, 410):
        return AuthenticationError(
            f"Slack no longer accepts this webhook ({code or status})", fix=_NEW_WEBHOOK
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
