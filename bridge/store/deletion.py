"""Deletion: deletes the rows of finished deliveries and events after BRIDGE_DELETE_AFTER.

Idempotency keys stay, and so do the keys by which duplicates of events are recognized (`deleted_event_keys`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import and_, delete, exists, select

from bridge.rules.model import Rules
from bridge.store import schema
from bridge.store.action_steps import delete_steps
from bridge.store.batches import in_batches
from bridge.store.database import Database
from bridge.store.deleted_event_keys import keep_keys
from bridge.store.retention import retention_windows
from bridge.store.schema import ERASED
from bridge.store.unindexed import unindexed

BATCH: Final = 500
"""Rows of each kind that are selected at a time; each transaction deletes as few as it takes to be short."""
_EVENTS, _DELIVERIES, _ATTEMPTS = schema.events, schema.deliveries, schema.attempts
_STATES: Final = ("succeeded", "failed", "cancelled", "suppressed")


def delete_batch(database: Database, age: timedelta, rules: Rules) -> int:
    """Delete up to `BATCH` finished deliveries and `BATCH` events that are older; return their number.

    An event is deleted after its deliveries, and a delivery not before the caps and `once` of these rules stop counting
    it. Rows that still have personal data are pruned first (`bridge.store.retention`).
    """
    return _delete_deliveries(database, age, rules) + _delete_events(database, age)


def delete_rows(database: Database, age: timedelta | None, rules: Rules) -> int:
    """Delete batch by batch until nothing is left to delete; return the number of rows. None: delete nothing."""
    deleted = 0
    while age is not None and (batch := delete_batch(database, age, rules)):
        deleted += batch
    return deleted


def _delete_deliveries(database: Database, age: timedelta, rules: Rules) -> int:
    table = _DELIVERIES
    with database.read() as conn:
        before = database.now(conn) - max(age, *retention_windows(rules))
        wanted = and_(
            unindexed(table.c.state).in_(_STATES),
            table.c.created_at < before,
            table.c.finished_at < before,
            table.c.params == ERASED,
            ~table.c.needs_follow_up,
        )
        ids: list[str] = []
        for state in _STATES:  # each is a range of the index of states, oldest first
            oldest = select(table.c.id).where(table.c.state == state, wanted).order_by(table.c.created_at)
            ids += conn.execute(oldest.limit(BATCH - len(ids))).scalars()
    deleted = 0

    def change(part: Sequence[str]) -> None:
        nonlocal deleted
        with database.write(durable=False) as conn:
            # Checked again: an operator may have retried one in the meantime.
            locked = select(table.c.id).where(table.c.id.in_(part), wanted).order_by(table.c.id)
            part = conn.execute(locked.with_for_update()).scalars().all()
            conn.execute(delete(_ATTEMPTS).where(_ATTEMPTS.c.delivery_id.in_(part)))
            delete_steps(conn, part)
            deleted += conn.execute(delete(table).where(table.c.id.in_(part))).rowcount

    in_batches(ids, change, largest=BATCH)
    return deleted


def _delete_events(database: Database, age: timedelta) -> int:
    has_deliveries = exists().where(_DELIVERIES.c.event_id == _EVENTS.c.id)
    with database.read() as conn:
        before = database.now(conn) - age
        wanted = and_(_EVENTS.c.received_at < before, _EVENTS.c.body.is_(None), ~has_deliveries)
        oldest = select(_EVENTS.c.id).where(wanted).order_by(_EVENTS.c.received_at).limit(BATCH)
        ids = list(conn.execute(oldest).scalars())
    deleted = 0

    def change(part: Sequence[str]) -> None:
        nonlocal deleted
        with database.write(durable=False) as conn:
            columns = _EVENTS.c["id", "dedupe_key", "fallback_dedupe_key"]
            locked = select(*columns).where(_EVENTS.c.id.in_(part), wanted).order_by(_EVENTS.c.id)
            rows = [dict(row._mapping) for row in conn.execute(locked.with_for_update())]
            keep_keys(database, conn, rows)
            is_deleted = _EVENTS.c.id.in_([row["id"] for row in rows])
            deleted += conn.execute(delete(_EVENTS).where(is_deleted)).rowcount

    in_batches(ids, change, largest=BATCH)
    return deleted
