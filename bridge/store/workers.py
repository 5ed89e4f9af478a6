"""Which processes serve this database."""

from __future__ import annotations

import socket
from datetime import timedelta

from sqlalchemy import delete, func, select

from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.workers
REMOVE_AFTER = timedelta(hours=1)
ALIVE_WINDOW = timedelta(seconds=60)
"""A process that was seen within this time counts as alive: it says so four times as often."""


def record_heartbeat(database: Database, worker_id: str, version: str) -> None:
    """Say that this process is alive."""
    with database.write() as conn:
        now = database.now(conn)
        statement = database.insert(_TABLE)
        conn.execute(
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
        conn.execute(delete(_TABLE).where(_TABLE.c.last_heartbeat_at < now - REMOVE_AFTER))


def deregister(database: Database, worker_id: str) -> None:
    """Sign off."""
    with database.write() as conn:
        conn.execute(delete(_TABLE).where(_TABLE.c.id == worker_id))


def count_alive_workers(database: Database) -> int:
    """How many processes work on this database; one that died without signing off still counts for a while."""
    with database.read() as conn:
        since = database.now(conn) - ALIVE_WINDOW
        counted = select(func.count()).select_from(_TABLE).where(_TABLE.c.last_heartbeat_at >= since)
        number: int = conn.execute(counted).scalar_one()
        return number
