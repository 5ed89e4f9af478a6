"""Hourly counts: what happened per hour, so that the overview need not count a month of events on every visit.

An hour is counted once, a while after its end, when its transactions have long been committed. What is newer is counted
from the rows themselves, which an index bounds. The counts say what happened in an hour: a delivery that failed at 3:10
and succeeded after a retry at 9:20 is a failure of the one hour and a success of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    case,
    delete,
    func,
    literal,
    select,
    text,
    type_coerce,
)

from bridge.lifecycle import DeliveryState
from bridge.store import schema
from bridge.store.bulk import bulk_insert
from bridge.store.connection_stats import period_start
from bridge.store.database import Database
from bridge.store.pause_history import HISTORY_AGE
from bridge.store.results import UNDELIVERED_STATUSES

HOUR: Final = timedelta(hours=1)
SETTLED_AFTER: Final = timedelta(minutes=10)
"""How long after its end an hour is counted: longer than any transaction lasts."""
MAX_LIVE: Final = 3 * HOUR
"""How much is counted from the rows themselves at most, if no worker has counted the hours."""
COUNTED: Final = "counted"

_TABLE = schema.hourly_counts
_IS_COUNTED = text("hourly_counts.kind = 'counted'")
"""Literal, so that the partial index with this condition is used."""


class Count(NamedTuple):
    """How often something happened in one period."""

    started_at: datetime
    kind: str
    """`event`, `fired` or `result`: see `schema.hourly_counts`."""
    name: str
    state: str
    reason: str
    total: int
    last_at: datetime


def count_hours(database: Database, limit: int = 24) -> int:
    """Count up to `limit` hours that have not been counted, the newest first; return their number."""
    _forget_future_hours(database)
    with database.read() as conn:
        hours = _uncounted(conn, database.now(conn), limit)
        counts = {hour: _count_rows(conn, hour, hour + HOUR, HOUR) for hour in hours}
    for hour, found in counts.items():
        mark = Count(hour, COUNTED, "", "", "", sum(count.total for count in found), hour)
        with database.write() as conn:
            bulk_insert(conn, _TABLE, [count._asdict() for count in (*found, mark)], "ON CONFLICT DO NOTHING")
    return len(hours)


def _forget_future_hours(database: Database) -> None:
    """Delete the counts of hours that are not over: the clock was set back, and they come a second time."""
    with database.read() as conn:
        is_future = _TABLE.c.started_at > database.now(conn) - SETTLED_AFTER - HOUR
        if conn.execute(select(_TABLE.c.started_at).where(is_future).limit(1)).first() is None:
            return
    with database.write() as conn:
        conn.execute(delete(_TABLE).where(_TABLE.c.started_at > database.now(conn) - SETTLED_AFTER - HOUR))


def _uncounted(conn: Connection, now: datetime, limit: int) -> list[datetime]:
    """Return hours that are over and not counted, newest first, back to the first event."""
    events = schema.events.c
    first = conn.execute(select(func.min(events.received_at))).scalar_one()
    if first is None:
        return []
    oldest = period_start(max(first, now - HISTORY_AGE), HOUR)
    counted = set(
        conn.execute(select(_TABLE.c.started_at).where(_TABLE.c.started_at >= oldest, _IS_COUNTED))
        .scalars()
        .all()
    )
    hours: list[datetime] = []
    hour = period_start(now - SETTLED_AFTER, HOUR) - HOUR
    while hour >= oldest and len(hours) < limit:
        if hour not in counted:
            hours.append(hour)
        hour -= HOUR
    return hours


def stored_counts(
    conn: Connection, origin: datetime, start: datetime, end: datetime, period: timedelta
) -> list[Count]:
    """Return what happened in counted hours, by periods of whole hours that start at `origin`."""
    slot = _slot(_TABLE.c.started_at, origin, period)
    keys = (_TABLE.c.kind, _TABLE.c.name, _TABLE.c.state, _TABLE.c.reason)
    rows = conn.execute(
        select(slot, *keys, func.sum(_TABLE.c.total), func.max(_TABLE.c.last_at))
        .where(_TABLE.c.started_at >= start, _TABLE.c.started_at < end, _TABLE.c.kind != COUNTED)
        .group_by(slot, *keys)
    )
    return [_count(row, origin, period) for row in rows]


def live_counts(
    conn: Connection, origin: datetime, start: datetime, end: datetime, period: timedelta
) -> list[Count]:
    """Return what happened from `start` to `end`, counted from the rows, by periods that start at `origin`."""
    counts = _count_rows(conn, start, end, min(period, HOUR))
    return [
        count._replace(started_at=origin + (count.started_at - origin) // period * period) for count in counts
    ]


class Total(NamedTuple):
    """How often something happened, whatever its name and reason."""

    kind: str
    state: str
    is_undelivered: bool
    total: int


def read_totals(conn: Connection, start: datetime, end: datetime) -> list[Total]:
    """Return the totals of counted hours, for a comparison with an earlier time."""
    undelivered = _TABLE.c.reason == "undelivered"
    rows = conn.execute(
        select(_TABLE.c.kind, _TABLE.c.state, undelivered, func.sum(_TABLE.c.total))
        .where(_TABLE.c.started_at >= start, _TABLE.c.started_at < end, _TABLE.c.kind != COUNTED)
        .group_by(_TABLE.c.kind, _TABLE.c.state, undelivered)
    )
    return [Total(row[0], row[1], bool(row[2]), int(row[3])) for row in rows]


def hours_to_count(conn: Connection, start: datetime, now: datetime) -> int:
    """Return how many hours since `start`, and since the first event, have not been counted yet but should be."""
    first = conn.execute(select(func.min(schema.events.c.received_at))).scalar_one()
    if first is None:
        return 0
    start = period_start(max(start, first), HOUR)
    end = counted_until(conn, now)
    counted = conn.execute(
        select(func.count()).where(_TABLE.c.started_at >= start, _TABLE.c.started_at < end, _IS_COUNTED)
    ).scalar_one()
    return max(0, (end - start) // HOUR - counted)


def remove_old_counts(conn: Connection, before: datetime) -> None:
    """Delete the counts of hours before an instant."""
    conn.execute(delete(_TABLE).where(_TABLE.c.started_at < before))


def counted_until(conn: Connection, now: datetime) -> datetime:
    """Return the end of the newest counted hour before `now`, or `MAX_LIVE` ago if that is later."""
    newest = conn.execute(select(func.max(_TABLE.c.started_at)).where(_TABLE.c.started_at < now)).scalar_one()
    oldest = period_start(now - MAX_LIVE, HOUR)
    return oldest if newest is None else max(oldest, newest + HOUR)


def _count_rows(conn: Connection, start: datetime, end: datetime, period: timedelta) -> list[Count]:
    """Count the events and deliveries of a time, by periods that start at `start`."""
    events, deliveries = schema.events.c, schema.deliveries.c
    undelivered = (deliveries.state == "succeeded") & deliveries.message_status.in_(UNDELIVERED_STATUSES)
    reason = case((undelivered, "undelivered"), else_=func.coalesce(deliveries.reason, ""))
    queries = (
        _query("event", events.received_at, (events.type, literal(""), literal("")), func.count(), start, end, period),
        _query(
            "fired", deliveries.created_at, (deliveries.rule, literal(""), literal("")),
            func.count(deliveries.event_id.distinct()), start, end, period,
        ).where(deliveries.state.in_(DeliveryState), deliveries.trigger == "rule"),
        _query(
            "result", deliveries.finished_at, (deliveries.rule, deliveries.state, reason), func.count(),
            start, end, period,
        ),
    )  # fmt: skip
    return [_count(row, start, period) for query in queries for row in conn.execute(query)]


def _query(
    kind: str,
    instant: ColumnElement[datetime],
    keys: Sequence[ColumnElement[str]],
    total: ColumnElement[int],
    start: datetime,
    end: datetime,
    period: timedelta,
) -> Select[*tuple[Any, ...]]:
    slot = _slot(instant, start, period)
    labels = [key.label(name) for key, name in zip(keys, ("name", "state", "reason"), strict=True)]
    return (
        select(slot, literal(kind), *labels, total, func.max(instant))
        .where(instant >= start, instant < end)
        .group_by(slot, *labels)
    )


def _slot(instant: ColumnElement[datetime], start: datetime, period: timedelta) -> ColumnElement[int]:
    """Return the number of the period that contains an instant."""
    microseconds = type_coerce(instant, BigInteger) - schema.microseconds(start)
    return (microseconds // (period // timedelta(microseconds=1))).label("slot")


def _count(row: Sequence[Any], start: datetime, period: timedelta) -> Count:
    slot, kind, name, state, reason, total, last_at = row
    return Count(start + int(slot) * period, kind, name, state, reason, int(total), last_at)
