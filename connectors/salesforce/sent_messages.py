"""Action that logs sent messages as closed Tasks."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.connector import (
    BatchItem,
    BatchResult,
    ContactRef,
    Context,
    SentMessageParams,
    param,
    per_event,
    text_with_details,
)

from .org import BATCH_SIZE, Org
from .permissions import WRITE_TASKS
from .related_records import TaskReferenceParams, check_ids
from .settings import connector
from .task_records import MAX_LENGTH, NewTask, local_date, local_time, log_tasks, truncate, zone_of

_KINDS = {"sms": "Text message", "whatsapp": "WhatsApp message", "email": "Email"}
_TYPES = {"sms": ("SMS", "Text", "Text Message"), "whatsapp": ("WhatsApp", "SMS"), "email": ("Email",)}
"""Values of Task.Type by channel; the first that the org's picklist has is used."""


class LogMessageParams(TaskReferenceParams, SentMessageParams):
    """A message that was sent."""

    sent_to: str | None = param(
        "{{ delivery.recipient }}", "Address that it was sent to.", example="+14155550123"
    )
    message_type: str | None = param(
        None,
        "`Type` of the Task. Default: `Email`, `SMS` or `WhatsApp`. Left out if the org has no such type.",
        example="Other",
    )


@connector.action(
    idempotency=per_event, dedupe_by="body", idempotent=True, batch=BATCH_SIZE, needs=WRITE_TASKS
)
def log_message(org: Org, items: Sequence[BatchItem[LogMessageParams]]) -> list[BatchResult]:
    """Log a sent message as a closed Task. Use it under `on_success` of a rule that sends messages."""
    by_key = {f"message:{item.context.idempotency_token}": item for item in items}
    status = org.closed_status("Task")
    types = org.types("Task")

    def build(key: str, contact: ContactRef | None) -> NewTask:
        params, context = by_key[key].params, by_key[key].context
        wanted = (params.message_type,) if params.message_type else _TYPES[params.channel]
        fields = {
            "Subject": f"{_KINDS[params.channel]}: {params.title}",
            "Description": _description(org, params, context, contact),
            "Status": status,
            "ActivityDate": local_date(org, context, params.time(context)),
            "TaskSubtype": "Email" if params.channel == "email" else None,
            "Type": next((name for name in wanted if name in types), None),
        }
        return NewTask(truncate(fields))

    return log_tasks(org, by_key, build)


log_message.check_params(check_ids)


def _description(org: Org, params: LogMessageParams, context: Context, contact: ContactRef | None) -> str:
    sent_at = local_time(org, context, params.time(context))
    details = {
        "Name given": contact.given_name if contact else "",
        "To": params.sent_to,
        "Sent": f"{sent_at:%Y-%m-%d %H:%M} ({zone_of(org, context)})",
        "Conversation": context.event.conversation.id,
    }
    return text_with_details(params.body, details, MAX_LENGTH["Description"], separator="\n\n")
