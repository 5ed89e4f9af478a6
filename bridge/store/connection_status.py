"""Connection status and pauses, for lists and operators. Lists import this module without loading the policy."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from bridge.store import schema
from bridge.store.database import Database
from bridge.store.pauses import ALL_CONNECTIONS, ConnectionStatus, Pause

_CONNECTIONS = schema.connections


def all_connections(database: Database) -> list[dict[str, Any]]:
    """Return the rows of all connections."""
    query = select(_CONNECTIONS).where(_CONNECTIONS.c.name != ALL_CONNECTIONS).order_by(_CONNECTIONS.c.name)
    with database.read() as conn:
        return [dict(row._mapping) for row in conn.execute(query)]


def pause_of_all(database: Database) -> Pause | None:
    """Return the pause of all connections, if an operator has paused them."""
    with database.read() as conn:
        return active_pause(conn, ALL_CONNECTIONS, database.clock.now())


def active_pause(conn: Connection, name: str, now: datetime, *, is_message: bool = True) -> Pause | None:
    """Return the pause of a connection; without one, the pause of all connections.

    `is_message` is False for a delivery that a pause of all messages does not stop.
    """
    query = (
        select(_CONNECTIONS)
        .where(_CONNECTIONS.c.name.in_((name, ALL_CONNECTIONS)))
        .order_by(_CONNECTIONS.c.name == ALL_CONNECTIONS)
    )
    pauses = [Pause.from_columns(dict(row._mapping)) for row in conn.execute(query)]
    return next(
        (
            pause
            for pause in pauses
            if pause is not None and not pause.is_over(now) and (is_message or not pause.only_messages)
        ),
        None,
    )


def connection_statuses(database: Database) -> list[ConnectionStatus]:
    """Return the status of every connection that was ever in use."""
    now, pause = database.clock.now(), pause_of_all(database)
    if pause is not None and pause.only_messages:
        pause = None  # no connection is paused: CRM records and alerts still leave
    return [ConnectionStatus.from_row(row, now, pause) for row in all_connections(database)]
