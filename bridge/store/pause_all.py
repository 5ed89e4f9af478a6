"""The pause of all connections, with which an operator stops all sending at once.

It is a row of `connections` of its own (`ALL_CONNECTIONS`), which every claim reads together with the row of its
connection. So it also covers connections that are added later, and it leaves the pauses of single connections as they
are. `StopScope` says what it stops. The team is alerted, unless alerts are stopped as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update

from bridge.ids import new_id
from bridge.lifecycle import StopScope
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.connections import lock_connection, operator_pause
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.pause_history import end_pause, record_pause_change
from bridge.store.pauses import ALL_CONNECTIONS

AUDIT_TARGET = "all connections"
"""The target of the audit entries."""

_TABLE, _PAUSES = schema.connections, schema.connection_pauses
_IS_ROW = _TABLE.c.name == ALL_CONNECTIONS


@dataclass(frozen=True)
class SendingStop:
    """The pause of all connections: what is stopped, since when, by whom, and why."""

    scope: StopScope
    reason: str
    since: datetime | None = None
    """None, like `actor`, if a version without a history of pauses stopped the sending."""
    actor: str | None = None


def current_stop(database: Database) -> SendingStop | None:
    """Return what an operator has stopped, if sending is stopped."""
    is_current = _PAUSES.c.drained_at.is_(None) & _PAUSES.c.ended_at.is_(None)
    history = select(_PAUSES.c.started_at, _PAUSES.c.actor).where(
        is_current, _PAUSES.c.connection == ALL_CONNECTIONS
    )
    with database.read() as conn:
        row = conn.execute(select(_TABLE.c.pause_scope, _TABLE.c.pause_reason).where(_IS_ROW)).one_or_none()
        if row is None:
            return None
        since = conn.execute(history.order_by(_PAUSES.c.started_at.desc()).limit(1)).one_or_none()
    scope = StopScope(row.pause_scope or StopScope.DELIVERIES)
    return SendingStop(scope, row.pause_reason or "", *(since or ()))


def pause_all(database: Database, reason: str, actor: str, scope: StopScope = StopScope.DELIVERIES) -> None:
    """Pause all connections, present and later ones, until `resume_all`. A second call replaces reason and scope.

    Attempts that have started, and those that start while this is written, are not interrupted.
    """
    with database.write() as conn:
        before = lock_connection(database, conn, ALL_CONNECTIONS)
        columns = operator_pause(reason) | {
            "pause_scope": scope,
            "pause_id": new_id("pau"),
            "alert_due": scope != StopScope.EVERYTHING,
        }
        now = database.now(conn)
        record_pause_change(conn, before, columns, now, actor)
        conn.execute(update(_TABLE).where(_IS_ROW).values(columns))
        detail = {"scope": scope.value} | ({"reason": reason} if reason else {})
        record_audit(conn, now, actor, "pause", [AUDIT_TARGET], detail)
        database.publish(conn, [EVENTS_TOPIC])


def resume_all(database: Database, actor: str) -> bool:
    """End the pause of all connections, and wake the workers. Return False if they were not paused.

    A connection that is paused by itself stays paused.
    """
    with database.write() as conn:
        if not conn.execute(delete(_TABLE).where(_IS_ROW)).rowcount:
            return False
        now = database.now(conn)
        end_pause(conn, ALL_CONNECTIONS, now, by_operator=True)
        record_audit(conn, now, actor, "resume", [AUDIT_TARGET])
        names = conn.execute(select(_TABLE.c.name)).scalars().all()
        database.publish(conn, names)
    return True
