"""Connection history: the pauses, attempts and backlogs of connections, for the overview and their own pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Connection, func, or_, select, type_coerce

from bridge.lifecycle import PauseCause
from bridge.store import schema
from bridge.store.connection_status import connection_statuses
from bridge.store.database import Database
from bridge.store.pauses import ALL_CONNECTIONS, ConnectionStatus
from bridge.store.waiting import IS_WAITING

MAX_PAUSES: Final = 500
MAX_WAITING: Final = 10_000
"""Waiting deliveries are counted up to this number."""
AUTOMATIC: Final = (PauseCause.CIRCUIT_OPEN, PauseCause.QUOTA, PauseCause.RATE_LIMIT)
"""Causes of pauses that end without an operator."""

_PAUSES, _STATS = schema.connection_pauses, schema.connection_stats


@dataclass(frozen=True)
class PastPause:
    """A pause, present or past. `schema.connection_pauses` describes the fields."""

    id: str
    connection: str
    cause: str
    reason: str | None
    actor: str | None
    started_at: datetime
    ended_at: datetime | None
    waited: int | None
    drained_at: datetime | None

    def duration(self, now: datetime) -> timedelta:
        """Return how long it lasted, or has lasted."""
        return (self.ended_at or now) - self.started_at

    @property
    def is_automatic(self) -> bool:
        """True if it ends without an operator."""
        return self.cause in AUTOMATIC


def read_pauses(database: Database, since: datetime, connection: str | None = None) -> list[PastPause]:
    """Return the pauses of one or all connections that have not ended before `since`, newest first."""
    query = (
        select(*(_PAUSES.c[name] for name in PastPause.__dataclass_fields__))
        .where(or_(_PAUSES.c.ended_at.is_(None), _PAUSES.c.ended_at >= since))
        .order_by(_PAUSES.c.started_at.desc())
        .limit(MAX_PAUSES)
    )
    if connection is not None:
        query = query.where(_PAUSES.c.connection.in_((connection, ALL_CONNECTIONS)))
    table = schema.connections.c
    with database.read() as conn:
        now = database.now(conn)
        found = [PastPause(*row) for row in conn.execute(query)]
        # The row is updated by the next claim, which may be a while away.
        over = {
            row.name: row.paused_until
            for row in conn.execute(select(table.name, table.paused_until, table.pause_cause))
            if row.pause_cause not in (None, PauseCause.CIRCUIT_OPEN) and row.paused_until <= now
        }
    return [
        replace(item, ended_at=over[item.connection])
        if item.ended_at is None and item.connection in over
        else item
        for item in found
    ]


class Attempts(NamedTuple):
    """Attempts over a connection in a period."""

    succeeded: int = 0
    failed: int = 0
    rejected: int = 0
    milliseconds: int = 0

    @property
    def total(self) -> int:
        """All attempts."""
        return self.succeeded + self.failed + self.rejected

    @property
    def mean_seconds(self) -> float | None:
        """Mean duration of an attempt; None if there was none."""
        return self.milliseconds / self.total / 1000 if self.total else None

    def plus(self, other: Attempts) -> Attempts:
        """Return the sum with another period."""
        return Attempts(*(one + two for one, two in zip(self, other, strict=True)))


def read_attempts(
    database: Database, starts: Sequence[datetime], period: timedelta, connection: str | None = None
) -> dict[str, list[Attempts]]:
    """Return the attempts of one or all connections by periods, whose starts are given."""
    microseconds = type_coerce(_STATS.c.started_at, BigInteger) - schema.microseconds(starts[0])
    slot = (microseconds // (period // timedelta(microseconds=1))).label("slot")
    columns = (_STATS.c[name] for name in Attempts._fields)
    query = (
        select(_STATS.c.connection, slot, *(func.sum(column) for column in columns))
        .where(_STATS.c.started_at >= starts[0], _STATS.c.started_at < starts[-1] + period)
        .group_by(_STATS.c.connection, slot)
    )
    if connection is not None:
        query = query.where(_STATS.c.connection == connection)
    found: dict[str, list[Attempts]] = {}
    with database.read() as conn:
        for name, number, *counts in conn.execute(query):
            of_name = found.setdefault(name, [Attempts()] * len(starts))
            of_name[int(number)] = Attempts(*map(int, counts))
    return found


class Waiting(NamedTuple):
    """The deliveries that wait for a connection; each number is at most `MAX_WAITING` + 1."""

    due: int = 0
    later: int = 0
    """Those that wait for their time: a delay, quiet hours, the next attempt."""
    oldest: datetime | None = None
    """When the oldest due one became due."""


def read_waiting(database: Database, names: Collection[str]) -> dict[str, Waiting]:
    """Return what waits for these connections."""
    with database.read() as conn:
        now = database.now(conn)
        return {name: _waiting(conn, name, now) for name in names}


def _waiting(conn: Connection, name: str, now: datetime) -> Waiting:
    table = schema.deliveries.c
    of_name = select(table.run_at).where(IS_WAITING, table.connection == name).limit(MAX_WAITING + 1)
    due = of_name.where(table.run_at <= now).order_by(table.run_at).subquery()
    later = of_name.where(table.run_at > now).subquery()
    total, oldest = conn.execute(select(func.count(), func.min(due.c.run_at))).one()
    return Waiting(total, conn.execute(select(func.count()).select_from(later)).scalar_one(), oldest)


class QuotaUse(NamedTuple):
    """How much of an account's quota of requests is used up."""

    used: int
    limit: int
    reported_at: datetime

    @property
    def share(self) -> float:
        """The part that is used up, from 0 to 1."""
        return self.used / self.limit


