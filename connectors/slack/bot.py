"""The app's bot: Slack's Web API, which answers errors with status 200."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr

from bridge.connector import JsonApi, json_object, parse_retry_after
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)

if TYPE_CHECKING:
    import httpx

THREAD_CLOSED = (
    "thread_not_found",
    "invalid_thread_ts",
    "cannot_reply_to_message",
    "restricted_action_thread_locked",
    "restricted_action_non_threadable_channel",
)
"""Error codes for a reply that its thread does not take."""
_REVOKED = (
    "not_authed",
    "invalid_auth",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "not_allowed_token_type",
    "metadata_must_be_sent_from_app",
)
_WORKSPACE_CLOSED = (
    "access_denied",
    "accesslimited",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "org_login_required",
    "team_access_not_granted",
    "two_factor_setup_required",
)
_CHANNEL_CLOSED = {
    "channel_not_found": "the app cannot see the channel: check `channel`, and invite the app to a private channel",
    "not_in_channel": "the app is not in the channel: invite it with /invite, or add the scope chat:write.public",
    "no_permission": "the app is not in the channel: invite it with /invite",
    "is_archived": "the channel is archived: unarchive it, or choose another one",
    "messages_tab_disabled": "the app does not accept direct messages: turn on its Messages tab, or choose a channel",
    "restricted_action": "the app may not post there: ask an administrator of the workspace, or choose another channel",
    "restricted_action_read_only_channel": "only some members may post there: allow the app, or choose another channel",
    "restricted_action_thread_only_channel": "the channel takes replies only: choose another one",
}
"""Error codes about one channel, and what ends that. Other channels of the connection are not affected."""
_NEW_TOKEN = "install the app to the workspace again and set SLACK_BOT_TOKEN"  # noqa: S105 - not a token
_PAGE = 200


class PostedMessage(NamedTuple):
    """What Slack says about a message that it has posted."""

    channel: str
    """ID of the channel."""
    ts: str
    """ID of the message in the channel."""
    is_reply: bool
    """False also for a reply to a deleted message, which Slack posts to the channel."""


class MissingScope(AccountError):
    """The token lacks a scope."""


def refusal(response: httpx.Response) -> DeliveryError | None:
    """Return the error that a response reports; None for a success, and if the HTTP status says it all."""
    body = json_object(response)
    if response.is_success and body.get("ok") is True:
        return None
    if body.get("ok") is not False:
        if response.is_success:
            return OutcomeUnknown(
                f"Slack answered {response.status_code} without `ok`", reason="server_error"
            )
        return None
    code = body.get("error")
    code = code if isinstance(code, str) and code.isidentifier() and len(code) <= 60 else "unknown"
    return _failure_from_code(code, body, response)


def _failure_from_code(code: str, body: Mapping[str, Any], response: httpx.Response) -> DeliveryError:
    detail = f"Slack rejected the message: {code}"
    if code in ("ratelimited", "rate_limited") or response.status_code == 429:
        return RateLimited(detail, retry_after=parse_retry_after(response.headers.get("Retry-After")))
    if code == "message_limit_exceeded":
        return QuotaExhausted("the workspace has used up its messages")
    if code in _REVOKED:
        return AuthenticationError(f"Slack does not accept the bot token ({code})", fix=_NEW_TOKEN)
    if code == "missing_scope":
        needed = str(body.get("needed", ""))[:200]
        return MissingScope(
            f"the bot token lacks the scope {needed}".rstrip(),
            fix="add the scope on the page OAuth & Permissions of the app and install the app again",
        )
    if code in _WORKSPACE_CLOSED:
        return AccountError(
            f"the workspace does not let the app in ({code})", fix="ask an administrator of the workspace"
        )
    if code in _CHANNEL_CLOSED:
        return PermanentError(f"{_CHANNEL_CLOSED[code]} ({code})", code=code)
    if code in ("internal_error", "fatal_error", "service_unavailable") or response.status_code >= 500:
        return OutcomeUnknown(
            f"Slack failed: {code}", reason="server_error"
        )  # it may have posted nevertheless
    if code in ("team_added_to_org", "request_timeout"):
        return TransientError(detail)
    return PermanentError(detail, code=code)


class Bot:
    """Client of one workspace."""

    def __init__(self, url: str, token: SecretStr, channel: str | None) -> None:
        self.channel = channel
        """Channel of steps without `channel`."""
        self._api = JsonApi("Slack", url, bearer=token, refusal=refusal)

    def post(self, message: Mapping[str, Any]) -> PostedMessage:
        """Post a message."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        body = self._api.write("POST", "/chat.postMessage", json=message, headers=headers)
        channel, ts, posted = body.get("channel"), body.get("ts"), body.get("message")
        if not isinstance(channel, str) or not isinstance(ts, str):
            raise OutcomeUnknown("Slack's response does not say what was posted", reason="server_error")
        is_reply = "thread_ts" in (posted if isinstance(posted, dict) else message)
        return PostedMessage(channel, ts, is_reply)

    def identity(self) -> Mapping[str, Any]:
        """Return the names of the bot (`user`) and of its workspace (`team`)."""
        body: Mapping[str, Any] = self._api.read("/auth.test")
        return body

    def channel_info(self, channel_id: str) -> Mapping[str, Any]:
        """Return a channel. Raise MissingScope without channels:read (private channels: groups:read)."""
        info: Mapping[str, Any] = self._api.read(
            "/conversations.info", query={"channel": channel_id}, holds="channel", kind=dict
        )
        return info

    def public_channels(self) -> Iterator[dict[str, Any]]:
        """Yield the public channels. Raise MissingScope without channels:read."""
        return self._pages(
            "/conversations.list", "channels", {"types": "public_channel", "exclude_archived": "false"}
        )

    def messages(self, channel_id: str, oldest: float, thread: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the messages of a channel, or of a thread in it, that are newer than `oldest` (a Unix time)."""
        query = {"channel": channel_id, "oldest": f"{oldest:.6f}", "include_all_metadata": "true"}
        if thread is None:
            return self._pages("/conversations.history", "messages", query)
        return self._pages("/conversations.replies", "messages", query | {"ts": thread})

    def _pages(self, path: str, items: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor = ("response_metadata.next_cursor", "cursor")
        return self._api.pages(path, items=items, query={**query, "limit": _PAGE}, cursor=cursor)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._api.close()
