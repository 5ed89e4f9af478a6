"""Actions that log calls and chats as closed Tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

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
)

from .descriptions import description
from .field_values import writable_fields
from .org import BATCH_SIZE, Org
from .permissions import WRITE_TASKS
from .related_records import TaskReferenceParams, check_ids
from .session import Record
from .settings import connector
from .task_records import NewTask, local_date, log_tasks, truncate

_CALL_RESULTS = {"completed": "Connected", "no_answer": "No answer", "busy": "Busy", "failed": "Failed"}


class LogCallParams(TaskReferenceParams, CallParams):
    """A phone call to log."""

    disposition: str | None = param(
        None, "Call result. Default: derived from the status.", example="Left voicemail"
    )
    call_id: str | None = param(
        "{{ event.twilioCallSid }}", "Call ID in the telephone system.", example="CA00"
    )
    call_type: str | None = param(
        "Call", "`Type` of the Task. Left out if the org has no such type.", example="Support call"
    )

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the details with what a Task has no fields for."""
        caller, callee = self.caller_and_callee(context)
        return {"From": caller, "To": callee, "Recording": self.recording_url, **super().details(context)}

    def task_fields(self) -> Record:
        """Return the fields of a Task that only a call has."""
        seconds = self.duration_seconds()
        return {
            "TaskSubtype": "Call",
            "Type": self.call_type,
            "CallDurationInSeconds": None if seconds is None else round(seconds),
            "CallType": {True: "Outbound", False: "Inbound", None: None}[self.is_outbound],
            "CallDisposition": self.disposition or _CALL_RESULTS.get(self.normalized_status) or self.outcome,
            "CallObject": self.call_id,
        }


class LogChatParams(TaskReferenceParams, ChatParams):
    """A chat to log."""

    chat_type: str | None = param(
        "Chat", "`Type` of the Task. Left out if the org has no such type.", example="Other"
    )

    def start(self, context: Context) -> datetime:
        """Return the time of the chat's event."""
        return context.event.occurred_at

    def task_fields(self) -> Record:
        """Return the fields of a Task that only a chat has. Salesforce has no subtype for chats."""
        return {"Type": self.chat_type}


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE, needs=WRITE_TASKS)
def log_call(org: Org, items: Sequence[BatchItem[LogCallParams]]) -> list[BatchResult]:
    """Log the call as a closed Task of the contact or lead, once per conversation."""
    return _log(org, items)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE, needs=WRITE_TASKS)
def log_chat(org: Org, items: Sequence[BatchItem[LogChatParams]]) -> list[BatchResult]:
    """Log the chat as a closed Task of the contact or lead, once per conversation."""
    return _log(org, items)


log_call.check_params(check_ids)
log_chat.check_params(check_ids)
P = TypeVar("P", LogCallParams, LogChatParams)


def _log(org: Org, items: Sequence[BatchItem[P]]) -> list[BatchResult]:
    """Write the Task of every item in as few requests as Salesforce allows: one, if all contacts are cached."""
    by_key = items_by_conversation(items)
    status = org.closed_status("Task")
    types = org.types("Task")

    def build(key: str, contact: ContactRef | None) -> NewTask:
        params, context = by_key[key].params, by_key[key].context
        text, transcript = description(org, params, context, contact)
        fields = params.task_fields()
        standard = fields | {
            "Subject": params.display_title(context),
            "Description": text,
            "Status": status,
            "ActivityDate": local_date(org, context, params.start(context)),
            "Type": fields["Type"] if fields["Type"] in types else None,
        }
        values = params.additional_fields(context)
        additional, notes = writable_fields(org, "Task", values, "createable", context)
        return NewTask(truncate(standard) | additional, transcript, notes, additional.keys())

    return log_tasks(org, by_key, build)
