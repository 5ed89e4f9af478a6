"""Mock workspace of Slack: the part of its Web API that a bot posts with. Errors have status 200, as Slack's do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import MAX_RECORDS, Handler, ProviderError, ProviderRequest

BOT_TOKEN = "xoxb-1000000000-2000000000-sandboxsandboxsandboxsan"  # noqa: S105 - valid only in this sandbox
SCOPES = ("chat:write", "channels:read", "groups:read", "channels:history", "groups:history")
MAX_TEXT_LENGTH = 40_000
MAX_METADATA_BYTES = 8_000
MAX_PAGE = 999
_POST_ARGUMENTS = {
    "channel", "text", "blocks", "attachments", "thread_ts", "reply_broadcast", "metadata", "unfurl_links",
    "unfurl_media", "mrkdwn", "parse", "link_names", "username", "icon_emoji", "icon_url", "client_msg_id",
}  # fmt: skip


@dataclass
class Channel:
    """A channel of the workspace."""

    id: str
    name: str
    is_member: bool = True
    is_private: bool = False
    is_archived: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the channel as the API does."""
        return {
            "id": self.id,
            "name": self.name,
            "is_channel": True,
            "is_member": self.is_member,
            "is_private": self.is_private,
            "is_archived": self.is_archived,
        }


@dataclass(frozen=True)
class BotMessage:
    """A message that the bot has posted."""

    channel: str
    ts: str
    text: str
    payload: dict[str, Any]
    received_at: datetime
    thread_ts: str | None = None

    def as_json(self, *, metadata: bool) -> dict[str, Any]:
        """Return the message as lists do; the payload of its metadata only if the request asks for it."""
        message: dict[str, Any] = {
            "type": "message",
            "bot_id": "B00SANDBOX",
            "text": self.text,
            "ts": self.ts,
        }
        if self.thread_ts is not None:
            message["thread_ts"] = self.thread_ts
        sent = self.payload.get("metadata")
        if sent:
            message["metadata"] = sent if metadata else {"event_type": sent["event_type"]}
        return message


def _default_channels() -> list[Channel]:
    return [
        Channel("C00TEAM01", "team"),
        Channel("C00SALES1", "sales"),
        Channel("C00LEADS1", "leads", is_private=True),
        Channel("C00OTHER1", "other", is_member=False),
        Channel("C00HIDDEN", "hidden", is_member=False, is_private=True),
        Channel("C00OLD001", "old", is_archived=True),
    ]


