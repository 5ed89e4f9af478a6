"""Writing down what partners report back: receipts, opt-outs and opt-ins, before the partner is answered.

Partners repeat themselves and speak out of order, so whatever comes is written such that its order does not matter: a
receipt only moves forward, and the first final one stays. A receipt also proves that its delivery took effect,
whatever else was known of it: only the attempt that ends says otherwise, and it reads the receipt first.
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
from bridge.store.results import UNDELIVERED_STATUSES, CONFIRMED_BY_STATUS, latest_status
from bridge.telemetry import mask

CallbackEvent = StatusUpdate | OptOut | OptIn

_TABLE = schema.deliveries


@dataclass(frozen=True)
class UnmatchedStatus:
    """A receipt that belongs to no delivery as it stands, and why."""

    update: StatusUpdate
    why: str


def apply_callback(database: Database, name: str, learned: Sequence[CallbackEvent]) -> list[UnmatchedStatus]:
    """Write what the partner of connection `name` reported, in one transaction; returns the receipts of nobody.

    Raises StoreUnavailable: then nothing is written, and the partner must not be told that it was.
    """
    status_updates = [item for item in learned if isinstance(item, StatusUpdate)]
    wishes = [_preference(item, name) for item in learned if not isinstance(item, StatusUpdate)]
    unmatched: list[UnmatchedStatus] = []
    with database.write() as conn:
        now = database.now(conn)
        rows = _deliveries(conn, name, status_updates)
        # Locks in the order of `finish`: deliveries, recipients, effects.
        save_opt_outs(database, conn, wishes, now)
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


def _preference(item: OptOut | OptIn, name: str) -> OptOutChange:
    word = "STOP" if isinstance(item, OptOut) else "START"
    return OptOutChange(item.channel, item.address, isinstance(item, OptOut), f"{word} to {name}")


def _deliveries(conn: Connection, name: str, status_updates: Sequence[StatusUpdate]) -> dict[str, Row[Any]]:
    """The connection's deliveries that these receipts may speak of, locked."""
    delivery_ids = [status_update.delivery for status_update in status_updates if status_update.delivery]
    external_ids = [status_update.id for status_update in status_updates if status_update.id]
    if not delivery_ids and not external_ids:
        return {}
    found = conn.execute(
        select(_TABLE)
        .where(
            or_(_TABLE.c.id.in_(delivery_ids), _TABLE.c.external_id.in_(external_ids)),
            _TABLE.c.connection == name,
        )
        .order_by(_TABLE.c.id)
        .with_for_update()
    )
    return {row.id: row for row in found}


def _match(rows: dict[str, Row[Any]], status_update: StatusUpdate) -> Row[Any] | str:
    """The delivery that a receipt speaks of, or why there is none."""
    for row in rows.values():
        if status_update.id is not None and row.external_id == status_update.id:
            return row
    named = rows.get(status_update.delivery or "")
    if named is None:
        return "no delivery of this connection has this id"
    if named.external_id is not None and status_update.id is not None:
        return "the delivery it names made another message: one too many may have gone out"
    if named.first_attempt_at is None:
        return "the delivery it names was never attempted"
    return named


def _changes(row: Row[Any], status_update: StatusUpdate, now: datetime) -> dict[str, Any]:
    """What a receipt changes in its delivery; nothing when it is old news."""
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
        # While an attempt runs its end is what is followed up; it reads the receipt.
        changes["needs_follow_up"] = row.trigger == "rule" and row.state != "running"
    return changes
