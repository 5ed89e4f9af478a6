"""Rejected requests that an operator accepts as events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Row, or_, select, update

from bridge.errors import BridgeError
from bridge.events import Event
from bridge.signing import SignedRequestRejected, read_event
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.operator_actions import ActionResult
from bridge.store.queries import NotFound


def obstacle_to_accepting(database: Database, request_id: str) -> str | None:
    """Return why a rejected request cannot be accepted as an event; None if it can. Raise NotFound."""
    event = _read(_row(database, request_id), database.default_country)
    return event if isinstance(event, str) else None


def accept_rejected_request(database: Database, actor: str, request_id: str) -> ActionResult:
    """Accept a rejected request as an event; its signature must be valid.

    A conflict becomes an event of its own, next to the stored one that has the same identity. If the process dies
    between the two transactions, the action can be repeated: the event is then a duplicate.
    """
    table = schema.rejected_requests
    row = _row(database, request_id)
    event = _read(row, database.default_country)
    if isinstance(event, str):
        return ActionResult(request_id, False, event)
    is_conflict = row.reason == "conflict"
    if is_conflict:
        event = replace(event, dedupe_key=f"accepted|{request_id}")
    result = store_events(database, [IncomingEvent(event, row.body, separate=is_conflict)])[0]
    if result == "unavailable":
        raise BridgeError("the event could not be stored; try again")
    events = schema.events
    same = events.c.dedupe_key == event.dedupe_key
    if not is_conflict:
        same = or_(same, events.c.fallback_dedupe_key == event.fallback_dedupe_key)
    with database.write() as conn:
        event_id = conn.execute(select(events.c.id).where(same)).scalar()
        conn.execute(update(table).where(table.c.id == request_id).values(accepted_event_id=event_id))
        record_audit(conn, database.now(conn), actor, "accept", [request_id], {"event": event_id})
    return ActionResult(
        request_id,
        True,
        f"accepted as {event_id}" if result == "stored" else f"it was already stored as {event_id}",
    )


def _row(database: Database, request_id: str) -> Row[Any]:
    table = schema.rejected_requests
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == request_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no rejected request `{request_id}`")
    return row


def _read(row: Row[Any], default_country: str | None) -> Event | str:
    """Return the event in a rejected request, or why it cannot be accepted."""
    if row.accepted_event_id is not None:
        return f"it was already accepted as {row.accepted_event_id}"
    if row.body is None:
        if row.signature_valid:
            return "its body was erased"
        return "it has no valid signature, so its body was not kept; Heppu has to send it again"
    try:
        return read_event(row.body, row.received_at, default_country)
    except SignedRequestRejected as error:
        return f"not a valid event: {error.detail}"
