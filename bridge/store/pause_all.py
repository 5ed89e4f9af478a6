"""The pause of all connections, with which an operator stops all sending at once.

It is a row of `connections` of its own (`ALL_CONNECTIONS`), which every claim reads together with the row of its
connection. So it also covers connections that are added later, and it leaves the pauses of single connections as they
are. Alerts to the team still leave.
"""

from __future__ import annotations

from sqlalchemy import delete, select, update

from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.connections import lock_connection, operator_pause
from bridge.store.database import Database
from bridge.store.pause_history import end_pause, record_pause_change
from bridge.store.pauses import ALL_CONNECTIONS

AUDIT_TARGET = "all connections"
"""The target of the audit entries."""

_TABLE = schema.connections
_IS_ROW = _TABLE.c.name == ALL_CONNECTIONS


def pause_all(database: Database, reason: str, actor: str) -> None:
    """Pause all connections, present and later ones, until `resume_all`. A second call replaces the reason.

    Attempts that have started, and those that start while this is written, are not interrupted.
    """
    with database.write() as conn:
        before, columns = lock_connection(database, conn, ALL_CONNECTIONS), operator_pause(reason)
        now = database.now(conn)
        record_pause_change(conn, before, columns, now, actor)
        conn.execute(update(_TABLE).where(_IS_ROW).values(columns))
        detail = {"reason": reason} if reason else None
        record_audit(conn, now, actor, "pause", [AUDIT_TARGET], detail)


def resume_all(database: Database, actor: str) -> bool:
    """End the pause of all connections, and wake the workers. Return False if they were not paused.

    A connection that is paused by itself stays paused.
    """
    with database.write() as conn:
        if not conn.execute(delete(_TABLE).where(_IS_ROW)).rowcount:
            return False
        now = database.now(conn)
        end_pause(conn, ALL_CONNECTIONS, now)
        record_audit(conn, now, actor, "resume", [AUDIT_TARGET])
        names = conn.execute(select(_TABLE.c.name)).scalars().all()
        database.publish(conn, names)
    return True
