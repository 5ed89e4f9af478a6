"""Which processes serve this database."""

from __future__ import annotations

import socket
from datetime import timedelta

from sqlalchemy import delete, func, select

from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.workers
FORGOTTEN_AFTER = timedelta(hours=1)
ALIVE = timedelta(seconds=60)
"""A process that was seen within this time counts as alive: it says so four times as often."""


def beat(database: Database, worker_id: str, version: str) -> None:
    """Say that this process is alive."""
    with database.write() as connection:
        now = database.now(connection)
        statement = database.insert(_TABLE)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["id"], set_={"last_heartbeat_at": now}),
            [
                {
                    "id": worker_id,
                    "host": socket.gethostname(),
                    "version": version,
                    "started_at": now,
                    "last_heartbeat_at": now,
                }
            ],
        )
        connection.execute(delete(_TABLE).where(_TABLE.c.last_heartbeat_at < now - FORGOTTEN_AFTER))


def leave(database: Database, worker_id: str) -> None:
    """Sign off."""
    with database.write() as connection:
        connection.execute(delete(_TABLE).where(_TABLE.c.id == worker_id))


def alive(database: Database) -> int:
    """How many processes work on this database; one that died without signing off still counts for a while."""
    with database.read() as connection:
        since = database.now(connection) - ALIVE
        counted = select(func.count()).select_from(_TABLE).where(_TABLE.c.last_heartbeat_at >= since)
        number: int = connection.execute(counted).scalar_one()
        return number