@dataclass
class Workspace:
    """A workspace with channels, and an app whose bot is a member of some."""

    now: Callable[[], datetime]
    channels: list[Channel] = field(default_factory=_default_channels)
    scopes: set[str] = field(default_factory=lambda: set(SCOPES))
    messages: list[BotMessage] = field(default_factory=list)
    page_size: int = MAX_PAGE
    """Most items of a page: Slack may return fewer than a request asks for."""
    locked_threads: set[str] = field(default_factory=set)

    def reset(self) -> None:
        """Restore the state of a new workspace."""
        fresh = Workspace(self.now)
        self.channels, self.scopes, self.messages = fresh.channels, fresh.scopes, fresh.messages
        self.page_size, self.locked_threads = fresh.page_size, fresh.locked_threads

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes of the methods, which all take GET and POST."""
        methods: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "conversations.info": self._info,
            "conversations.list": self._list,
            "conversations.history": self._history,
            "conversations.replies": self._replies,
        }
        return [
            (verb, f"/api/{name}", partial(self._answer, run))
            for name, run in methods.items()
            for verb in ("GET", "POST")
        ]

    def _answer(self, run: Callable[[dict[str, Any]], dict[str, Any]], request: ProviderRequest) -> Response:
        token = request.bearer_token()
        if token is None:
            raise _error("not_authed")
        if token != BOT_TOKEN:
            raise _error("invalid_auth")
        return JSONResponse({"ok": True} | run(_arguments(request)))

    def _auth_test(self, arguments: dict[str, Any]) -> dict[str, Any]:
        del arguments
        return {
            "url": "https://harbour-light.slack.com/",
            "team": "Harbour Light",
            "user": "bridge",
            "team_id": "T00SANDBOX",
            "user_id": "U00SANDBOX",
            "bot_id": "B00SANDBOX",
        }

    def _post_message(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self._require("chat:write")
        if unknown := set(arguments) - _POST_ARGUMENTS:
            raise _error("invalid_arguments", response_metadata={"messages": sorted(unknown)})
        channel = self._channel(arguments.get("channel"), by_name=True)
        if channel.is_archived:
            raise _error("is_archived")
        if not channel.is_member and (channel.is_private or "chat:write.public" not in self.scopes):
            raise _error("not_in_channel")
        text = arguments.get("text")
        if not text and not arguments.get("blocks") and not arguments.get("attachments"):
            raise _error("no_text")
        if not isinstance(text, str | None):
            raise _error("invalid_arguments")
        if len(text or "") > MAX_TEXT_LENGTH:
            raise _error("msg_too_long")
        _check_metadata(arguments.get("metadata"))
        thread = arguments.get("thread_ts")
        if thread in self.locked_threads:
            raise _error("restricted_action_thread_locked")
        if not self._is_parent(channel, thread):
            thread = None  # a reply to a deleted message is posted to the channel, as users of the API report
        if len(self.messages) >= MAX_RECORDS:
            raise _error("message_limit_exceeded")
        ts = f"{int(self.now().timestamp())}.{len(self.messages) + 1:06d}"
        message = BotMessage(channel.id, ts, text or "", dict(arguments), self.now(), thread)
        self.messages.append(message)
        return {"channel": channel.id, "ts": ts, "message": message.as_json(metadata=False)}

    def _is_parent(self, channel: Channel, ts: Any) -> bool:
        return any(
            message.ts == ts and message.channel == channel.id and message.thread_ts is None
            for message in self.messages
        )

    def _info(self, arguments: dict[str, Any]) -> dict[str, Any]:
        channel = self._channel(arguments.get("channel"))
        self._require("groups:read" if channel.is_private else "channels:read")
        return {"channel": channel.as_json()}

    def _list(self, arguments: dict[str, Any]) -> dict[str, Any]:
        types = str(arguments.get("types", "public_channel")).split(",")
        for kind in types:
            self._require(
                {"public_channel": "channels:read", "private_channel": "groups:read"}.get(kind, kind)
            )
        archived = arguments.get("exclude_archived") != "true"
        found = [
            channel.as_json()
            for channel in self.channels
            if ("private_channel" if channel.is_private else "public_channel") in types
            and (channel.is_member or not channel.is_private)
            and (archived or not channel.is_archived)
        ]
        return self._page("channels", found, arguments)

    def _history(self, arguments: dict[str, Any]) -> dict[str, Any]:
        found = [message for message in self._readable(arguments) if message.thread_ts is None]
        return self._message_page(found[::-1], arguments)

    def _replies(self, arguments: dict[str, Any]) -> dict[str, Any]:
        parent = arguments.get("ts")
        readable = self._readable(arguments | {"oldest": "0"})
        if not any(message.ts == parent for message in readable):
            raise _error("thread_not_found")
        oldest = float(arguments.get("oldest") or 0)
        found = [
            message
            for message in readable
            if message.ts == parent or (message.thread_ts == parent and float(message.ts) > oldest)
        ]
        return self._message_page(found, arguments)

    def _readable(self, arguments: dict[str, Any]) -> list[BotMessage]:
        channel = self._channel(arguments.get("channel"))
        self._require("groups:history" if channel.is_private else "channels:history")
        if not channel.is_member:
            raise _error("not_in_channel")
        oldest = float(arguments.get("oldest") or 0)
        return [item for item in self.messages if item.channel == channel.id and float(item.ts) > oldest]

    def _message_page(self, found: list[BotMessage], arguments: dict[str, Any]) -> dict[str, Any]:
        metadata = str(arguments.get("include_all_metadata")).lower() == "true"
        return self._page("messages", [message.as_json(metadata=metadata) for message in found], arguments)

    def _page(self, name: str, found: list[dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            start, limit = int(arguments.get("cursor") or 0), int(arguments.get("limit") or 100)
        except ValueError:
            raise _error("invalid_cursor") from None
        if not 1 <= limit <= MAX_PAGE:
            raise _error("invalid_limit")
        end = start + min(limit, self.page_size)
        more = end < len(found)
        return {
            name: found[start:end],
            "has_more": more,
            "response_metadata": {"next_cursor": str(end) if more else ""},
        }

    def _channel(self, name: Any, *, by_name: bool = False) -> Channel:
        """Return a channel by its ID; with `by_name`, also a public one by its name."""
        for channel in self.channels:
            if channel.id == name and (channel.is_member or not channel.is_private):
                return channel
            if by_name and not channel.is_private and name in (f"#{channel.name}", channel.name):
                return channel
        raise _error("channel_not_found")

    def _require(self, scope: str) -> None:
        if scope not in self.scopes:
            raise _error("missing_scope", needed=scope, provided=",".join(sorted(self.scopes)))


def _arguments(request: ProviderRequest) -> dict[str, Any]:
    """Return the arguments of the query and the body: a JSON object, or a form."""
    arguments: dict[str, Any] = dict(request.query)
    if request.method == "GET" or not request.body:
        return arguments
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("application/json"):
        try:
            body = request.json()
        except ValueError:
            raise _error("invalid_json") from None
        if not isinstance(body, dict):
            raise _error("json_not_object")
        return arguments | body
    if content_type.startswith("application/x-www-form-urlencoded"):
        return arguments | dict(parse_qsl(request.body.decode("utf-8", "replace")))
    raise _error("invalid_post_type")


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            raise _error("invalid_metadata_format") from None
    payload = metadata.get("event_payload") if isinstance(metadata, dict) else None
    kind = metadata.get("event_type") if isinstance(metadata, dict) else None
    if (
        not isinstance(payload, dict)
        or not isinstance(kind, str)
        or not re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", kind)
    ):
        raise _error("invalid_metadata_format")
    if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
        raise _error("metadata_too_large")


def _error(code: str, **details: Any) -> ProviderError:
    return ProviderError(JSONResponse({"ok": False, "error": code, **details}))