@dataclass(frozen=True)
class ConnectionOverview:
    """A connection: its state, what waits for it and what it did."""

    status: ConnectionStatus
    current: PastPause | None
    """The recorded pause that it is in."""
    waiting: Waiting
    attempts: Sequence[Attempts]
    """By period."""
    last_used_at: datetime | None
    """Start of the last period with an attempt."""
    quota: QuotaUse | None
    """None if the provider says nothing about a quota."""

    @property
    def name(self) -> str:
        """Name of the connection."""
        return self.status.name

    @property
    def total(self) -> Attempts:
        """The attempts of all periods."""
        total = Attempts()
        for item in self.attempts:
            total = total.plus(item)
        return total


def read_connections(
    database: Database,
    starts: Sequence[datetime],
    period: timedelta,
    pauses: Sequence[PastPause],
    name: str | None = None,
) -> list[ConnectionOverview]:
    """Return all connections, or one; `pauses` are those since the first start. Raise StoreUnavailable."""
    statuses = [status for status in connection_statuses(database) if name in (None, status.name)]
    names = [status.name for status in statuses]
    waiting, attempts = read_waiting(database, names), read_attempts(database, starts, period, name)
    last_used, quotas = _last_used(database, names), _quotas(database)
    current = {item.connection: item for item in reversed(pauses) if item.ended_at is None}
    return [
        ConnectionOverview(
            status,
            _current(status, current),
            waiting[status.name],
            attempts.get(status.name) or [Attempts()] * len(starts),
            last_used.get(status.name),
            quotas.get(status.name),
        )
        for status in statuses
    ]


def _current(status: ConnectionStatus, current: Mapping[str, PastPause]) -> PastPause | None:
    return current.get(status.pause.connection) if status.pause is not None else None


def _last_used(database: Database, names: Collection[str]) -> dict[str, Any]:
    last = select(func.max(_STATS.c.started_at))
    with database.read() as conn:
        return {name: conn.execute(last.where(_STATS.c.connection == name)).scalar_one() for name in names}


def _quotas(database: Database) -> dict[str, QuotaUse]:
    table = schema.connections.c
    query = select(table.name, table.quota_used, table.quota_limit, table.quota_seen_at)
    with database.read() as conn:
        rows = conn.execute(query.where(table.quota_limit > 0))
        return {row.name: QuotaUse(row.quota_used, row.quota_limit, row.quota_seen_at) for row in rows}
