"""The ledger of effects: what has been brought about, and what somebody is trying to bring about.

A row is reserved before the attempt, in its transaction, and held once the attempt took effect. Only a proven
failure frees it; an unknown outcome keeps it.
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


def mark_completed(conn: Connection, held: Sequence[Mapping[str, Any]]) -> None:
    """These took effect, each for the delivery that reserved it: rows made by `held_row`."""
    if held:
        bulk_update(conn, _TABLE, ["key"], held, only_if="idempotency_keys.reserved_by = given.completed_by")


def completed_row(
    idempotency_key: str,
    delivery: str,
    external_id: str | None,
    precedence: int,
    occurred_at: datetime,
    now: datetime,
) -> dict[str, Any]:
    """A row of `hold_effects`."""
    return {
        "key": idempotency_key,
        "reserved_by": None,
        "completed_by": delivery,
        "external_id": external_id,
        "precedence": precedence,
        "occurred_at": occurred_at,
        "changed_at": now,
    }


def mark_completed_for(
    database: Database, conn: Connection, row: Row[Any], external_id: str | None, now: datetime
) -> None:
    """A delivery (its row) took effect, or may have: it is held for it, unless it is held for somebody else.

    It is held though it was freed meanwhile, or an `--force` has reserved it: whatever becomes of that one.
    """
    event = select(schema.events.c.type).where(schema.events.c.id == row.event_id)
    precedence = event_precedence(conn.execute(event).scalar_one_or_none() or "")
    fresh = {
        "key": row.idempotency_key,
        "reserved_by": row.id,
        "precedence": precedence,
        "occurred_at": row.occurred_at,
        "changed_at": now,
    }
    conn.execute(database.insert_new(_TABLE), [fresh])
    held = completed_row(row.idempotency_key, row.id, external_id, precedence, row.occurred_at, now)
    held |= {"reserved_by": func.nullif(_TABLE.c.reserved_by, row.id)}
    ours = or_(_TABLE.c.reserved_by == row.id, _TABLE.c.completed_by.is_(None))
    conn.execute(update(_TABLE).where(_TABLE.c.key == row.idempotency_key, ours).values(held))


def release_keys(conn: Connection, reserved: Mapping[str, str]) -> None:
    """These deliveries (id -> effect key) have certainly not brought anything about, and will not try again.

    After a replay with `--force` another delivery may have tried the same, and nobody knows with what outcome: then
    the effect is kept for that one.
    """
    if not reserved:
        return
    mine = _TABLE.c.key.in_(set(reserved.values())) & _TABLE.c.reserved_by.in_(reserved)
    conn.execute(update(_TABLE).where(mine).values(reserved_by=_other_unresolved_holder()))
    unheld = (
        _TABLE.c.key.in_(set(reserved.values()))
        & _TABLE.c.reserved_by.is_(None)
        & _TABLE.c.completed_by.is_(None)
    )
    conn.execute(delete(_TABLE).where(unheld))


def _other_unresolved_holder() -> ScalarSelect[str]:
    """Another delivery of the effect's conversation that has the same effect and an outcome that is not known."""
    mine, other = schema.deliveries.alias("mine"), schema.deliveries.alias("other")
    unknown = or_(other.c.state.in_(("running", "needs_review")), other.c.outcome_unknown_since.is_not(None))
    return (
        select(other.c.id)
        .join(mine, and_(mine.c.conversation == other.c.conversation, mine.c.id != other.c.id))
        .where(mine.c.id == _TABLE.c.reserved_by, other.c.idempotency_key == _TABLE.c.key, unknown)
        .order_by(other.c.id)
        .limit(1)
        .correlate(_TABLE)
        .scalar_subquery()
    )
