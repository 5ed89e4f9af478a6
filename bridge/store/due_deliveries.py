"""Due deliveries: selects those that a claim may start now, oldest first, and locks them.

No two of them share a lock key. Deliveries whose concurrency key is in use are skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    TextClause,
    and_,
    bindparam,
    func,
    or_,
    select,
    text,
)

from bridge.store import schema
from bridge.store.bulk import json_values, select_in
from bridge.store.crowded_keys import CrowdedKeys
from bridge.store.database import Database
from bridge.store.deliveries import DELIVERY_COLUMNS, Delivery
from bridge.store.opt_outs import recipient_lock_key
from bridge.store.request_budget import Due
from bridge.store.waiting import IS_WAITING

MIN_CANDIDATES, MAX_CANDIDATES = 32, 400
"""Due deliveries that one query selects, at least and at most. The maximum also ends the selection, because
PostgreSQL can hold only a limited number of locks."""
MAX_QUERIES = 4
"""How often one claim queries for more due deliveries."""
_TABLE = schema.deliveries
_FROM_THE_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class DueSelection:
    """The deliveries of one claim, which fill its calls."""

    connection: str
    due: Due
    calls: int
    """Calls that may start."""
    batch_size: Callable[[str], int]
    """Returns how many deliveries of an action one call can carry."""
    max_batch_size: int
    selected: list[Delivery] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """The lock keys of the selected deliveries."""
    concurrency_keys: set[str] = field(default_factory=set)
    """Those of the selected deliveries, and those that are crowded."""
    skipped: int = 0
    """Deliveries that were read and skipped because of their concurrency key."""
    first_left: datetime | None = None
    """When the first delivery was due that was skipped for another reason."""
    _ids: set[str] = field(default_factory=set)
    _started: int = 0
    _sizes: Counter[str] = field(default_factory=Counter)

    @property
    def is_full(self) -> bool:
        """No further call may start, or the transaction has enough locks."""
        return self._started == self.calls or len(self.selected) >= MAX_CANDIDATES

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Select those of these deliveries that fit."""
        for delivery in deliveries:
            if delivery.id in self._ids:
                continue
            batch_key = _batch_key(delivery)
            batch_size = 1 if delivery.outcome_unknown_since else self.batch_size(delivery.action)
            starts_call = self._sizes[batch_key] % batch_size == 0
            keys = lock_keys(delivery)
            if not self.keys.isdisjoint(keys) or (starts_call and self._started == self.calls):
                if delivery.concurrency_key in self.concurrency_keys:
                    self.skipped += 1
                else:
                    self.first_left = self.first_left or delivery.run_at
                continue
            self._started += starts_call
            self._sizes[batch_key] += 1
            self.keys |= keys
            if delivery.concurrency_key is not None:
                self.concurrency_keys.add(delivery.concurrency_key)
            self._ids.add(delivery.id)
            self.selected.append(delivery)


