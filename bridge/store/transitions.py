"""Transitions: the only code that changes the state of a stored delivery.

`bridge.lifecycle` decides what a transition implies; this module writes it, together with its effect on the idempotency
key. A test ensures that no other module writes the columns of the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, literal, update

from bridge.lifecycle import DeliveryState, KeyEffect, Transition
from bridge.store import schema
from bridge.store.bulk import bulk_update
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import Delivery
from bridge.store.idempotency import (
    mark_completed,
    mark_completed_late,
    release_keys,
    undo_completion,
)

_TABLE = schema.deliveries


class Change(NamedTuple):
    """A transition of one delivery, whose row is locked."""

    delivery: Delivery
    transition: Transition
    columns: Mapping[str, Any] = MappingProxyType({})
    """Other columns to write. All changes of one call have the same ones."""
    current_state: DeliveryState | None = None
    """The state of the row, if `delivery` was read before it was locked."""
    precedence: int = 0
    """`event_precedence` of the event, if the transition completes the key that the attempt reserved."""


def apply_transitions(database: Database, conn: Connection, changes: Sequence[Change], now: datetime) -> None:
    """Apply transitions to deliveries and to their idempotency keys; wake the router if any has a follow-up.

    Raise IllegalTransition if the state of a delivery does not allow its transition.
    """
    if not changes:
        return
    rows = []
    for change in changes:
        delivery = change.delivery
        current = change.current_state or delivery.state
        columns = change.transition.columns(
            current, now, delivery.trigger, delivery.finished_at, on_success=delivery.options.on_success
        )
        rows.append({"id": delivery.id, **columns, **change.columns})
    bulk_update(conn, _TABLE, ["id"], rows)
    by_key: dict[KeyEffect, list[Change]] = {effect: [] for effect in KeyEffect}
    for change in changes:
        by_key[change.transition.key].append(change)
    mark_completed(
        conn,
        [
            (change.delivery, change.columns["external_id"], change.precedence)
            for change in by_key[KeyEffect.COMPLETE]
        ],
        now,
    )
    release_keys(
        conn, {change.delivery.id: change.delivery.idempotency_key for change in by_key[KeyEffect.RELEASE]}
    )
    undo_completion(
        conn, {change.delivery.id: change.delivery.idempotency_key for change in by_key[KeyEffect.UNDO]}
    )
    for change in by_key[KeyEffect.COMPLETE_LATE]:
        external_id = change.columns.get("external_id", change.delivery.external_id)
        mark_completed_late(database, conn, change.delivery, external_id, now)
    if any(row["needs_follow_up"] for row in rows):
        database.publish(conn, [EVENTS_TOPIC])


def finish_follow_ups(conn: Connection, delivery_ids: Sequence[str], error: str = "") -> None:
    """Unflag deliveries whose follow-ups were created, or could not be created because of `error`."""
    values: dict[str, Any] = {"needs_follow_up": False}
    if error:
        values["detail"] = func.coalesce(_TABLE.c.detail + "; ", "") + literal(error)
    conn.execute(update(_TABLE).where(_TABLE.c.id.in_(delivery_ids)).values(values))
