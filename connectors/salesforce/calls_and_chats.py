"""Actions that log calls and chats as closed Tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

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

from .contact_source import Contacts
from .org import BATCH_SIZE, Org
from .session import Record
from .settings import ID_PATTERN, connector
from .task_records import MAX_LENGTH, OWNER, local_date, truncate, write_tasks

_CALL_RESULTS = {"completed": "Connected", "no_answer": "No answer", "busy": "Busy", "failed": "Failed"}
_ON_MISSING = param(
    "contact",
    "If Salesforce has no such contact or lead: create a `contact` or a `lead`, or `skip` (log the Task without).",
    example="lead",
)
_WHAT = param(
    None,
    "Related To: ID of an account, opportunity or case. Not used for leads.",
    example="5005g00000AbCdE",
    pattern=ID_PATTERN,
    must_be="a Salesforce ID (15 or 18 letters and digits)",
)


class LogCallParams(CallParams):
    """A phone call to log."""

    disposition: str | None = param(
        None, "Call result. Default: derived from the status.", example="Left voicemail"
    )
    call_id: str | None = param(
        "{{ event.twilioCallSid }}", "Call ID in the telephone system.", example="CA00"
    )
    on_missing: Literal["contact", "lead", "skip"] = _ON_MISSING
    owner: str | None = OWNER
    what: str | None = _WHAT

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the details with both numbers, for which a Task has no fields."""
        caller, callee = self.caller_and_callee(context)
        return {"From": caller, "To": callee, **super().details(context)}


class LogChatParams(ChatParams):
    """A chat to log."""

    on_missing: Literal["contact", "lead", "skip"] = _ON_MISSING
    owner: str | None = OWNER
    what: str | None = _WHAT


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_call(org: Org, items: Sequence[BatchItem[LogCallParams]]) -> list[BatchResult]:
    """Log the call as a closed Task of the contact or lead, once per conversation."""
    return _log(org, items, _call_fields)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_chat(org: Org, items: Sequence[BatchItem[LogChatParams]]) -> list[BatchResult]:
    """Log the chat as a closed Task of the contact or lead, once per conversation."""
    return _log(org, items, _chat_fields)


def _chat_fields(_chat: LogChatParams) -> Record:
    return {}  # Salesforce has no Task subtype for chats


def _call_fields(call: LogCallParams) -> Record:
    seconds = call.duration_seconds()
    return {
        "TaskSubtype": "Call",
        "CallDurationInSeconds": None if seconds is None else round(seconds),
        "CallType": {True: "Outbound", False: "Inbound", None: None}[call.is_outbound],
        "CallDisposition": call.disposition or _CALL_RESULTS.get(call.normalized_status) or call.outcome,
        "CallObject": call.call_id,
    }


P = TypeVar("P", LogCallParams, LogChatParams)


def _log(org: Org, items: Sequence[BatchItem[P]], to_fields: Callable[[P], Record]) -> list[BatchResult]:
    """Write the Task of every item in as few requests as Salesforce allows: one, if all contacts are cached."""
    by_key = items_by_conversation(items)
    status = org.closed_status("Task")

    def build(key: str, contact: ContactRef | None) -> Record:
        params, context = by_key[key].params, by_key[key].context
        standard = to_fields(params) | {
            "Subject": params.display_title(context),
            "Description": params.body_text(context, contact, MAX_LENGTH["Description"]),
            "Status": status,
            "ActivityDate": local_date(org, context, context.event.occurred_at),
            "OwnerId": params.owner or org.settings.owner,
            "WhatId": params.what,
        }
        return truncate(standard) | params.additional_fields(context)

    existing_ids = {key: item.context.existing_id for key, item in by_key.items() if item.context.existing_id}
    results: dict[str, BatchResult] = {}
    for create_as in ("Contact", "Lead"):
        queries = {
            key: item.params.contact_query(item.context, create=item.params.on_missing != "skip")
            for key, item in by_key.items()
            if (item.params.on_missing == "lead") == (create_as == "Lead")
        }
        if queries:
            results |= write_for_contacts(
                Contacts(org, create_as=create_as),
                queries,
                lambda contacts: write_tasks(org, build, existing_ids, contacts),
            )
    return [results[key] for key in by_key]
