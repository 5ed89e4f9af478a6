"""Actions that log calls and chats on the contact's timeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from bridge.connector import (
    BatchItem,
    BatchResult,
    CallParams,
    ChatParams,
    ContactRef,
    Context,
    items_by_conversation,
    param,
    per_conversation,
    write_for_contacts,
)

from .account import BATCH_SIZE, Account
from .contact_source import Contacts
from .fields import MAX_BODY_LENGTH, OWNER, to_html, to_milliseconds, to_strings
from .settings import connector
from .timeline import write_records

CALL_STATUSES = {
    "completed": "COMPLETED",
    "failed": "FAILED",
    "busy": "BUSY",
    "no_answer": "NO_ANSWER",
    "cancelled": "CANCELED",
}
DISPOSITIONS = {
    "connected": "f240bbac-87c9-4f6e-bf70-924b57d47db7",
    "busy": "9d9162e7-6cf3-4944-bf63-4dff82258764",
    "no_answer": "73a0d17f-1163-4015-bdd5-ec830791da20",
    "left_live_message": "a4c4c377-d246-4b32-a13b-75a56a4cd0ff",
    "left_voicemail": "b2cf5968-551e-4856-9783-52b3da59a7d0",
    "wrong_number": "17b47fee-58de-441e-a44c-c6300d46f273",
}
"""HubSpot's default call outcomes, which have these IDs in every account."""
_DISPOSITION_OF_STATUS = {"completed": "connected", "busy": "busy", "no_answer": "no_answer"}
_ON_MISSING = param(
    "create", "If HubSpot has no such contact: `create` one, or `skip` logging.", example="skip"
)


class LogCallParams(CallParams):
    """A phone call to log."""

    disposition: str | None = param(
        None,
        f"Call outcome: {', '.join(DISPOSITIONS)}, or the ID of a custom outcome. Default: derived from the status.",
        example="left_voicemail",
        pattern=rf"^({'|'.join(DISPOSITIONS)}|[0-9a-f-]{{36}})$",
        must_be=f"the ID of a call outcome, or one of {', '.join(DISPOSITIONS)}",
    )
    recording_url: str | None = param(
        None,
        "URL of the recording (https).",
        example="https://example.com/1.mp3",
        pattern=r"^https://",
        must_be="a URL that starts with https://",
    )
    on_missing: Literal["create", "skip"] = _ON_MISSING
    owner: str | None = OWNER


class LogChatParams(ChatParams):
    """A chat to log."""

    on_missing: Literal["create", "skip"] = _ON_MISSING
    owner: str | None = OWNER


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_call(account: Account, items: Sequence[BatchItem[LogCallParams]]) -> list[BatchResult]:
    """Log the call on the contact's timeline, once per conversation."""
    return _log(account, "calls", items, _call_properties)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_chat(account: Account, items: Sequence[BatchItem[LogChatParams]]) -> list[BatchResult]:
    """Log the chat as a note on the contact's timeline, once per conversation."""
    return _log(account, "notes", items, _note_properties)


def _call_properties(call: LogCallParams, context: Context, contact: ContactRef | None) -> dict[str, Any]:
    seconds = call.duration_seconds()
    caller, callee = call.caller_and_callee(context)
    disposition = call.disposition or _DISPOSITION_OF_STATUS.get(call.normalized_status)
    return {
        "hs_call_title": call.display_title(context),
        "hs_call_body": to_html(call.body_text(context, contact, MAX_BODY_LENGTH)),
        "hs_call_duration": None if seconds is None else round(seconds * 1000),
        "hs_call_direction": {True: "OUTBOUND", False: "INBOUND", None: None}[call.is_outbound],
        "hs_call_status": CALL_STATUSES.get(call.normalized_status),
        "hs_call_disposition": DISPOSITIONS.get(disposition, disposition) if disposition else None,
        "hs_call_from_number": caller,
        "hs_call_to_number": callee,
        "hs_call_recording_url": call.recording_url,
    }


def _note_properties(chat: LogChatParams, context: Context, contact: ContactRef | None) -> dict[str, Any]:
    text = chat.body_text(context, contact, MAX_BODY_LENGTH)
    return {"hs_note_body": to_html(f"{chat.display_title(context)}\n{text}")}


P = TypeVar("P", LogCallParams, LogChatParams)


def _log(
    account: Account,
    kind: str,
    items: Sequence[BatchItem[P]],
    to_properties: Callable[[P, Context, ContactRef | None], dict[str, Any]],
) -> list[BatchResult]:
    """Write the record of every item in as few requests as HubSpot allows: one, if all contacts are cached."""
    by_key = items_by_conversation(items)

    def build(key: str, contact: ContactRef | None) -> dict[str, str]:
        item = by_key[key]
        standard = to_properties(item.params, item.context, contact) | {
            "hs_timestamp": to_milliseconds(item.context.event.occurred_at),
            "hubspot_owner_id": item.params.owner,
        }
        return to_strings(standard | item.params.additional_fields(item.context))

    existing_ids = {key: item.context.existing_id for key, item in by_key.items() if item.context.existing_id}
    queries = {
        key: item.params.contact_query(item.context, create=item.params.on_missing == "create")
        for key, item in by_key.items()
    }
    skip = {
        key: "not logged: HubSpot has no such contact" if query.keys else "not logged"
        for key, query in queries.items()
        if not query.create
    }
    results = write_for_contacts(
        Contacts(account),
        queries,
        lambda contacts: write_records(account, kind, build, contacts, existing_ids, skip),
    )
    return [results[key] for key in by_key]