def select_due(
    database: Database, conn: Connection, selection: DueSelection, now: datetime
) -> list[Delivery]:
    """Select and lock enough due deliveries to fill the calls that may start."""
    connection, due = selection.connection, selection.due
    known = database.crowded_keys.find(connection) if due == "all" else None
    since = known.until if known else _FROM_THE_START
    crowded = _select_crowded(conn, selection, known, now) if known else frozenset()
    selection.concurrency_keys |= crowded
    limit = min(MAX_CANDIDATES, selection.calls * selection.max_batch_size + MIN_CANDIDATES)
    last = since
    for _ in range(MAX_QUERIES):
        if selection.is_full:
            break
        keys = list(selection.concurrency_keys)
        parameters = {"connection": connection, "since": since, "now": now, "keys": keys, "limit": limit}
        deliveries = [Delivery.from_row(row) for row in conn.execute(_DUE[due], parameters).all()]
        selection.add(deliveries)
        last = deliveries[-1].run_at if len(deliveries) == limit else now
        if last == now:
            break
    if due == "all" and (known or selection.skipped >= limit // 2):
        until = max(
            since, min(selection.first_left or last, last)
        )  # what was due before is selected or waits
        waiting = _waiting_keys(conn, selection, since, until)
        database.crowded_keys.save(connection, known, until, crowded | waiting)
    database.lock(conn, selection.keys)
    return selection.selected if database.is_sqlite else _drop_busy(conn, selection.selected)


def _select_crowded(
    conn: Connection, selection: DueSelection, known: CrowdedKeys, now: datetime
) -> frozenset[str]:
    """Select the oldest delivery of each crowded key that is free; return the keys that are still crowded."""
    crowded = set(known.keys)
    for key in sorted(known.keys - _running_keys(conn, known.keys)):
        parameters = {"connection": selection.connection, "until": known.until, "now": now, "key": key}
        row = conn.execute(_OLDEST_OF_KEY, parameters).one_or_none()
        if row is None:
            crowded.discard(key)
        else:
            selection.add([Delivery.from_row(row)])
    return frozenset(crowded)


def _waiting_keys(conn: Connection, selection: DueSelection, since: datetime, until: datetime) -> set[str]:
    """Return the concurrency keys of the deliveries due in this time that were not selected."""
    waiting = Counter[str](
        dict(
            tuple(row)
            for row in conn.execute(
                _KEYS, {"connection": selection.connection, "since": since, "until": until}
            )
        )
    )
    selected = (item for item in selection.selected if since <= item.run_at < until)
    waiting -= Counter(item.concurrency_key for item in selected if item.concurrency_key)
    return set(waiting)


def _is_due(condition: TextClause) -> ColumnElement[bool]:
    return and_(
        _TABLE.c.connection == bindparam("connection"), condition, _TABLE.c.run_at <= bindparam("now")
    )


def _due_statement(condition: TextClause) -> Select[*tuple[Any, ...]]:
    """Select due deliveries whose concurrency key is neither running nor in `keys`, oldest first.

    The condition is literal, so that the partial index with this condition is used.
    """
    running = _TABLE.alias("running")
    is_running = (
        select(text("1"))
        .where(text("running.state = 'running'"), running.c.concurrency_key == _TABLE.c.concurrency_key)
        .correlate(_TABLE)
        .exists()
    )
    keys: BindParameter[str] = bindparam("keys", expanding=True)
    is_free = or_(
        _TABLE.c.concurrency_key.is_(None), and_(_TABLE.c.concurrency_key.not_in(keys), ~is_running)
    )
    return (
        select(*DELIVERY_COLUMNS)
        .where(_is_due(condition), _TABLE.c.run_at >= bindparam("since"), is_free)
        .order_by(_TABLE.c.run_at)
        .limit(bindparam("limit"))
        .with_for_update(of=_TABLE, skip_locked=True)
    )


IS_CLAIMABLE: Mapping[Due, TextClause] = {
    "all": IS_WAITING,
    "no_messages": text(
        f"(deliveries.channel IS NULL OR deliveries.trigger = 'alert') AND {IS_WAITING.text}"
    ),
    "alerts": text(f"deliveries.trigger = 'alert' AND {IS_WAITING.text}"),
}
_DUE = {due: _due_statement(condition) for due, condition in IS_CLAIMABLE.items()}
_OLDEST_OF_KEY = (
    select(*DELIVERY_COLUMNS)
    .where(
        _is_due(IS_WAITING),
        _TABLE.c.run_at < bindparam("until"),
        _TABLE.c.concurrency_key == bindparam("key"),
    )
    .order_by(_TABLE.c.run_at)
    .limit(1)
    .with_for_update(of=_TABLE, skip_locked=True)
)
_RUNNING = select_in(_TABLE.c.concurrency_key, [_TABLE.c.concurrency_key], "state = 'running'")
_KEYS = (
    select(_TABLE.c.concurrency_key, func.count())
    .where(
        _TABLE.c.connection == bindparam("connection"),
        IS_WAITING,
        _TABLE.c.run_at >= bindparam("since"),
        _TABLE.c.run_at < bindparam("until"),
        _TABLE.c.concurrency_key.is_not(None),
    )
    .group_by(_TABLE.c.concurrency_key)
)


def lock_keys(delivery: Delivery) -> set[str]:
    """Return the keys to lock: concurrency key, idempotency key, recipient, and the count of `once`."""
    keys = {f"idempotency {delivery.idempotency_key}"}
    if delivery.concurrency_key is not None:
        keys.add(f"concurrency {delivery.concurrency_key}")
    if delivery.channel is not None and delivery.recipient is not None:
        keys.add(recipient_lock_key(delivery.recipient))
    if delivery.options.once:
        keys.add(f"once {delivery.rule} {delivery.action} {delivery.once_value}")
    return keys


def _batch_key(delivery: Delivery) -> str:
    """Return the key of the batches that a delivery may join: its action; a lookup is a call of its own."""
    return f"lookup of {delivery.id}" if delivery.outcome_unknown_since else delivery.action


def _drop_busy(conn: Connection, selected: list[Delivery]) -> list[Delivery]:
    """Drop deliveries whose concurrency key another worker has used since, before this one held its lock."""
    concurrency_keys = [item.concurrency_key for item in selected if item.concurrency_key is not None]
    if not concurrency_keys:
        return selected
    busy = _running_keys(conn, concurrency_keys)
    return [item for item in selected if item.concurrency_key not in busy]


def _running_keys(conn: Connection, concurrency_keys: Collection[str]) -> set[str]:
    """Return those of these concurrency keys that are in use."""
    return {key for (key,) in conn.execute(_RUNNING[conn.dialect.name], json_values(concurrency_keys))}
