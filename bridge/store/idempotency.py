"""Idempotency keys: record which side effects are in progress and which are completed.

A key is reserved before the attempt, in the same transaction, and completed once the attempt took effect. Only a
confirmed failure releases it; after an unknown outcome it stays reserved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, ScalarSelect, and_, delete, func, or_, select, update

from bridge.policy import IdempotencyRecord, event_precedence
from bridge.store import schema
from bridge.store.bulk import bulk_insert, bulk_update, json_values, select_in
from bridge.store.database import Database
from bridge.store.deliveries import Delivery

_TABLE = schema.idempotency_keys


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A row of `idempotency_keys`."""

    reserved_by: str | None
    completed_by: str | None
    external_id: str | None
    precedence: int
    occurred_at: datetime

    def record_for(self, delivery_id: str) -> IdempotencyRecord:
        """Return the record that decides about this delivery: another delivery's reservation, or the completion."""
        reserved_by_other = self.reserved_by is not None and self.reserved_by != delivery_id
        completed = self.completed_by is not None and not reserved_by_other
        holder = self.reserved_by if reserved_by_other else self.completed_by
        return IdempotencyRecord(holder or delivery_id, completed, self.precedence, self.occurred_at)


_FIELDS = tuple(field.name for field in fields(IdempotencyKey))
_BY_KEY = select_in(_TABLE.c.key, [_TABLE.c.key, *_TABLE.c[_FIELDS]])
"""Built once, because every claim uses it."""


def load_keys(conn: Connection, keys: Collection[str]) -> dict[str, IdempotencyKey]:
    """Return the stored keys among `keys`."""
    rows = conn.execute(_BY_KEY[conn.dialect.name], json_values(keys))
    return {key: IdempotencyKey(*values) for key, *values in rows}


def reserve_keys(
    conn: Connection, deliveries: Sequence[Delivery], precedences: Sequence[int], now: datetime
) -> None:
    """Reserve the key of each delivery before its attempt; `precedences` are those of their events."""
    bulk_insert(
        conn,
        _TABLE,
        [
            _reserved(delivery, precedence, now)
            for delivery, precedence in zip(deliveries, precedences, strict=True)
        ],
        "ON CONFLICT (key) DO UPDATE SET reserved_by = excluded.reserved_by, changed_at = excluded.changed_at",
    )


def mark_completed(
    conn: Connection, completed: Sequence[tuple[Delivery, str | None, int]], now: datetime
) -> None:
    """Complete the keys that these deliveries reserved; each with its external ID and its event's precedence."""
    if completed:
        bulk_update(
            conn,
            _TABLE,
            ["key"],
            [_completed(*item, now) for item in completed],
            condition="idempotency_keys.reserved_by = incoming.completed_by",
        )


def mark_completed_late(
    database: Database, conn: Connection, delivery: Delivery, external_id: str | None, now: datetime
) -> None:
    """Complete the key of a delivery that took effect, or may have, unless another delivery completed it.

    The key is completed even if it was released in the meantime, or if a replay with `--force` has reserved it:
    the result of that replay does not matter here.
    """
    event_type = select(schema.events.c.type).where(schema.events.c.id == delivery.event_id)
    precedence = event_precedence(conn.execute(event_type).scalar_one_or_none() or "")
    conn.execute(database.insert_new(_TABLE), [_reserved(delivery, precedence, now)])
    completed = _completed(delivery, external_id, precedence, now)
    completed["reserved_by"] = func.nullif(_TABLE.c.reserved_by, delivery.id)
    is_available = or_(_TABLE.c.reserved_by == delivery.id, _TABLE.c.completed_by.is_(None))
    conn.execute(
        update(_TABLE).where(_TABLE.c.key == delivery.idempotency_key, is_available).values(completed)
    )


def _reserved(delivery: Delivery, precedence: int, now: datetime) -> dict[str, Any]:
    return {
        "key": delivery.idempotency_key,
        "reserved_by": delivery.id,
        "precedence": precedence,
        "occurred_at": delivery.occurred_at,
        "changed_at": now,
    }


def _completed(delivery: Delivery, external_id: str | None, precedence: int, now: datetime) -> dict[str, Any]:
    return _reserved(delivery, precedence, now) | {
        "reserved_by": None,
        "completed_by": delivery.id,
        "external_id": external_id,
    }


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


def undo_completion(conn: Connection, completed: Mapping[str, str]) -> None:
    """Release the keys that these deliveries (ID -> key) completed, because their effect was undone.

    A key that a replay with `--force` has reserved stays reserved for it.
    """
    if not completed:
        return
    keys = _TABLE.c.key.in_(set(completed.values()))
    is_completed = keys & _TABLE.c.completed_by.in_(completed)
    conn.execute(update(_TABLE).where(is_completed).values(completed_by=None, external_id=None))
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
