"""The pause of all connections, with which an operator stops all sending at once.

It is a row of `connections` of its own (`ALL_CONNECTIONS`), which every claim reads together with the row of its
connection. So it also covers connections that are added later, and it leaves the pauses of single connections as they
are. Alerts to the team still leave.
"""

from __future__ import annotations

from sqlalchemy import delete, select, update

from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.connections import operator_pause
from bridge.store.database import Database
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
        row = {"name": ALL_CONNECTIONS, "failures": 0, "successes": 0, "alert_due": False}
        conn.execute(database.insert_new(_TABLE), [row])
        conn.execute(update(_TABLE).where(_IS_ROW).values(operator_pause(reason)))
        detail = {"reason": reason} if reason else None
        record_audit(conn, database.now(conn), actor, "pause", [AUDIT_TARGET], detail)


def resume_all(database: Database, actor: str) -> bool:
    """End the pause of all connections, and wake the workers. Return False if they were not paused.

    A connection that is paused by itself stays paused.
    """
    with database.write() as conn:
        if not conn.execute(delete(_TABLE).where(_IS_ROW)).rowcount:
            return False
        record_audit(conn, database.now(conn), actor, "resume", [AUDIT_TARGET])
        names = conn.execute(select(_TABLE.c.name)).scalars().all()
        database.publish(conn, names)
    return True
