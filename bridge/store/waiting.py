"""Waiting deliveries by connection: which connections have any, how many wait, and what leaves when a pause ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, case, func, select, text

from bridge.store import schema
from bridge.store.database import Database

IS_WAITING: Final = text("deliveries.state IN ('pending', 'retrying')")
"""Literal, so that the partial index with this condition is used."""
_FROM: Final = {"sqlite": "deliveries INDEXED BY deliveries_due", "postgresql": "deliveries"}
"""The index of waiting deliveries, in order of connection and time. Unless a connection is given, SQLite would choose
the index of all states and look every row up."""
_NEXT_CONNECTION: Final = {
    dialect: text(f"SELECT min(connection) FROM {table} WHERE {IS_WAITING.text} AND connection > :name")  # noqa: S608
    for dialect, table in _FROM.items()
}
_BY_CONNECTION: Final = {
    dialect: text(f"SELECT connection, count(*) FROM {table} WHERE {IS_WAITING.text} GROUP BY connection")  # noqa: S608
    for dialect, table in _FROM.items()
}


class WaitingKind(NamedTuple):
    """How many deliveries of one kind wait."""

    kind: str
    """The channel of a message, or the full name of another action."""
    is_expired: bool
    is_later: bool
    """They are not due yet."""
    total: int


def waiting_of_connections(database: Database, connections: Collection[str]) -> list[WaitingKind]:
    """Return what waits for these connections."""
    table = schema.deliveries
    with database.read() as conn:
        now = database.now(conn)
        kind = func.coalesce(table.c.channel, table.c.action).label("kind")
        is_expired = case((table.c.expires_at <= now, 1), else_=0).label("is_expired")
        is_later = case((table.c.run_at > now, 1), else_=0).label("is_later")
        query = select(kind, is_expired, is_later, func.count()).where(
            IS_WAITING, table.c.connection.in_(connections)
        )
        rows = conn.execute(query.group_by(kind, is_expired, is_later)).all()
    return [WaitingKind(row[0], bool(row[1]), bool(row[2]), row[3]) for row in rows]


def waiting_connections(conn: Connection) -> Iterator[str]:
    """Yield the connections of waiting deliveries, each found by one index lookup after the one before."""
    name: str | None = ""
    query = _NEXT_CONNECTION[conn.dialect.name]
    while (name := conn.execute(query, {"name": name}).scalar_one()) is not None:
        yield name


def oldest_waiting(conn: Connection) -> datetime | None:
    """Return when the first of the waiting deliveries is or was due."""
    columns = schema.deliveries.c
    first = select(func.min(columns.run_at)).where(IS_WAITING)
    times = (
        conn.execute(first.where(columns.connection == name)).scalar_one()
        for name in waiting_connections(conn)
    )
    return min(times, default=None)


def waiting_by_connection(database: Database) -> dict[str, int]:
    """Return the number of deliveries that wait for their next attempt, by connection."""
    with database.read() as conn:
        return dict(tuple(row) for row in conn.execute(_BY_CONNECTION[conn.dialect.name]))
