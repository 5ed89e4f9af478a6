"""Tasks and Events of a contact or lead: logged calls and chats, tasks for a colleague, and meetings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from bridge.connector import (
    BatchItem,
    BatchResult,
    ContactDeleted,
    ContactRef,
    Context,
    Success,
    forget_related_records,
    read_related_records,
    shorten,
    write_for_contacts,
)
from bridge.errors import DeliveryError

from .activity_upserts import ActivityType, upsert_activities
from .contact_source import Contacts
from .errors import DELETED_CODES, error_code
from .new_records import types_to_create
from .org import BATCH_SIZE, Org
from .related_records import TaskReferenceParams, read_related, references
from .session import Record

MAX_LENGTH = {
    "Subject": 255,
    "Location": 255,
    "Description": 32_000,
    "CallDisposition": 255,
    "CallObject": 255,
}

_OF_CALL = {"CallDurationInSeconds", "CallType", "CallDisposition", "CallObject", "TaskSubtype", "Type"}
"""Fields of a call that the Tasks of its transcript do not have: reports would count the call again."""


@dataclass(frozen=True)
class NewTask:
    """A Task or Event to write, without its references."""

    fields: Record
    transcript: Sequence[str] = ()
    """Parts of a transcript that the Description has no room for. Each is written to a further Task."""
    notes: Sequence[str] = ()
    """What was left out, for the result's detail."""
    of_rule: Collection[str] = ()
    """Fields that the rule sets. The Task is written without those of which Salesforce refuses the value."""


P = TypeVar("P", bound=TaskReferenceParams)
BuildTask = Callable[[str, ContactRef | None], NewTask]
"""Returns a Task by its key and contact."""


def log_tasks(
    org: Org, items: Mapping[str, BatchItem[P]], build: BuildTask, kind: ActivityType = "Task"
) -> list[BatchResult]:
    """Write a Task or Event for the contact or lead of each item, by its key, in as few requests as Salesforce allows.

    If all contacts are cached, that is one request.
    """
    read_again = org.values_read_again
    queries = {
        key: item.params.new_record_query(org, item.context, item.params.owner) for key, item in items.items()
    }
    results = write_for_contacts(
        Contacts(org, create_as=types_to_create(queries.values())),
        queries,
        lambda contacts: _write_tasks(org, kind, items, build, contacts),
    )
    return [org.refused_value(error_code(results[key]), read_again) or results[key] for key in items]


def _write_tasks(
    org: Org,
    kind: ActivityType,
    items: Mapping[str, BatchItem[P]],
    build: BuildTask,
    contacts: Mapping[str, ContactRef | None],
) -> dict[str, Success | DeliveryError]:
    """Write the Tasks or Events of contacts or leads, with their owners and related records.

    An update leaves an owner and a related record that the rule does not name as they are: a colleague may have
    changed them.
    """
    contexts = {key: items[key].context for key in contacts}
    ids = {key: contact.id if contact else None for key, contact in contacts.items()}
    related = read_related_records(contexts, ids, partial(read_related, org))
    records: dict[str, Record] = {}
    transcripts: dict[str, Sequence[str]] = {}
    notes: dict[str, list[str]] = {}
    of_rule: set[str] = set()
    for key, contact in contacts.items():
        params, context, record_id = items[key].params, contexts[key], ids[key]
        found = references(org, params, related[key], record_id)
        kept = found.derived if context.existing_id else set()
        fields = {name: value for name, value in found.fields.items() if name not in kept}
        task = build(key, contact)
        records[key] = fields | task.fields | ({"WhoId": record_id} if record_id else {})
        transcripts[key] = task.transcript
        notes[key] = [*found.notes, *task.notes]
        of_rule |= set(task.of_rule)
    existing_ids = {key: items[key].context.existing_id for key in records}
    known = {key: task_id for key, task_id in existing_ids.items() if task_id is not None}
    results = upsert_activities(org, kind, records, known, of_rule)

    if refused := [key for key, result in results.items() if result.refused]:
        cache = next(iter(contexts.values())).contact_cache
        forget_related_records(cache, [record_id for key in refused if (record_id := ids[key])])
    written = {key: _result(results[key].result, contacts[key], notes[key]) for key in records}
    return written | _write_transcripts(org, records, transcripts, written)


def _write_transcripts(
    org: Org,
    records: Mapping[str, Record],
    transcripts: Mapping[str, Sequence[str]],
    results: Mapping[str, Success | DeliveryError],
) -> dict[str, DeliveryError]:
    """Write the transcripts of written Tasks as further Tasks, and return the errors by the key of the first Task.

    Each part has a key of its own, so that a repeated attempt changes the same Tasks.
    """
    parts: dict[str, Record] = {}
    keys: dict[str, str] = {}
    for key, transcript in transcripts.items():
        if not isinstance(results[key], Success):
            continue
        fields = {name: value for name, value in records[key].items() if name not in _OF_CALL}
        for number, text in enumerate(transcript, 1):
            title = f"Transcript {number}/{len(transcript)}: {fields['Subject']}"
            part_key = f"{key}:transcript:{number}"
            keys[part_key] = key
            parts[part_key] = fields | truncate({"Subject": title, "Description": text})
    errors: dict[str, DeliveryError] = {}
    pending = list(parts)
    for start in range(0, len(pending), BATCH_SIZE):
        chunk = {key: parts[key] for key in pending[start : start + BATCH_SIZE]}
        for part_key, item in upsert_activities(org, "Task", chunk, {}).items():
            if not isinstance(item.result, Success):
                errors[keys[part_key]] = item.result
    return errors


def _result(
    result: Success | DeliveryError, contact: ContactRef | None, notes: list[str]
) -> Success | DeliveryError:
    if contact is not None and error_code(result) in DELETED_CODES:
        return ContactDeleted()
    if isinstance(result, Success):
        return replace(result, detail="; ".join(filter(None, [result.detail, *notes])))
    return result


def local_time(org: Org, context: Context, instant: datetime) -> datetime:
    """Return the instant in the time zone of `zone_of`."""
    return instant.astimezone(ZoneInfo(zone_of(org, context)))


def zone_of(org: Org, context: Context) -> str:
    """Return the contact's time zone, or else that of the connection or its org."""
    return context.contact.time_zone or org.time_zone


def local_date(org: Org, context: Context, instant: datetime) -> str:
    """Return the date in the contact's time zone. Salesforce stores dates without a zone and must not shift them."""
    return local_time(org, context, instant).date().isoformat()


def truncate(record: Mapping[str, Any]) -> Record:
    """Shorten strings for which Salesforce would reject the whole record; they end in `…`. Omit None."""
    return {
        name: shorten(value, MAX_LENGTH.get(name, len(value))) if isinstance(value, str) else value
        for name, value in record.items()
        if value is not None
    }
