"""Rejected requests that an operator accepts as events."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime

from sqlalchemy import or_, select, update

from bridge.errors import BridgeError
from bridge.signing import SignedRequestRejected, read_event
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.operator_actions import ActionResult
from bridge.store.queries import NotFound


def obstacle_to_accepting(database: Database, request_id: str) -> str | None:
    """Return why a rejected request cannot be accepted as an event; None if it can. Raise NotFound."""
    incoming = _read(_find(database, request_id), database.default_country)
    return incoming if isinstance(incoming, str) else None


def accept_rejected_request(database: Database, actor: str, request_id: str) -> ActionResult:
    """Accept a rejected request as an event; its signature must be valid.

    A conflict becomes an event of its own, next to the stored one that has the same identity. If the process dies
    between the two transactions, the action can be repeated: the event is then a duplicate.
    """
    table = schema.rejected_requests
    request = _find(database, request_id)
    incoming = _read(request, database.default_country)
    if isinstance(incoming, str):
        return ActionResult(request_id, False, incoming)
    is_conflict = request.reason == "conflict"
    if is_conflict:
        event = replace(incoming.event, dedupe_key=f"accepted|{request_id}")
        incoming = IncomingEvent(event, incoming.body, separate=True)
    event = incoming.event
    result = store_events(database, [incoming])[0]
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


@dataclass(frozen=True)
class _RejectedRequest:
    """A row of `rejected_requests`. `schema.rejected_requests` describes the columns."""

    received_at: datetime
    reason: str
    signature_valid: bool
    body: bytes | None
    accepted_event_id: str | None


def _find(database: Database, request_id: str) -> _RejectedRequest:
    table = schema.rejected_requests
    columns = (table.c[field.name] for field in fields(_RejectedRequest))
    with database.read() as conn:
        row = conn.execute(select(*columns).where(table.c.id == request_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no rejected request `{request_id}`")
    return _RejectedRequest(*row)


def _read(request: _RejectedRequest, default_country: str | None) -> IncomingEvent | str:
    """Return the event in a rejected request, or why it cannot be accepted."""
    if request.accepted_event_id is not None:
        return f"it was already accepted as {request.accepted_event_id}"
    if request.body is None:
        if request.signature_valid:
            return "its body was erased"
        return "it has no valid signature, so its body was not kept; Heppu has to send it again"
    try:
        event = read_event(request.body, request.received_at, default_country)
    except SignedRequestRejected as error:
        return f"not a valid event: {error.detail}"
    return IncomingEvent(event, request.body)
