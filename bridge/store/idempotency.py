"""Idempotency keys: record which side effects are in progress and which are completed.

A key is reserved before the attempt, in the same transaction, and completed once the attempt took effect. Only a
confirmed failure releases it; after an unknown outcome it stays reserved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, ScalarSelect, and_, delete, func, or_, select, update

from bridge.policy import event_precedence
from bridge.store import schema
from bridge.store.bulk import bulk_update
from bridge.store.database import Database

_TABLE = schema.idempotency_keys


def mark_completed(conn: Connection, completed: Sequence[Mapping[str, Any]]) -> None:
    """Complete keys, each for the delivery that reserved it; the rows are made by `completed_row`."""
    if completed:
        bulk_update(
            conn,
            _TABLE,
            ["key"],
            completed,
            condition="idempotency_keys.reserved_by = incoming.completed_by",
        )


def completed_row(
    idempotency_key: str,
    delivery_id: str,
    external_id: str | None,
    precedence: int,
    occurred_at: datetime,
    now: datetime,
) -> dict[str, Any]:
    """Return a row for `mark_completed`."""
    return {
        "key": idempotency_key,
        "reserved_by": None,
        "completed_by": delivery_id,
        "external_id": external_id,
        "precedence": precedence,
        "occurred_at": occurred_at,
        "changed_at": now,
    }


def mark_completed_for(
    database: Database, conn: Connection, row: Row[Any], external_id: str | None, now: datetime
) -> None:
    """Complete the key of a delivery (its row) that took effect, or may have, unless another delivery completed it.

    The key is completed even if it was released in the meantime, or if a replay with `--force` has reserved it:
    the result of that replay does not matter here.
    """
    event_type = select(schema.events.c.type).where(schema.events.c.id == row.event_id)
    precedence = event_precedence(conn.execute(event_type).scalar_one_or_none() or "")
    reserved = {
        "key": row.idempotency_key,
        "reserved_by": row.id,
        "precedence": precedence,
        "occurred_at": row.occurred_at,
        "changed_at": now,
    }
    conn.execute(database.insert_new(_TABLE), [reserved])
    completed = completed_row(row.idempotency_key, row.id, external_id, precedence, row.occurred_at, now)
    completed |= {"reserved_by": func.nullif(_TABLE.c.reserved_by, row.id)}
    is_available = or_(_TABLE.c.reserved_by == row.id, _TABLE.c.completed_by.is_(None))
    conn.execute(update(_TABLE).where(_TABLE.c.key == row.idempotency_key, is_available).values(completed))


def release_keys(conn: Connection, reserved: Mapping[str, str]) -> None:
    """Release the keys of deliveries (ID -> key) that certainly took no effect and are not attempted again.

    After a replay with `--force`, the outcome of another delivery with the same key may be unknown. Then the key is
    reserved for that delivery instead.
    """
    if not reserved:
        return
    keys = _TABLE.c.key.in_(set(reserved.values()))
    is_reserved = keys & _TABLE.c.reserved_by.in_(reserved)
    conn.execute(update(_TABLE).where(is_reserved).values(reserved_by=_other_unresolved_holder()))
    is_unused = keys & _TABLE.c.reserved_by.is_(None) & _TABLE.c.completed_by.is_(None)
    conn.execute(delete(_TABLE).where(is_unused))


def _other_unresolved_holder() -> ScalarSelect[str]:
    """Select another delivery of the conversation with the same key whose outcome is unknown."""
    holder, other = schema.deliveries.alias("holder"), schema.deliveries.alias("other")
    is_unresolved = or_(
        other.c.state.in_(("running", "needs_review")), other.c.outcome_unknown_since.is_not(None)
    )
    return (
        select(other.c.id)
        .join(holder, and_(holder.c.conversation == other.c.conversation, holder.c.id != other.c.id))
        .where(holder.c.id == _TABLE.c.reserved_by, other.c.idempotency_key == _TABLE.c.key, is_unresolved)
        .order_by(other.c.id)
        .limit(1)
        .correlate(_TABLE)
        .scalar_subquery()
    )
