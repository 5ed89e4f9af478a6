"""Action that creates Events: the meeting that a conversation has led to, in the owner's calendar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bridge.connector import (
    BatchItem,
    BatchResult,
    ContactRef,
    MeetingParams,
    MeetingTimes,
    check_meeting,
    items_by_conversation,
    param,
    per_conversation,
)
from bridge.errors import DeliveryError

from .field_values import writable_fields
from .org import BATCH_SIZE, Org
from .permissions import WRITE_EVENTS
from .related_records import TaskReferenceParams, check_ids
from .settings import Settings, connector
from .task_records import MAX_LENGTH, NewTask, log_tasks, truncate


class CreateEventParams(TaskReferenceParams, MeetingParams):
    """A meeting to create."""

    url: str | None = param(
        None, "Link, which is added to the description.", example="https://calendar.example.com/event/7"
    )
    show_as: Literal["Busy", "Free", "OutOfOffice"] = param(
        "Busy", "How the calendar shows the owner at this time.", example="Free"
    )
    event_type: str | None = param(
        "Meeting", "`Type` of the Event. Left out if the org has no such type.", example="Other"
    )


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE, needs=WRITE_EVENTS)
def create_event(org: Org, items: Sequence[BatchItem[CreateEventParams]]) -> list[BatchResult]:
    """Create an Event of the contact or lead, once per conversation. A later event of the conversation updates it."""
    by_key = {f"event:{key}": item for key, item in items_by_conversation(items).items()}
    times: dict[str, MeetingTimes] = {}
    results: dict[str, BatchResult] = {}
    for key, item in by_key.items():
        try:
            times[key] = item.params.times(item.context, lambda: org.time_zone)
        except DeliveryError as error:  # a start that is not a time fails one delivery of the batch
            results[key] = error
    types = org.types("Event")

    def build(key: str, contact: ContactRef | None) -> NewTask:
        params, context = by_key[key].params, by_key[key].context
        link = f"\n\nLink: {params.url}" if params.url else ""
        query = params.contact_query(context, create=False)
        standard = {
            "Subject": params.display_title(query),
            "Description": params.body(context, contact, MAX_LENGTH["Description"] - len(link)) + link,
            "Location": params.location,
            "StartDateTime": times[key].start.isoformat(timespec="milliseconds"),
            "EndDateTime": times[key].end.isoformat(timespec="milliseconds"),
            "ShowAs": params.show_as,
            "Type": params.event_type if params.event_type in types else None,
        }
        values = params.additional_fields(context)
        additional, notes = writable_fields(org, "Event", values, "createable", context)
        return NewTask(truncate(standard) | additional, (), [*times[key].notes, *notes], additional.keys())

    chosen = {key: by_key[key] for key in times}
    if chosen:
        results |= dict(zip(chosen, log_tasks(org, chosen, build, "Event"), strict=True))
    return [results[key] for key in by_key]


@create_event.check_params
def check_params(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an ID or a time that the rule itself contains."""
    return check_ids(settings, params) or check_meeting(settings, params)
