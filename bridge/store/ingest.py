"""Storing events before they are answered: promise 1 of the bridge rests on this file.

`accept` writes a whole group of events in one transaction. When it returns, they are on disk. Which of them are
duplicates is decided by unique keys that are never removed, not by looking first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, delete, func, or_, select

from bridge.errors import StoreUnavailable
from bridge.events import Event
from bridge.ids import new_id
from bridge.store import schema
from bridge.store.bulk import bulk_insert
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.routing import cache_parsed_events

IngestResult = Literal["stored", "duplicate", "conflict", "unavailable"]
"""`conflict`: the same id with another body, kept aside and not routed; `unavailable`: not stored, send it again."""

MAX_REJECTED_REQUESTS = 10_000
REJECTED_REQUEST_MAX_AGE = timedelta(days=30)


@dataclass(frozen=True)
class IncomingEvent:
    """One verified event and the bytes it came as."""

    event: Event
    body: bytes


@dataclass(frozen=True)
class RejectedRequest:
    """A request that was refused; the body is kept only when it was signed, or conflicts with a stored event."""

    reason: str
    detail: str
    status: int
    signature_valid: bool
    received_at: datetime
    body: bytes | None = None


def store_events(database: Database, receipts: Sequence[IncomingEvent]) -> list[IngestResult]:
    """Store a group of events; one answer for each, in their order.

    When the group cannot be written, its members are tried one by one, so that a body that the database does not
    take cannot fail its neighbours. Raises nothing.
    """
    try:
        return _accept_group(database, receipts)
    except StoreUnavailable:
        return ["unavailable"] * len(receipts)
    except Exception:
        if len(receipts) == 1:
            return ["unavailable"]
    return [answer for receipt in receipts for answer in store_events(database, [receipt])]


def _accept_group(database: Database, receipts: Sequence[IncomingEvent]) -> list[IngestResult]:
    rows = [_row(receipt) for receipt in receipts]
    with database.write() as conn:
        answers: list[IngestResult] = ["stored"] * len(rows)
        written = bulk_insert(conn, schema.events, rows, "ON CONFLICT DO NOTHING")
        if written < len(rows):
            stored = _stored(conn, rows)
            for place, row in enumerate(rows):
                if row["id"] not in stored:
                    answers[place] = _answer_known(conn, receipts[place], row)
        if written:
            database.publish(conn, [EVENTS_TOPIC])
    cache_parsed_events(
        (receipt.event, len(receipt.body))
        for receipt, answer in zip(receipts, answers, strict=True)
        if answer == "stored"
    )
    database.note_ingest(len(rows))
    return answers


def _row(receipt: IncomingEvent) -> dict[str, object]:
    event = receipt.event
    contact = event.contact
    return {
        "id": event.id,
        "dedupe_key": event.dedupe_key,
        "fallback_dedupe_key": event.fallback_dedupe_key,
        "type": event.type,
        "conversation_id": event.conversation.id,
        "phone": contact.phone,
        "email": contact.email.casefold() if contact.email else None,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "body": receipt.body,
        "body_sha256": hashlib.sha256(receipt.body).digest(),
    }


def _stored(conn: Connection, rows: Sequence[dict[str, object]]) -> set[str]:
    """The ids of those that were written: ids are made anew for every request."""
    table = schema.events
    return set(conn.execute(select(table.c.id).where(table.c.id.in_([row["id"] for row in rows]))).scalars())


def _answer_known(conn: Connection, receipt: IncomingEvent, row: dict[str, object]) -> IngestResult:
    """What an event is whose keys are there already: the same again, or another body under the same id."""
    events = schema.events
    known = conn.execute(
        select(events.c.body_sha256).where(events.c.dedupe_key == row["dedupe_key"])
    ).scalar_one_or_none()
    if known is None or known == row["body_sha256"]:
        return "duplicate"
    record_rejected_request(
        conn,
        RejectedRequest(
            "conflict", "a stored event has this webhookId and another body", 200, True,
            receipt.event.received_at, receipt.body,
        ),
    )  # fmt: skip
    return "conflict"


def record_rejected_request(conn: Connection, rejected_request: RejectedRequest) -> str:
    """Keep a refused request, the oldest making room once there are too many; returns its id."""
    rejected_requests = schema.rejected_requests
    ident = new_id("rej")
    conn.execute(
        rejected_requests.insert().values(
            id=ident,
            received_at=rejected_request.received_at,
            reason=rejected_request.reason,
            detail=rejected_request.detail,
            status=rejected_request.status,
            signature_valid=rejected_request.signature_valid,
            body=rejected_request.body if rejected_request.signature_valid else None,
        )
    )
    return ident


def record_rejected_requests(database: Database, group: Sequence[RejectedRequest]) -> None:
    """Keep a group of refused requests in one transaction, and keep their number bounded."""
    rejected_requests = schema.rejected_requests
    with database.write() as conn:
        for rejected_request in group:
            record_rejected_request(conn, rejected_request)
        count = conn.execute(select(func.count()).select_from(rejected_requests)).scalar_one()
        oldest = group[0].received_at - REJECTED_REQUEST_MAX_AGE
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
