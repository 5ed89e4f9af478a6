"""Which processes serve this database."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select

from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.replicas
FORGOTTEN_AFTER = timedelta(hours=1)


def beat(database: Database, replica: str, version: str) -> None:
    """Say that this process is alive."""
    with database.write() as connection:
        now = database.now(connection)
        statement = database.insert(_TABLE)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}),
            [
                {
                    "id": replica,
                    "host": socket.gethostname(),
                    "version": version,
                    "started_at": now,
                    "seen_at": now,
                }
            ],
        )
        connection.execute(delete(_TABLE).where(_TABLE.c.seen_at < now - FORGOTTEN_AFTER))


def leave(database: Database, replica: str) -> None:
    """Sign off."""
    with database.write() as connection:
        connection.execute(delete(_TABLE).where(_TABLE.c.id == replica))


def all_replicas(database: Database) -> list[dict[str, Any]]:
    """Every process that was seen within the last hour."""
    with database.read() as connection:
        return [
            dict(row._mapping) for row in connection.execute(select(_TABLE).order_by(_TABLE.c.started_at))
        ]
