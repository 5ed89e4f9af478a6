"""Action that creates tasks."""

from __future__ import annotations

from typing import Literal

from bridge.connector import (
    ContactRef,
    Context,
    Success,
    TaskParams,
    fields_to_write,
    param,
    per_event,
    write_for_contact,
)

from .account import Account
from .contact_source import Contacts
from .fields import OWNER, to_html, to_milliseconds, to_strings
from .settings import connector
from .timeline import write_records


class CreateTaskParams(TaskParams):
    """A task for a colleague."""

    type: Literal["CALL", "EMAIL", "TODO"] = param("TODO", "Task type.", example="CALL")
    priority: Literal["LOW", "MEDIUM", "HIGH"] = param("MEDIUM", "Task priority.", example="HIGH")
    owner: str | None = OWNER


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True)
def create_task(account: Account, params: CreateTaskParams, context: Context) -> Success:
    """Create a task for a colleague on the contact."""
    key = context.idempotency_token

    def build(_key: str, contact: ContactRef | None) -> dict[str, str]:
        standard = {
            "hs_timestamp": to_milliseconds(params.due_at(context)),
            "hs_task_subject": params.subject,
            "hs_task_body": to_html(params.body(context, contact)),
            "hs_task_status": "NOT_STARTED",
            "hs_task_type": params.type,
            "hs_task_priority": params.priority,
            "hubspot_owner_id": params.owner,
        }
        return to_strings(standard | fields_to_write(params.properties, None))

    return write_for_contact(
        Contacts(account),
        key,
        params.contact_query(context, create=True),
        lambda contacts: write_records(account, "tasks", build, contacts),
    )
