"""Overview: the present state of the service, as an operator wants to know it at a glance.

Each function is one block of the page. It reads only what an index bounds, so it costs the same with a million events
as with a thousand.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select, text

from bridge.lifecycle import DeliveryState
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.gauges import LastEvent, last_event
from bridge.store.silence import is_silence_unusual
from bridge.store.workers import ALIVE_WINDOW

MAX_FAILURES: Final = 1000
"""Failed deliveries are counted up to this number."""
_NEWEST_FAILURES: Final = 2000
"""The newest failed deliveries, among which those are counted that no operator has dismissed."""
SIGNATURE_PROBLEMS: Final = 5
"""Requests with a wrong signature within a day that are worth a look: strangers cause a few."""
NEARLY_FULL: Final = 0.05
"""Free part of the disk below which an operator is told."""
_DAY: Final = timedelta(days=1)


class WorkerInfo(NamedTuple):
    """A process that works on the database."""

    host: str
    version: str
    started_at: datetime


@dataclass(frozen=True)
class Vitals:
    """Signs of life."""

    last_event: LastEvent | None
    last_delivery_at: datetime | None
    """When a delivery last reached a final state."""
    workers: Sequence[WorkerInfo]
    unrouted: bool
    """Whether events wait to be routed for longer than a minute."""
    is_silence_unusual: bool
    """Whether Heppu has sent nothing for `alerts.no_events_after`, although it usually does at this time."""
    free_disk: float | None
    """Free part of the disk of the SQLite file, if it is nearly full."""


def read_vitals(database: Database, no_events_after: timedelta) -> Vitals:
    """Return the signs of life. Raise StoreUnavailable."""
    events, deliveries, workers = schema.events.c, schema.deliveries.c, schema.workers.c
    with database.read() as conn:
        now = database.now(conn)
        last = last_event(conn)
        last_delivery = conn.execute(
            select(deliveries.finished_at)
            .where(text("deliveries.finished_at IS NOT NULL"))
            .order_by(deliveries.finished_at.desc())
            .limit(1)
        ).scalar_one_or_none()
        alive = conn.execute(
            select(workers.host, workers.version, workers.started_at)
            .where(workers.last_heartbeat_at >= now - ALIVE_WINDOW)
            .order_by(workers.started_at)
        )
        oldest_unrouted = conn.execute(
            select(func.min(events.received_at)).where(events.routed_at.is_(None))
        ).scalar_one()
        return Vitals(
            last,
            last_delivery,
            [WorkerInfo(*row) for row in alive],
            oldest_unrouted is not None and now - oldest_unrouted > timedelta(minutes=1),
            is_silence_unusual(conn, last and last.received_at, no_events_after, now),
            _free_disk(database),
        )


def _free_disk(database: Database) -> float | None:
    if database.file is None or not database.file.exists():
        return None
    usage = shutil.disk_usage(database.file.resolve().parent)
    free = usage.free / usage.total
    return free if free < NEARLY_FULL else None


@dataclass(frozen=True)
class Reviews:
    """Deliveries that need review."""

    total: int
    """At most `MAX_FAILURES` + 1."""
    next_expiry: datetime | None
    """When the first of them expires."""


class FailureGroup(NamedTuple):
    """Failed deliveries with the same connection and reason."""

    connection: str
    reason: str
    total: int


@dataclass(frozen=True)
class Failures:
    """Failed deliveries that no operator has dismissed."""

    total: int
    """At most `MAX_FAILURES` + 1."""
    groups: Sequence[FailureGroup]
    """The largest ones."""


@dataclass(frozen=True)
class Rejected:
    """Requests to the webhook of the last day that were rejected and have not been accepted since."""

    signed: int
    """Those that Heppu signed."""
    wrong_signatures: int


@dataclass(frozen=True)
class OpenTasks:
    """What an operator has to decide or to look at, besides connections and rules."""

    reviews: Reviews
    failures: Failures
    rejected: Rejected
    possible_duplicates: int


def read_tasks(database: Database) -> OpenTasks:
    """Return what waits for an operator. Raise StoreUnavailable."""
    with database.read() as conn:
        now = database.now(conn)
        return OpenTasks(
            _reviews(conn, now), _failures(conn), _rejected(conn, now), _possible_duplicates(conn)
        )


def _reviews(conn: Connection, now: datetime) -> Reviews:
    table = schema.deliveries.c
    rows = (
        select(table.expires_at)
        .where(table.state == DeliveryState.NEEDS_REVIEW)
        .limit(MAX_FAILURES + 1)
        .subquery()
    )
    expiry = func.min(rows.c.expires_at).filter(rows.c.expires_at > now)
    total, first = conn.execute(select(func.count(), expiry).select_from(rows)).one()
    return Reviews(total, first)


def _failures(conn: Connection) -> Failures:
    table = schema.deliveries.c
    newest = (
        select(table.connection, table.reason, table.dismissed_at)
        .where(table.state == DeliveryState.FAILED)
        .order_by(table.created_at.desc())
        .limit(_NEWEST_FAILURES)
        .subquery()
    )
    counted = (
        select(newest.c.connection, newest.c.reason)
        .where(newest.c.dismissed_at.is_(None))
        .limit(MAX_FAILURES + 1)
        .subquery()
    )
    rows = conn.execute(select(*counted.c, func.count()).group_by(*counted.c))
    groups = sorted(
        (FailureGroup(row[0], row[1] or "", row[2]) for row in rows), key=lambda group: -group.total
    )
    return Failures(sum(group.total for group in groups), groups[:3])


def _rejected(conn: Connection, now: datetime) -> Rejected:
    table = schema.rejected_requests.c
    rows = conn.execute(
        select(table.reason, table.signature_valid, func.count())
        .where(table.received_at >= now - _DAY, table.accepted_event_id.is_(None))
        .group_by(table.reason, table.signature_valid)
    )
    counts: Counter[str] = Counter()
    for reason, is_signed, total in rows:
        counts["signed" if is_signed else reason] += total
    return Rejected(counts["signed"], counts["signature_wrong"])


def _possible_duplicates(conn: Connection) -> int:
    table = schema.possible_duplicates.c
    rows = select(table.id).where(table.dismissed_at.is_(None)).limit(MAX_FAILURES + 1).subquery()
    return int(conn.execute(select(func.count()).select_from(rows)).scalar_one())
