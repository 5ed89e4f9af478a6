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
)

from .account import Account
from .fields import OWNER, to_fitting_html, to_milliseconds, to_strings
from .params import DEAL, TICKET, check_ids
from .scopes import CONTACTS
from .settings import connector
from .timeline import Draft, write_batch


class CreateTaskParams(TaskParams):
    """A task for a colleague."""

    type: Literal["CALL", "EMAIL", "TODO"] = param("TODO", "Task type.", example="CALL")
    priority: Literal["LOW", "MEDIUM", "HIGH"] = param("MEDIUM", "Task priority.", example="HIGH")
    owner: str | None = OWNER
    deal: str | None = DEAL
    ticket: str | None = TICKET


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True, needs=CONTACTS)
def create_task(account: Account, params: CreateTaskParams, context: Context) -> Success:
    """Create a task for a colleague on the contact."""

    def build(contact: ContactRef | None) -> dict[str, str]:
        standard = {
            "hs_timestamp": to_milliseconds(params.due_at(context)),
            "hs_task_subject": params.subject,
            "hs_task_body": to_fitting_html(lambda size: params.body(context, contact, size)),
            "hs_task_status": "NOT_STARTED",
            "hs_task_type": params.type,
            "hs_task_priority": params.priority,
        }
        return to_strings(standard)

    key = context.idempotency_token
    linked = {"deals": params.deal, "tickets": params.ticket}
    draft = Draft(context, build, params.owner, linked, fields_to_write(params.properties, None))
    queries = {key: params.contact_query(context, create=True)}
    result = write_batch(account, "tasks", queries, {key: draft})[key]
    if not isinstance(result, Success):
        raise result
    return result


create_task.check_params(check_ids)
