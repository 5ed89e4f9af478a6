"""Workers: the heartbeats of the processes that work on this database."""

from __future__ import annotations

import socket
from datetime import timedelta

from sqlalchemy import delete, func, select

from bridge.store import schema
from bridge.store.audit_log import BRIDGE, record_audit
from bridge.store.database import Database

_TABLE = schema.workers
REMOVE_AFTER = timedelta(hours=1)
"""A worker without a heartbeat for this long is removed."""
ALIVE_WINDOW = timedelta(seconds=60)
"""A worker counts as alive for this long after a heartbeat: four heartbeat intervals."""


def record_heartbeat(database: Database, worker_id: str, version: str) -> None:
    """Record that this worker is alive, and remove workers that have not been for long."""
    with database.write() as conn:
        now = database.now(conn)
        host = socket.gethostname()
        row = {
            "id": worker_id, "host": host, "version": version, "started_at": now, "last_heartbeat_at": now,
        }  # fmt: skip
        statement = database.insert(_TABLE).values(row)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"last_heartbeat_at": now})
        if conn.execute(statement.returning(_TABLE.c.started_at)).scalar_one() == now:
            record_audit(conn, now, BRIDGE, "start", [f"worker on {host}"], {"version": version})
        conn.execute(delete(_TABLE).where(_TABLE.c.last_heartbeat_at < now - REMOVE_AFTER))


def deregister(database: Database, worker_id: str) -> None:
    """Remove a worker that stops."""
    with database.write() as conn:
        host = conn.execute(delete(_TABLE).where(_TABLE.c.id == worker_id).returning(_TABLE.c.host)).scalar()
        if host is not None:
            record_audit(conn, database.now(conn), BRIDGE, "stop", [f"worker on {host}"])


def count_alive_workers(database: Database) -> int:
    """Return the number of workers; one that died without deregistering is counted for `ALIVE_WINDOW`."""
    with database.read() as conn:
        since = database.now(conn) - ALIVE_WINDOW
        query = select(func.count()).select_from(_TABLE).where(_TABLE.c.last_heartbeat_at >= since)
        count: int = conn.execute(query).scalar_one()
        return count
