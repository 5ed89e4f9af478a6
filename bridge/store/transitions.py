"""Transitions: the only code that changes the state of a stored delivery.

`bridge.lifecycle` decides what a transition implies; this module writes it, together with its effect on the idempotency
key. A test ensures that no other module writes the columns of the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, literal, update

from bridge.lifecycle import DeliveryState, KeyEffect, Transition, require_allowed
from bridge.store import schema
from bridge.store.bulk import bulk_update, for_values, json_values
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import Delivery
from bridge.store.idempotency import (
    mark_completed,
    mark_completed_late,
    release_keys,
    undo_completion,
)
from bridge.store.schema import microseconds

_TABLE = schema.deliveries
_START: Final = for_values(
    "UPDATE deliveries SET state = 'running', fencing_token = fencing_token + 1, lease_expires_at = :lease_expires_at, "
    "worker_id = :worker_id, first_attempt_at = coalesce(first_attempt_at, :now), "
    "possibly_sent_at = coalesce(possibly_sent_at, :now) WHERE id {in_values}"
)
_INSERT_ATTEMPTS: Final = for_values(
    "INSERT INTO attempts (delivery_id, fencing_token, kind, started_at, worker_id) SELECT id, fencing_token, "
    "CASE WHEN outcome_unknown_since IS NULL THEN 'send' ELSE 'lookup' END, CAST(:now AS bigint), "
    "CAST(:worker_id AS text) FROM deliveries WHERE id {in_values}"
)


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


def start_attempts(
    conn: Connection, deliveries: Sequence[Delivery], worker_id: str, now: datetime, lease: timedelta
) -> None:
    """Take the lease of these deliveries, whose rows are locked, and write their attempts.

    Nothing but the state changes, so one statement serves all of them. Raise IllegalTransition if one of them may not
    start.
    """
    if not deliveries:
        return
    for delivery in deliveries:
        require_allowed(delivery.state, DeliveryState.RUNNING)
    parameters: dict[str, Any] = {
        **json_values(delivery.id for delivery in deliveries),
        "worker_id": worker_id,
        "now": microseconds(now),
    }
    dialect = conn.dialect.name
    conn.execute(_START[dialect], parameters | {"lease_expires_at": microseconds(now + lease)})
    conn.execute(_INSERT_ATTEMPTS[dialect], parameters)


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
