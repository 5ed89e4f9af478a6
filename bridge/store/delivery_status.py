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

from bridge.connector import OptIn, OptOut, Receipt
from bridge.store import schema
from bridge.store.database import EVENTS, Database
from bridge.store.idempotency import take_effect
from bridge.store.opt_outs import Preference, keep_preferences
from bridge.store.results import NOT_RECEIVED, PROVEN, furthest_receipt
from bridge.telemetry import mask

Learned = Receipt | OptOut | OptIn

_TABLE = schema.deliveries


@dataclass(frozen=True)
class Unmatched:
    """A receipt that belongs to no delivery as it stands, and why."""

    receipt: Receipt
    why: str


def learn(database: Database, name: str, learned: Sequence[Learned]) -> list[Unmatched]:
    """Write what the partner of connection `name` reported, in one transaction; returns the receipts of nobody.

    Raises StoreUnavailable: then nothing is written, and the partner must not be told that it was.
    """
    receipts = [item for item in learned if isinstance(item, Receipt)]
    wishes = [_preference(item, name) for item in learned if not isinstance(item, Receipt)]
    unmatched: list[Unmatched] = []
    with database.write() as connection:
        now = database.now(connection)
        rows = _deliveries(connection, name, receipts)
        # Locks in the order of `finish`: deliveries, recipients, effects.
        keep_preferences(database, connection, wishes, now)
        follow_up = False
        for receipt in receipts:
            row = _match(rows, receipt)
            if isinstance(row, str):
                unmatched.append(Unmatched(receipt, row))
                continue
            changes = _changes(row, receipt, now)
            if not changes:
                continue
            if changes.get("state") == "sent":
                take_effect(database, connection, row, receipt.id, now)
            rows[row.id] = connection.execute(
                update(_TABLE).where(_TABLE.c.id == row.id).values(changes).returning(_TABLE)
            ).one()
            follow_up |= bool(changes.get("follow_up"))
        if follow_up:
            database.changed(connection, [EVENTS])
    return unmatched


def _preference(item: OptOut | OptIn, name: str) -> Preference:
    word = "STOP" if isinstance(item, OptOut) else "START"
    return Preference(item.channel, item.address, isinstance(item, OptOut), f"{word} to {name}")


def _deliveries(connection: Connection, name: str, receipts: Sequence[Receipt]) -> dict[str, Row[Any]]:
    """The connection's deliveries that these receipts may speak of, locked."""
    idents = [receipt.delivery for receipt in receipts if receipt.delivery]
    partner_ids = [receipt.id for receipt in receipts if receipt.id]
    if not idents and not partner_ids:
        return {}
    found = connection.execute(
        select(_TABLE)
        .where(
            or_(_TABLE.c.id.in_(idents), _TABLE.c.partner_id.in_(partner_ids)), _TABLE.c.connection == name
        )
        .order_by(_TABLE.c.id)
        .with_for_update()
    )
    return {row.id: row for row in found}


def _match(rows: dict[str, Row[Any]], receipt: Receipt) -> Row[Any] | str:
    """The delivery that a receipt speaks of, or why there is none."""
    for row in rows.values():
        if receipt.id is not None and row.partner_id == receipt.id:
            return row
    named = rows.get(receipt.delivery or "")
    if named is None:
        return "no delivery of this connection has this id"
    if named.partner_id is not None and receipt.id is not None:
        return "the delivery it names made another message: one too many may have gone out"
    if named.first_attempt_at is None:
        return "the delivery it names was never attempted"
    return named


def _changes(row: Row[Any], receipt: Receipt, now: datetime) -> dict[str, Any]:
    """What a receipt changes in its delivery; nothing when it is old news."""
    changes: dict[str, Any] = {}
    if furthest_receipt(row.receipt, receipt.state) != row.receipt:
        changes |= {"receipt": receipt.state, "receipt_at": now}
    if row.partner_id is None and receipt.id is not None:
        changes["partner_id"] = receipt.id
    if row.state not in ("sent", "sending"):
        changes |= {
            "state": "sent",
            "reason": None,
            "detail": PROVEN,
            "unknown_since": None,
            "finished_at": now,
            "follow_up": False,
        }
    if changes.get("receipt") in NOT_RECEIVED:
        changes["detail"] = mask(receipt.detail)[:500] or None
        # While an attempt runs its end is what is followed up; it reads the receipt.
        changes["follow_up"] = row.origin == "rule" and row.state != "sending"
    return changes
