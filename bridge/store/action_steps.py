"""Steps of actions: what the writes of an action returned, recorded before the next one starts.

Every record is written in a transaction that locks the delivery and checks the fencing token. A worker that has lost
its lease records nothing: the worker that took over looks the step up instead.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, or_, select, text

from bridge.connector.deadline import remaining_seconds
from bridge.connector.steps import StepRecord
from bridge.errors import BridgeError, OutcomeUnknown, StoreUnavailable, TransientError
from bridge.store import schema
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.database import Database
from bridge.store.sealing import MissingKey
from bridge.telemetry import log

_RETRY_INTERVAL: Final = 0.25
"""Seconds between attempts to record a value while the database is unavailable."""
_TABLE, _DELIVERIES, _KEYS = schema.action_steps, schema.deliveries, schema.idempotency_keys


class StoredSteps:
    """The steps of a claimed delivery, and the finished ones of deliveries with its idempotency key that failed."""

    def __init__(self, database: Database, claimed: ClaimedDelivery) -> None:
        self._database = database
        self._claimed = claimed

    def load(self) -> Mapping[str, StepRecord]:
        """Return the steps by name.

        Those of another delivery count unless it completed the key: then this delivery updates what that one did. A
        replay with `--force` takes every step again.
        """
        delivery = self._claimed.delivery
        is_own = _TABLE.c.delivery_id == delivery.id
        has_key = _TABLE.c.idempotency_key == delivery.idempotency_key
        counts = and_(
            has_key,
            _TABLE.c.finished_at.is_not(None),
            _KEYS.c.completed_by.is_distinct_from(_TABLE.c.delivery_id),
        )
        query = (
            select(_TABLE.c.name, _TABLE.c.finished_at, _TABLE.c.value, is_own.label("is_own"))
            .outerjoin(_KEYS, _KEYS.c.key == _TABLE.c.idempotency_key)
            .where(is_own if delivery.options.force else or_(is_own, counts))
            .order_by(_TABLE.c.started_at)
        )
        try:
            with self._database.read() as conn:
                rows = conn.execute(query).all()
        except (StoreUnavailable, MissingKey) as error:
            raise _not_recorded(error) from error
        records: dict[str, StepRecord] = {}
        for row in rows:
            record = StepRecord(row.finished_at is not None, row.value, bool(row.is_own))
            known = records.get(row.name)
            if known is None or (record.is_finished, record.is_own) > (known.is_finished, known.is_own):
                records[row.name] = record
        return records

    def start(self, name: str) -> None:
        """Record that a step starts. Raise TransientError if this claim is not the newest, or without a database."""
        try:
            with self._database.write() as conn:
                if not self._is_ours(conn):
                    raise TransientError("another worker has taken over the delivery", reason="timeout")
                self._save(conn, name, {"finished_at": None, "value": None})
        except StoreUnavailable as error:
            raise _not_recorded(error) from error

    def finish(self, name: str, value: str | None) -> None:
        """Record the value of a step; until the deadline, wait for the database. Raise OutcomeUnknown."""
        while True:
            try:
                with self._database.write() as conn:
                    if not self._is_ours(conn):
                        raise OutcomeUnknown("another worker has taken over the delivery", reason="timeout")
                    self._save(conn, name, {"finished_at": self._database.now(conn), "value": value})
                return
            except StoreUnavailable as error:
                if remaining_seconds(_RETRY_INTERVAL) < _RETRY_INTERVAL:
                    raise OutcomeUnknown(
                        f"the result of the step `{name}` could not be stored: {error}",
                        reason="internal_error",
                    ) from error
                time.sleep(_RETRY_INTERVAL)

    def undo(self, name: str) -> None:
        """Delete the record: the action may go on, and later end with an outcome that is unknown.

        Without a database, it stays, and the step is looked up if that outcome is unknown.
        """
        try:
            with self._database.write() as conn:
                if self._is_ours(conn):
                    conn.execute(delete(_TABLE).where(_TABLE.c.id == self._id_of(name)))
        except StoreUnavailable as error:
            log.warning(
                "a step that did nothing is not deleted", delivery=self._claimed.delivery.id, error=str(error)
            )

    def _is_ours(self, conn: Connection) -> bool:
        is_newest = (_DELIVERIES.c.id == self._claimed.delivery.id) & (
            _DELIVERIES.c.fencing_token == self._claimed.fencing_token
        )
        locked = select(_DELIVERIES.c.id).where(is_newest, text("deliveries.state = 'running'"))
        return conn.execute(locked.with_for_update()).one_or_none() is not None

    def _id_of(self, name: str) -> str:
        return f"{self._claimed.delivery.id} {name}"

    def _save(self, conn: Connection, name: str, values: Mapping[str, Any]) -> None:
        delivery = self._claimed.delivery
        row = {
            "id": self._id_of(name),
            "delivery_id": delivery.id,
            "idempotency_key": delivery.idempotency_key,
            "name": name,
            "started_at": self._database.now(conn),
            **values,
        }
        statement = self._database.insert(_TABLE)
        conn.execute(statement.on_conflict_do_update(index_elements=["id"], set_=dict(values)), [row])


def deliveries_with_steps(conn: Connection, delivery_ids: Collection[str]) -> set[str]:
    """Return those of these deliveries that have recorded a step."""
    query = select(_TABLE.c.delivery_id).where(_TABLE.c.delivery_id.in_(delivery_ids)).distinct()
    return set(conn.execute(query).scalars()) if delivery_ids else set()


def delete_steps(conn: Connection, delivery_ids: Collection[str]) -> None:
    """Delete the steps of these deliveries."""
    conn.execute(delete(_TABLE).where(_TABLE.c.delivery_id.in_(delivery_ids)))


def _not_recorded(error: BridgeError) -> TransientError:
    return TransientError(
        f"no step was taken, because steps cannot be read or recorded: {error}", reason="internal_error"
    )
