"""Gauges: the figures of the store that metrics and alerts watch, read without counting whole tables.

Every query is an index lookup that ends after `MAX_COUNTED` rows, so its cost does not depend on the number of stored
events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, Select, func, literal, select, text

from bridge.events import BRIDGE_EVENTS
from bridge.store import schema
from bridge.store.connection_status import connection_statuses
from bridge.store.database import Database
from bridge.store.pauses import Pause
from bridge.store.waiting import IS_WAITING, waiting_connections
from bridge.store.workers import count_alive_workers

MAX_COUNTED: Final = 10_000
"""Rows that are counted; more of them are reported as this many."""
RECENT_EVENTS: Final = 1000
"""Events among which the last one of Heppu is searched; the others are replies and opt-outs."""

_EVENTS, _DELIVERIES = schema.events, schema.deliveries


class LastEvent(NamedTuple):
    """The newest event of Heppu."""

    received_at: datetime
    type: str


@dataclass(frozen=True)
class Backlog:
    """The deliveries of a connection that are due and have not been attempted."""

    connection: str
    pause: Pause | None
    """Why they wait. None: no worker has got to them."""
    due: int
    oldest: datetime | None
    """When the oldest of them became due."""


@dataclass(frozen=True)
class Gauges:
    """The figures at one time."""

    at: datetime
    open_deliveries: dict[str, int]
    """By state, at most `MAX_COUNTED` of each."""
    unrouted: int
    oldest_unrouted: datetime | None
    last_event_at: datetime | None
    """When the last event of Heppu arrived, if it is among the last `RECENT_EVENTS`."""
    backlogs: list[Backlog]
    workers: int


def read_gauges(database: Database, states: tuple[str, ...] = ()) -> Gauges:
    """Return the figures now, with the number of deliveries in these states. Raise StoreUnavailable."""
    now = database.clock.now()
    pauses = {status.name: status.pause for status in connection_statuses(database)}
    with database.read() as conn:
        open_deliveries = {state: _count(conn, _in_state(state)) for state in states}
        unrouted = select(_EVENTS.c.received_at).where(_EVENTS.c.routed_at.is_(None))
        oldest_unrouted = unrouted.order_by(_EVENTS.c.received_at).limit(1)
        backlogs = [
            _backlog(conn, name, pauses.get(name), now)
            for name in sorted(pauses.keys() | set(waiting_connections(conn)))
        ]
        last = last_event(conn)
        gauges = Gauges(
            now,
            open_deliveries,
            _count(conn, unrouted),
            conn.execute(oldest_unrouted).scalar_one_or_none(),
            last.received_at if last else None,
            backlogs,
            workers=0,
        )
    return Gauges(**{**vars(gauges), "workers": count_alive_workers(database)})


def database_size(database: Database) -> int:
    """Return the bytes of a PostgreSQL database. Raise StoreUnavailable."""
    with database.read() as conn:
        size: int = conn.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
        return size


def _count(conn: Connection, query: Select[*tuple[object, ...]]) -> int:
    count: int = conn.execute(
        select(func.count()).select_from(query.limit(MAX_COUNTED).subquery())
    ).scalar_one()
    return count


def _in_state(state: str) -> Select[*tuple[object, ...]]:
    return select(literal(1).label("one")).select_from(_DELIVERIES).where(_DELIVERIES.c.state == state)


def _backlog(conn: Connection, name: str, pause: Pause | None, now: datetime) -> Backlog:
    due = (
        select(_DELIVERIES.c.run_at)
        .where(_DELIVERIES.c.connection == name, IS_WAITING, _DELIVERIES.c.run_at <= now)
        .order_by(_DELIVERIES.c.run_at)
        .limit(MAX_COUNTED)
        .subquery()
    )
    count, oldest = conn.execute(select(func.count(), func.min(due.c.run_at))).one()
    return Backlog(name, pause, count, oldest)


def last_event(conn: Connection) -> LastEvent | None:
    """Return the newest event of Heppu, if it is among the newest `RECENT_EVENTS`; the others are replies."""
    events = _EVENTS.c
    newest = select(events.received_at, events.type).order_by(events.received_at.desc())
    first = conn.execute(newest.limit(1)).one_or_none()
    if first is None or first.type not in BRIDGE_EVENTS:
        return LastEvent(*first) if first else None
    recent = newest.limit(RECENT_EVENTS).subquery()
    of_heppu = select(recent).where(recent.c.type.not_in(BRIDGE_EVENTS)).order_by(recent.c.received_at.desc())
    last = conn.execute(of_heppu.limit(1)).one_or_none()
    return LastEvent(*last) if last else None
