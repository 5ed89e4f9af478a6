"""Ingest: stores incoming events before their requests are answered, so that no accepted event is lost.

`store_events` writes a batch of events in one transaction. When it returns, they are on disk. Duplicates are detected
by unique keys that are kept permanently, not by a query beforehand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, delete, func, or_, select, update

from bridge.clock import uptime
from bridge.contacts.address import address_key
from bridge.dropped_fields import DroppedFields, encode
from bridge.errors import StoreUnavailable
from bridge.events import Event
from bridge.ids import new_id
from bridge.store import schema
from bridge.store.bulk import bulk_insert
from bridge.store.compression import compress
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deleted_event_keys import remove_repeated
from bridge.store.stalled_transactions import REQUEST_LIMIT

IngestResult = Literal["stored", "duplicate", "conflict", "unavailable"]
"""`conflict`: the identity of a stored event with another body, kept as a rejected request; `unavailable`: not stored,
send it again."""

RETRY_WITHIN = 1.0
"""Seconds within which a failed transaction is repeated; the sender is waiting."""
MAX_REJECTED_REQUESTS = 10_000
"""Rejected requests that are kept; beyond that, unsigned and old ones are deleted first."""
REJECTED_REQUEST_MAX_AGE = timedelta(days=30)


@dataclass(slots=True)
class IncomingEvent:
    """A verified event and its body as received."""

    event: Event
    body: bytes
    separate: bool = False
    """An operator has decided that it is another event than the stored one with the same fallback key."""
    reconciled: bool = False
    """`bridge heppu reconcile` made it from a call, because no webhook had come."""
    sha256: bytes | None = None
    """SHA-256 of the body as received, if fields of it were dropped."""
    dropped: Sequence[str] = ()
    """The paths of these fields."""


@dataclass(frozen=True)
class RejectedRequest:
    """A request that was not accepted; its body is kept only if the signature is valid."""

    reason: str
    detail: str
    status: int
    signature_valid: bool
    received_at: datetime
    body: bytes | None = None


def store_events(database: Database, events: Sequence[IncomingEvent]) -> list[IngestResult]:
    """Store a batch of events; return one result for each, in order. Never raises.

    If the batch cannot be written, its events are stored one by one, so that a body that the database rejects does not
    affect the others.
    """
    health, size = database.write_health, sum(len(incoming.body) for incoming in events)
    try:
        results = _store_on_working_connection(database, events)
    except StoreUnavailable as error:
        health.note_failure(error, size)
        return ["unavailable"] * len(events)
    except Exception as error:
        if len(events) > 1:
            return [result for event in events for result in store_events(database, [event])]
        health.on_error(error)
        return ["unavailable"]
    health.note_success(size)
    return results


def _store_on_working_connection(database: Database, events: Sequence[IncomingEvent]) -> list[IngestResult]:
    """Store a batch; once more if its connection turns out to be lost or read-only, as after a failover.

    If the first transaction was committed nevertheless, the second one finds its rows.
    """
    start = uptime()
    try:
        return _store_batch(database, events)
    except StoreUnavailable as error:
        if not error.connection_dropped or uptime() - start > RETRY_WITHIN:
            raise
    return _store_batch(database, events)


def _store_batch(database: Database, events: Sequence[IncomingEvent]) -> list[IngestResult]:
    if database.dropped_fields is not None:
        events = [without_dropped_fields(incoming, database.dropped_fields) for incoming in events]
    rows = [event_row(incoming) for incoming in events]
    results: list[IngestResult] = ["stored"] * len(rows)
    # The insert needs no transaction of several statements, unless it has to remove rows that repeat deleted events.
    with database.write(limit=REQUEST_LIMIT, autocommit=database.has_deleted_events is False) as conn:
        inserted = bulk_insert(conn, schema.events, rows, "ON CONFLICT DO NOTHING")
        repeated = remove_repeated(database, conn, rows) if inserted else []
        if inserted:
            database.publish(conn, [EVENTS_TOPIC])
    if inserted < len(rows) or repeated:
        _find_existing(database, events, rows, repeated, results)
    database.event_cache.add(
        (incoming.event, len(incoming.body))
        for incoming, result in zip(events, results, strict=True)
        if result == "stored"
    )
    database.ingest_priority.note_ingest(len(rows))
    return results


def _find_existing(
    database: Database,
    events: Sequence[IncomingEvent],
    rows: Sequence[dict[str, object]],
    repeated: Collection[str],
    results: list[IngestResult],
) -> None:
    """Set the results of the rows that were not inserted, and of those that repeat a deleted event.

    The other rows are on disk already. After a crash before this, the requests are unanswered: Heppu sends them again,
    and all of them are compared then.
    """
    with database.write(limit=REQUEST_LIMIT) as conn:
        ids = stored_ids(conn, rows)
        for index, row in enumerate(rows):
            if row["id"] in repeated:
                results[index] = "duplicate"
            elif row["id"] not in ids:
                results[index] = _compare_with_stored(conn, events[index], row)
        duplicates = [row for row, result in zip(rows, results, strict=True) if result == "duplicate"]
        _count_duplicates(conn, [row for row in duplicates if row["id"] not in repeated])


def event_row(incoming: IncomingEvent) -> dict[str, object]:
    """Return the row of an event in the table `events`."""
    event = incoming.event
    contact = event.contact
    return {
        "id": event.id,
        "dedupe_key": event.dedupe_key,
        "fallback_dedupe_key": None if incoming.separate else event.fallback_dedupe_key,
        "type": event.type,
        "conversation_id": event.conversation.id,
        "phone": contact.phone,
        "email": address_key(contact.email) if contact.email else None,
        "reconciled": incoming.reconciled,
        "unreadable": _unreadable_names(event) if event.unreadable_fields else None,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "body": compress(incoming.body),  # here, so that no other writer waits for it
        "body_sha256": incoming.sha256 or hashlib.sha256(incoming.body).digest(),
        "dropped_fields": ",".join(incoming.dropped) or None,
    }


def without_dropped_fields(incoming: IncomingEvent, fields: DroppedFields) -> IncomingEvent:
    """Return an event as it is stored and routed: without these fields. The signature was checked with them."""
    event = incoming.event
    body, removed = fields.remove(event.body)
    if not removed:
        return incoming
    return replace(
        incoming,
        event=Event(body, event.dedupe_key, event.received_at, event.id, event.default_country),
        body=encode(body),
        sha256=hashlib.sha256(incoming.body).digest(),
        dropped=removed,
    )


def _unreadable_names(event: Event) -> str | None:
    """Return the names of the fields that could not be read, without withheld numbers."""
    return (
        ",".join(dict.fromkeys(item.field for item in event.unreadable_fields if not item.withheld)) or None
    )


def stored_ids(conn: Connection, rows: Sequence[dict[str, object]]) -> set[str]:
    """Return the IDs of the rows that were inserted; every request gets a new ID."""
    table = schema.events
    return set(conn.execute(select(table.c.id).where(table.c.id.in_([row["id"] for row in rows]))).scalars())


def _compare_with_stored(conn: Connection, incoming: IncomingEvent, row: dict[str, object]) -> IngestResult:
    """Return `duplicate` if the stored event is the same; otherwise keep the request and return `conflict`."""
    if conflict := _conflict(conn, incoming, row):
        received_at = incoming.event.received_at
        record_rejected_request(
            conn, RejectedRequest("conflict", conflict, 200, True, received_at, incoming.body)
        )
        return "conflict"
    return "duplicate"


def _count_duplicates(conn: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Count these events as received again. One that another transaction has locked is not waited for."""
    if not rows:
        return
    events = schema.events
    keys = {name: [row[name] for row in rows] for name in ("dedupe_key", "fallback_dedupe_key")}
    stored = select(events.c.id).where(or_(*(events.c[name].in_(values) for name, values in keys.items())))
    locked = stored.order_by(events.c.id).with_for_update(skip_locked=True)
    conn.execute(
        update(events)
        .where(events.c.id.in_(conn.execute(locked).scalars().all()))
        .values(duplicates=events.c.duplicates + 1)
    )


