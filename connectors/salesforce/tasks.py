"""Action that creates Tasks."""

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

from .contact_source import Contacts
from .org import Org
from .session import Record
from .settings import connector
from .task_records import OWNER, local_date, truncate, write_tasks


class CreateTaskParams(TaskParams):
    """A task for a colleague."""

    priority: Literal["Low", "Normal", "High"] = param("Normal", "Task priority.", example="High")
    owner: str | None = OWNER


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True)
def create_task(org: Org, params: CreateTaskParams, context: Context) -> Success:
    """Create an open Task for a colleague on the contact or lead."""

    def build(_key: str, contact: ContactRef | None) -> Record:
        standard = {
            "Subject": params.subject,
            "Description": params.body(context, contact),
            "ActivityDate": local_date(org, context, params.due_at(context)),
            "Priority": params.priority,
            "OwnerId": params.owner or org.settings.owner,
        }
        return truncate(standard) | fields_to_write(params.properties, None)

    return write_for_contact(
        Contacts(org),
        f"task:{context.idempotency_token}",
        params.contact_query(context, create=True),
        lambda contacts: write_tasks(org, build, {}, contacts),
    )
