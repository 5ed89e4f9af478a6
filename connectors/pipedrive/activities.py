"""Actions that log calls and chats as done activities of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any, Literal

from bridge.connector import (
    BatchItem,
    BatchResult,
    CallParams,
    ChatParams,
    Context,
    Properties,
    Success,
    param,
    per_conversation,
)

from .account import Account
from .settings import Settings, connector
from .timeline import Draft, DraftParams, find_activity, log

BATCH_SIZE = 5
"""Deliveries of an attempt, which have its time limit together."""
_PROPERTIES = param(
    {},
    "Additional fields of the activity, such as `public_description`, by name or key. Activities have no custom "
    "fields: `upsert_person` and `create_deal` write those.",
    example={"priority": "High"},
)


class LogCallParams(DraftParams, CallParams):
    """A phone call to log."""

    call_type: str | None = param(
        "call", "Type of the activity: the name or key of one that the account has.", example="Support call"
    )
    properties: Properties = _PROPERTIES

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the details with what an activity has no fields for."""
        caller, callee = self.caller_and_callee(context)
        seconds = self.duration_seconds()
        return {
            "Status": self.normalized_status.replace("_", " "),
            "From": caller,
            "To": callee,
            "Duration": None if seconds is None else f"{round(seconds)} s",
            "Recording": self.recording_url,
            **super().details(context),
        }


class LogChatParams(DraftParams, ChatParams):
    """A chat to log."""

    chat_type: str | None = param(
        "Chat",
        "Type of the activity: the name or key of one that the account has. Without one: a task. "
        "`bridge connections setup` creates the type `Chat`.",
        example="Support chat",
    )
    properties: Properties = _PROPERTIES


@connector.action(idempotency=per_conversation, batch=BATCH_SIZE)
def log_call(account: Account, items: Sequence[BatchItem[LogCallParams]]) -> list[BatchResult]:
    """Log the call as a done activity of the person, once per conversation."""

    def draft(call: LogCallParams, context: Context) -> Draft:
        type_, notes = _type(account, call.call_type or "call", "call")
        seconds = call.duration_seconds()
        minutes = None if seconds is None else min(ceil(seconds / 60), 24 * 60)
        fields = {
            "subject": call.display_title(context),
            "type": type_,
            **_due(call.start(context)),
            "duration": None if minutes is None else f"{minutes // 60:02}:{minutes % 60:02}",
        }
        return Draft(fields, notes, call.recording_url)

    return log(account, items, draft)


@connector.action(idempotency=per_conversation, batch=BATCH_SIZE)
def log_chat(account: Account, items: Sequence[BatchItem[LogChatParams]]) -> list[BatchResult]:
    """Log the chat as a done activity of the person, once per conversation."""

    def draft(chat: LogChatParams, context: Context) -> Draft:
        type_, notes = _type(account, chat.chat_type or "Chat", "task")
        fields = {"subject": chat.display_title(context), "type": type_, **_due(context.event.occurred_at)}
        return Draft(fields, notes)

    return log(account, items, draft)


@log_call.check_params
@log_chat.check_params
def check_deal(_settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a deal that a rule itself names. One of the event is only noted."""
    deal = params.get("deal")
    return None if deal is None or deal.isdecimal() else "deal: write a deal's ID (digits)"


@log_call.lookup
def find_call(account: Account, call: LogCallParams, context: Context) -> Success | None:
    """Find the activity by the reference in its note."""
    return find_activity(account, call, context)


@log_chat.lookup
def find_chat(account: Account, chat: LogChatParams, context: Context) -> Success | None:
    """Find the activity by the reference in its note."""
    return find_activity(account, chat, context)


def _due(start: datetime) -> dict[str, str]:
    """Return the time of an activity, which Pipedrive takes in UTC and in minutes."""
    in_utc = start.astimezone(UTC)
    return {"due_date": in_utc.strftime("%Y-%m-%d"), "due_time": in_utc.strftime("%H:%M")}


def _type(account: Account, wanted: str, default: Literal["call", "task"]) -> tuple[str, list[str]]:
    """Return the key of an activity type, and a note if the account does not have the wanted one."""
    if wanted.casefold() == "call":  # every account has it
        return "call", []
    for item in account.activity_types():
        if wanted.casefold() in (str(item.get("key_string")).casefold(), str(item.get("name")).casefold()):
            return str(item["key_string"]), []
    return default, [
        f"as a {default}, because Pipedrive has no activity type `{wanted}`: add it under Company settings > Activities"
    ]