def _conflict(conn: Connection, incoming: IncomingEvent, row: dict[str, object]) -> str | None:
    """Return which stored event has the same identity and another body, or None.

    A retry under a new `webhookId` is not a conflict, nor is one whose stored body has been deleted.
    """
    events = schema.events
    columns = select(events.c.id, events.c.body, events.c.body_sha256)
    same_id = conn.execute(columns.where(events.c.dedupe_key == row["dedupe_key"])).one_or_none()
    if same_id is not None:
        if same_id.body_sha256 == row["body_sha256"]:
            return None
        return f"{same_id.id} has the same webhookId and another body"
    fallback = row["fallback_dedupe_key"]
    same_time = conn.execute(columns.where(events.c.fallback_dedupe_key == fallback)).one_or_none()
    if same_time is None or same_time.body is None:
        return None
    if _without_webhook_id(json.loads(same_time.body)) == _without_webhook_id(json.loads(incoming.body)):
        return None
    return f"{same_time.id} has the same type, conversation and timestamp, and another body"


def _without_webhook_id(body: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if name != "webhookId"}


def record_rejected_request(conn: Connection, request: RejectedRequest) -> str:
    """Store a rejected request; return its ID."""
    rejected_requests = schema.rejected_requests
    request_id = new_id("rej")
    conn.execute(
        rejected_requests.insert().values(
            id=request_id,
            received_at=request.received_at,
            reason=request.reason,
            detail=request.detail,
            status=request.status,
            signature_valid=request.signature_valid,
            body=request.body if request.signature_valid else None,
        )
    )
    return request_id


def record_rejected_requests(database: Database, requests: Sequence[RejectedRequest]) -> None:
    """Store rejected requests in one transaction, and delete the oldest ones if there are too many."""
    rejected_requests = schema.rejected_requests
    fields = database.dropped_fields
    with database.write(limit=REQUEST_LIMIT) as conn:  # the service's stop waits for it
        for request in requests:
            if fields is not None and request.body is not None:
                request = replace(request, body=fields.remove_from_raw(request.body))
            record_rejected_request(conn, request)
        count = conn.execute(select(func.count()).select_from(rejected_requests)).scalar_one()
        oldest = requests[0].received_at - REJECTED_REQUEST_MAX_AGE
        surplus = (
            select(rejected_requests.c.id)
            .order_by(rejected_requests.c.signature_valid, rejected_requests.c.received_at)
            .limit(max(0, count - MAX_REJECTED_REQUESTS))
        )
        conn.execute(
            delete(rejected_requests).where(
                or_(rejected_requests.c.id.in_(surplus), rejected_requests.c.received_at < oldest)
            )
        )
