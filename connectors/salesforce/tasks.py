"""Action that creates Tasks."""

from __future__ import annotations

from typing import Literal

from bridge.connector import (
    BatchItem,
    ContactRef,
    Context,
    Success,
    TaskParams,
    fields_to_write,
    param,
    per_event,
)

from .field_values import writable_fields
from .org import Org
from .permissions import WRITE_TASKS
from .related_records import TaskReferenceParams, check_ids
from .settings import connector
from .task_records import MAX_LENGTH, NewTask, local_date, log_tasks, truncate


class CreateTaskParams(TaskReferenceParams, TaskParams):
    """A task for a colleague."""

    priority: Literal["Low", "Normal", "High"] = param("Normal", "Task priority.", example="High")


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True, needs=WRITE_TASKS)
def create_task(org: Org, params: CreateTaskParams, context: Context) -> Success:
    """Create an open Task for a colleague on the contact or lead."""
    key = f"task:{context.idempotency_token}"

    def build(_key: str, contact: ContactRef | None) -> NewTask:
        standard = {
            "Subject": params.subject,
            "Description": params.body(context, contact, MAX_LENGTH["Description"]),
            "ActivityDate": local_date(org, context, params.due_at(context)),
            "Priority": params.priority,
        }
        values = fields_to_write(params.properties, None)
        additional, notes = writable_fields(org, "Task", values, "createable", context)
        return NewTask(truncate(standard) | additional, (), notes, additional.keys())

    [result] = log_tasks(org, {key: BatchItem(params, context)}, build)
    if not isinstance(result, Success):
        raise result
    return result


create_task.check_params(check_ids)
