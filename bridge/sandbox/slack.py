"""Slack's incoming webhooks: one URL, answers in plain text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.provider import RECORDS_KEPT, Call, Handler, Partner, Refusal

TEAM = "T00SANDBOX"
HOOK = "B00SANDBOX"
SECRET = "sandboxsandboxsandboxsan"  # noqa: S105 - opens nothing but this sandbox
LONGEST_TEXT = 40_000
MOST_BLOCKS = 50
MOST_ATTACHMENTS = 100

_REASONS = {
    400: "invalid_payload",
    403: "action_prohibited",
    404: "channel_not_found",
    410: "channel_is_archived",
    429: "rate_limited",
    500: "rollup_error",
}


@dataclass(frozen=True)
class SlackMessage:
    """One message that the webhook accepted."""

    text: str
    payload: dict[str, Any]
    at: datetime


class Slack(Partner):
    """One incoming webhook that posts to one channel."""

    name = "slack"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self._messages: list[SlackMessage] = []

    @property
    def webhook_path(self) -> str:
        """The path of the only webhook of this workspace."""
        return f"/services/{TEAM}/{HOOK}/{SECRET}"

    @property
    def messages(self) -> list[SlackMessage]:
        """What was posted, oldest first."""
        with self.lock:
            return list(self._messages)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """The webhook."""
        return [("POST", "/services/{team}/{hook}/{secret}", self._post)]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The messages."""
        return {
            "messages": [
                {"text": m.text, "payload": m.payload, "at": m.at.isoformat()} for m in self.messages
            ]
        }

    def reset(self) -> None:
        """An empty channel."""
        with self.lock:
            self._messages.clear()

    def failure(self, status: int, message: str | None = None) -> Response:
        """Slack's word for the status, as plain text."""
        response = PlainTextResponse(message or _REASONS.get(status, "server_error"), status)
        if status == 429:
            response.headers["Retry-After"] = "1"
        return response

    def quota_exhausted(self) -> Response:
        """One message a second is what a webhook is for."""
        return self.failure(429)

    def _post(self, call: Call) -> Response:
        if (call.args["team"], call.args["hook"]) != (TEAM, HOOK):
            raise self._refusal(404, "no_service")
        if call.args["secret"] != SECRET:
            raise self._refusal(403, "invalid_token")
        payload = self._payload(call)
        if len(self._messages) >= RECORDS_KEPT:
            raise self.full()
        self._messages.append(SlackMessage(payload.get("text") or "", payload, self.now()))
        return PlainTextResponse("ok")

    def _payload(self, call: Call) -> dict[str, Any]:
        try:
            if call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
                payload = json.loads(parse_qs(call.body.decode()).get("payload", [""])[0])
            else:
                payload = call.json()
        except ValueError:
            raise self._refusal(400, "invalid_payload") from None
        if not isinstance(payload, dict):
            raise self._refusal(400, "invalid_payload")
        text, blocks, attachments = (payload.get(key) for key in ("text", "blocks", "attachments"))
        if text is not None and not isinstance(text, str):
            raise self._refusal(400, "invalid_payload")
        if not text and not blocks and not attachments:
            raise self._refusal(400, "no_text")
        if len(text or "") > LONGEST_TEXT:
            raise self._refusal(400, "msg_too_long")
        if blocks is not None and not _are_blocks(blocks):
            raise self._refusal(400, "invalid_blocks")
        if attachments is not None and not isinstance(attachments, list):
            raise self._refusal(400, "invalid_attachments")
        if len(attachments or ()) > MOST_ATTACHMENTS:
            raise self._refusal(400, "too_many_attachments")
        if "channel" in payload:
            raise self._refusal(404, "channel_not_found")
        return payload

    def _refusal(self, status: int, reason: str) -> Refusal:
        return Refusal(self.failure(status, reason))


def _are_blocks(blocks: Any) -> bool:
    return (
        isinstance(blocks, list)
        and len(blocks) <= MOST_BLOCKS
        and all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in blocks)
    )
