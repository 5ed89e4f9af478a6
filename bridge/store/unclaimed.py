"""Unclaimed deliveries: those that wait because no running process has their connection.

That is so while an upgrade introduces a connector that the older processes do not know, and if the variables of a
connection were removed. The delivery keeps waiting for a process that has it; its detail says so, because nothing else
would.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final

from sqlalchemy import and_, or_, select, text

from bridge.lifecycle import Transition
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.deliveries import lock_deliveries
from bridge.store.transitions import Change, apply_transitions
from bridge.store.waiting import waiting_connections
from bridge.store.workers import count_alive_workers

UNCLAIMED_AFTER: Final = timedelta(minutes=2)
"""How long a due delivery waits before its detail says that no process has its connection."""
_BATCH: Final = 200
_REASON: Final = "no running process has the connection"


def explain_unclaimed(database: Database, connections: Collection[str]) -> dict[str, int]:
    """Explain due deliveries whose connection is not among these, which this process has; return their number by name.

    If other workers are alive, they may have the connection: then nothing is explained. Up to 200 per connection and
    call.
    """
    with database.read() as conn:
        unknown = [name for name in waiting_connections(conn) if name not in connections]
    if not unknown or count_alive_workers(database) > 1:
        return {}
    return {name: number for name in unknown if (number := _explain(database, name))}


def _explain(database: Database, name: str) -> int:
    columns, detail = (
        schema.deliveries.c,
        f"{_REASON} `{name}`: set its variables and restart, or finish the upgrade",
    )
    with database.write() as conn:
        now = database.now(conn)
        is_unexplained = and_(
            columns.connection == name,
            text("deliveries.state IN ('pending', 'retrying')"),
            columns.run_at <= now - UNCLAIMED_AFTER,
            or_(columns.detail.is_(None), columns.detail.not_like(f"{_REASON}%")),
        )
        ids = conn.execute(select(columns.id).where(is_unexplained).limit(_BATCH)).scalars().all()
        deliveries = lock_deliveries(conn, and_(columns.id.in_(ids), is_unexplained))
        changes = [
            Change(item, Transition.rescheduled(item, item.run_at, detail)) for item in deliveries.values()
        ]
        apply_transitions(database, conn, changes, now)
    return len(changes)
