"""Incoming webhooks of Slack, and of servers that accept the same messages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from bridge.connector import failure_from_status, http_client, parse_retry_after
from bridge.errors import AccountError, AuthenticationError, DeliveryError, OutcomeUnknown, PermanentError

from .settings import SLACK_HOSTS

if TYPE_CHECKING:
    import httpx

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


class Webhook:
    """Client of one incoming webhook."""

    def __init__(self, url: SecretStr) -> None:
        self._url = url.get_secret_value()
        self._http = http_client()
        self._is_slack = urlsplit(self._url).hostname in SLACK_HOSTS

    def post(self, text: str) -> None:
        """Post a message to the webhook's channel. Raise the error that the response reports."""
        response = self._http.post(self._url, json={"text": text})
        if not (response.is_success and _is_acceptance(response.text)):
            raise _failure_from_response(response, _error_code(response))

    def check(self) -> str:
        """Send a message without text, which Slack rejects without posting anything."""
        response = self._http.post(self._url, json={})
        code = _error_code(response)
        if response.status_code == 400 and code in _NOT_TEXT:
            return "webhook is active"
        if response.status_code == 400 and not self._is_slack and code not in _CHANNEL_CLOSED:
            return "the server answers; it is not Slack, so only the first message shows whether it posts"
        raise _failure_from_response(response, code)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()


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
