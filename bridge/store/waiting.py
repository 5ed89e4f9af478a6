"""Waiting deliveries by connection: what leaves when a pause ends."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import case, func, select

from bridge.store import schema
from bridge.store.database import Database
from bridge.store.rule_deliveries import IS_WAITING


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
