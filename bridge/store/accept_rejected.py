"""Rejected requests that an operator accepts as events."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import or_, select, update

from bridge.errors import BridgeError
from bridge.signing import SignedRequestRejected, read_event
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.operator_actions import ActionResult
from bridge.store.queries import NotFound


def accept_rejected_request(database: Database, actor: str, request_id: str) -> ActionResult:
    """Accept a rejected request as an event; its signature must be valid.

    A conflict becomes an event of its own, next to the stored one that has the same identity. If the process dies
    between the two transactions, the action can be repeated: the event is then a duplicate.
    """
    table = schema.rejected_requests
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == request_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no rejected request `{request_id}`")
    if row.accepted_event_id is not None:
        return ActionResult(request_id, False, f"it was already accepted as {row.accepted_event_id}")
    if row.body is None:
        return ActionResult(
            request_id,
            False,
            "it has no valid signature, so its body was not kept; Heppu has to send it again",
        )
    try:
        event = read_event(row.body, row.received_at, database.default_country)
    except SignedRequestRejected as error:
        return ActionResult(request_id, False, f"not a valid event: {error.detail}")
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
