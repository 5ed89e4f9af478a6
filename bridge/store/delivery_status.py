"""Delivery status: stores what providers report in callbacks (message statuses, opt-outs, opt-ins) before responding.

Providers repeat callbacks and send them out of order, so the order in which they are stored does not matter: a message
status only moves forward, and the first final one stays. A message status also confirms that its delivery took effect,
whatever was known before. Only the result of a running attempt may contradict it, and it reads the status first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, or_, select, update

from bridge.connector import OptIn, OptOut, StatusUpdate
from bridge.store import schema
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.idempotency import mark_completed_for
from bridge.store.opt_outs import OptOutChange, save_opt_outs
from bridge.store.results import CONFIRMED_BY_STATUS, UNDELIVERED_STATUSES, latest_status
from bridge.telemetry import mask

CallbackEvent = StatusUpdate | OptOut | OptIn

_TABLE = schema.deliveries


@dataclass(frozen=True)
class UnmatchedStatus:
    """A message status that matches no delivery, and why."""

    update: StatusUpdate
    reason: str


def apply_callback(database: Database, name: str, reported: Sequence[CallbackEvent]) -> list[UnmatchedStatus]:
    """Store what the provider of connection `name` reported, in one transaction; return the unmatched statuses.

    Raise StoreUnavailable if nothing was stored: then the provider must get an error, so that it sends it again.
    """
    status_updates = [item for item in reported if isinstance(item, StatusUpdate)]
    opt_out_changes = [_opt_out_change(item, name) for item in reported if not isinstance(item, StatusUpdate)]
    unmatched: list[UnmatchedStatus] = []
    with database.write() as conn:
        now = database.now(conn)
        rows = _deliveries(conn, name, status_updates)
        # Locks in the order of `record_results`: deliveries, recipients, idempotency keys.
        save_opt_outs(database, conn, opt_out_changes, now)
        follow_up = False
        for status_update in status_updates:
            row = _match(rows, status_update)
            if isinstance(row, str):
                unmatched.append(UnmatchedStatus(status_update, row))
                continue
            changes = _changes(row, status_update, now)
            if not changes:
                continue
            if changes.get("state") == "succeeded":
                mark_completed_for(database, conn, row, status_update.id, now)
            rows[row.id] = conn.execute(
                update(_TABLE).where(_TABLE.c.id == row.id).values(changes).returning(_TABLE)
            ).one()
            follow_up |= bool(changes.get("needs_follow_up"))
        if follow_up:
            database.publish(conn, [EVENTS_TOPIC])
    return unmatched


def _opt_out_change(item: OptOut | OptIn, name: str) -> OptOutChange:
    keyword = "STOP" if isinstance(item, OptOut) else "START"
    return OptOutChange(item.channel, item.address, isinstance(item, OptOut), f"{keyword} to {name}")


def _deliveries(conn: Connection, name: str, status_updates: Sequence[StatusUpdate]) -> dict[str, Row[Any]]:
    """Return the connection's deliveries that these statuses may belong to, locked."""
    delivery_ids = [status_update.delivery for status_update in status_updates if status_update.delivery]
    external_ids = [status_update.id for status_update in status_updates if status_update.id]
    if not delivery_ids and not external_ids:
        return {}
    rows = conn.execute(
        select(_TABLE)
        .where(
            or_(_TABLE.c.id.in_(delivery_ids), _TABLE.c.external_id.in_(external_ids)),
            _TABLE.c.connection == name,
        )
        .order_by(_TABLE.c.id)
        .with_for_update()
    )
    return {row.id: row for row in rows}


def _match(rows: dict[str, Row[Any]], status_update: StatusUpdate) -> Row[Any] | str:
    """Return the delivery that a status belongs to, or why there is none."""
    for row in rows.values():
        if status_update.id is not None and row.external_id == status_update.id:
            return row
    row_by_id = rows.get(status_update.delivery or "")
    if row_by_id is None:
        return "no delivery of this connection has this ID"
    if row_by_id.external_id is not None and status_update.id is not None:
        return "its delivery sent another message: one message too many may have been sent"
    if row_by_id.first_attempt_at is None:
        return "its delivery was never attempted"
    return row_by_id


def _changes(row: Row[Any], status_update: StatusUpdate, now: datetime) -> dict[str, Any]:
    """Return the columns that a status changes in its delivery; empty if it is outdated."""
    changes: dict[str, Any] = {}
    if latest_status(row.message_status, status_update.state) != row.message_status:
        changes |= {"message_status": status_update.state, "message_status_at": now}
    if row.external_id is None and status_update.id is not None:
        changes["external_id"] = status_update.id
    if row.state not in ("succeeded", "running"):
        changes |= {
            "state": "succeeded",
            "reason": None,
            "detail": CONFIRMED_BY_STATUS,
            "outcome_unknown_since": None,
            "finished_at": now,
            "needs_follow_up": False,
        }
    if changes.get("message_status") in UNDELIVERED_STATUSES:
        changes["detail"] = mask(status_update.detail)[:500] or None
        # While an attempt runs, its result is followed up instead; it includes this status.
        changes["needs_follow_up"] = row.trigger == "rule" and row.state != "running"
    return changes
