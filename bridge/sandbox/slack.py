"""Mock Slack: one incoming webhook, one workflow trigger, a bot, and servers that accept the same messages.

The text of a message is read as Slack reads it: `mentions` and `links` are what the channel would see. A trigger
accepts every request and shows nothing of it, like a workflow that has no variable of that name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse, Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.provider import MAX_RECORDS, Handler, MockProvider, ProviderError, ProviderRequest
from bridge.sandbox.slack_workspace import Workspace

TEAM_ID = "T00SANDBOX"
WEBHOOK_ID = "B00SANDBOX"
SECRET = "sandboxsandboxsandboxsan"  # noqa: S105 - valid only in this sandbox
MAX_TEXT_LENGTH = 40_000
MAX_BLOCKS = 50
MAX_ATTACHMENTS = 100

_ERROR_CODES = {
    400: "invalid_payload",
    403: "action_prohibited",
    404: "channel_not_found",
    410: "channel_is_archived",
    429: "rate_limited",
    500: "rollup_error",
}

_COMPATIBLE: Mapping[str, Callable[[], Response]] = {
    "mattermost": lambda: PlainTextResponse("ok"),
    "rocket_chat": lambda: JSONResponse({"success": True}),
    "google_chat": lambda: JSONResponse({"name": "spaces/AAAA/messages/1", "text": "..."}),
    "ok_json": lambda: JSONResponse({"ok": True}),
    "empty": lambda: Response(status_code=204),
}
"""What other servers answer to a message in Slack's form."""


@dataclass(frozen=True)
class SlackMessage:
    """A message accepted by the webhook, or posted by the bot."""

    text: str
    payload: dict[str, Any]
    received_at: datetime
    channel: str | None = None
    """The ID of the bot's channel."""
    thread_ts: str | None = None
    """The message that the bot has replied to."""

    @property
    def mentions(self) -> list[str]:
        """Whom the message notifies: `!channel`, `@U123`."""
        return re.findall(r"<([!@][^<>|]+)(?:\|[^<>]*)?>", self.text)

    @property
    def links(self) -> list[str]:
        """The addresses that the message links to."""
        return re.findall(r"<((?:https?://|mailto:|tel:)[^<>|]+)(?:\|[^<>]*)?>", self.text)


class Slack(MockProvider):
    """A workspace with one incoming webhook that posts to one channel, and an app with a bot."""

    name = "slack"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self.workspace = Workspace(clock.now)
        super().__init__(clock, faults)

    @property
    def webhook_path(self) -> str:
        """The path of the workspace's only webhook."""
        return f"/services/{TEAM_ID}/{WEBHOOK_ID}/{SECRET}"

    @property
    def messages(self) -> list[SlackMessage]:
        """The posted messages, oldest first: those of the webhook before those of the bot."""
        with self.lock:
            return self._messages + [
                SlackMessage(item.text, item.payload, item.received_at, item.channel, item.thread_ts)
                for item in self.workspace.messages
            ]

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes of the webhook, of a workflow trigger, of the compatible servers, and of the bot."""
        return [
            ("POST", "/services/{team}/{hook}/{secret}", self._post),
            ("POST", "/triggers/{team}/{workflow}/{secret}", self._trigger),
            ("POST", "/compatible/{server}", self._post_to_compatible),
            *self.workspace.routes(),
        ]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the posted messages."""
        return {
            "messages": [
                {
                    "text": m.text,
                    "payload": m.payload,
                    "mentions": m.mentions,
                    "links": m.links,
                    "channel": m.channel,
                    "thread_ts": m.thread_ts,
                    "at": m.received_at.isoformat(),
                }
                for m in self.messages
            ]
        }

    def reset(self) -> None:
        """Remove all messages."""
        with self.lock:
            self._messages: list[SlackMessage] = []
            self.workspace.reset()

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return Slack's error code for the status, as plain text."""
        response = PlainTextResponse(message or _ERROR_CODES.get(status, "server_error"), status)
        if status == 429:
            response.headers["Retry-After"] = "1"
        return response

    def quota_error_response(self) -> Response:
        """Return the response to more than one message per second."""
        return self.error_response(429)

    def _post(self, request: ProviderRequest) -> Response:
        if (request.path_params["team"], request.path_params["hook"]) != (TEAM_ID, WEBHOOK_ID):
            raise self._error(404, "no_service")
        if request.path_params["secret"] != SECRET:
            raise self._error(403, "invalid_token")
        self._store(self._payload(request))
        return PlainTextResponse("ok")

    def _trigger(self, request: ProviderRequest) -> Response:
        del request
        return JSONResponse({"ok": True})

    def _post_to_compatible(self, request: ProviderRequest) -> Response:
        answer = _COMPATIBLE.get(request.path_params["server"])
        if answer is None:
            raise self._error(404, "no_service")
        self._store(self._payload(request))
        return answer()

    def _store(self, payload: dict[str, Any]) -> None:
        if len(self._messages) >= MAX_RECORDS:
            raise self.storage_full_error()
        self._messages.append(SlackMessage(payload.get("text") or "", payload, self.now()))

    def _payload(self, request: ProviderRequest) -> dict[str, Any]:
        try:
            if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
                payload = json.loads(parse_qs(request.body.decode()).get("payload", [""])[0])
            else:
                payload = request.json()
        except ValueError:
            raise self._error(400, "invalid_payload") from None
        if not isinstance(payload, dict):
            raise self._error(400, "invalid_payload")
        text, blocks, attachments = (payload.get(key) for key in ("text", "blocks", "attachments"))
        if text is not None and not isinstance(text, str):
            raise self._error(400, "invalid_payload")
        if not text and not blocks and not attachments:
            raise self._error(400, "no_text")
        if len(text or "") > MAX_TEXT_LENGTH:
            raise self._error(400, "msg_too_long")
        if blocks is not None and not _is_block_list(blocks):
            raise self._error(400, "invalid_blocks")
        if attachments is not None and not isinstance(attachments, list):
            raise self._error(400, "invalid_attachments")
        if len(attachments or ()) > MAX_ATTACHMENTS:
            raise self._error(400, "too_many_attachments")
        if "channel" in payload:
            raise self._error(404, "channel_not_found")
        return payload

    def _error(self, status: int, code: str) -> ProviderError:
        return ProviderError(self.error_response(status, code))


def _is_block_list(blocks: Any) -> bool:
    return (
        isinstance(blocks, list)
        and len(blocks) <= MAX_BLOCKS
        and all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in blocks)
    )
