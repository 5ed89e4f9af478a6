"""Alert groups: the table that limits alerts to one per connection and cause in ten minutes, in all processes.

A problem is counted in the transaction that removes its flag, and an alert about counted problems is created in the one
that resets the count. A kill therefore leaves each problem flagged, counted or alerted, and never twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, exists, func, literal, or_, select

from bridge.policy.alert_groups import ALERT_INTERVAL, AlertGroup
from bridge.store import schema
from bridge.store.bulk import bulk_update
from bridge.store.database import Database

_TABLE = schema.alert_groups
_COLUMNS = _TABLE.c["connection", "cause", "last_alert_at", "waiting", "latest"]
_IS_DUE = _TABLE.c.waiting.is_not(None) & or_(
    _TABLE.c.last_alert_at <= bindparam("due_since"), _TABLE.c.last_alert_at > bindparam("now")
)
ANY_GROUP_IS_DUE = exists(select(literal(1)).select_from(_TABLE).where(_IS_DUE))
"""The condition that an alert about counted problems is due; takes the `due_parameters`."""


class Problem(NamedTuple):
    """A failed delivery or a paused connection, of which the team is to be told."""

    connection: str
    cause: str
    rule: str
    id: str


def admit_alerts(
    database: Database, conn: Connection, problems: Sequence[Problem], now: datetime
) -> set[str]:
    """Return the IDs of the problems that are alerted now; the others are counted for the next alert of their group."""
    if not problems:
        return set()
    keys = sorted({(problem.connection, problem.cause) for problem in problems})
    groups = {key: _lock_group(database, conn, *key) for key in keys}
    admitted = {
        problem.id
        for problem in problems
        if groups[problem.connection, problem.cause].admit(problem.rule, problem.id, now)
    }
    save_groups(conn, list(groups.values()))
    return admitted


def _lock_group(database: Database, conn: Connection, connection: str, cause: str) -> AlertGroup:
    conn.execute(database.insert_new(_TABLE), [{"connection": connection, "cause": cause}])
    is_group = (_TABLE.c.connection == connection) & (_TABLE.c.cause == cause)
    return _group_from_row(conn.execute(select(*_COLUMNS).where(is_group).with_for_update()).one())


def lock_due_groups(conn: Connection, now: datetime, limit: int) -> list[AlertGroup]:
    """Return groups whose next alert is due, locked."""
    rows = conn.execute(
        select(*_COLUMNS)
        .where(_IS_DUE)
        .order_by(_TABLE.c.connection, _TABLE.c.cause)
        .limit(limit)
        .with_for_update(skip_locked=True),
        due_parameters(now),
    )
    return [_group_from_row(row) for row in rows]


def save_groups(conn: Connection, groups: Sequence[AlertGroup]) -> None:
    """Write groups that were locked and changed."""
    rows = [
        {
            "connection": group.connection,
            "cause": group.cause,
            "last_alert_at": group.last_alert_at,
            "waiting": json.dumps(group.waiting) if group.waiting else None,
            "latest": group.latest,
        }
        for group in groups
    ]
    bulk_update(conn, _TABLE, ["connection", "cause"], rows)


def due_parameters(now: datetime) -> dict[str, datetime]:
    """Return the parameters of the condition that an alert is due."""
    return {"now": now, "due_since": now - ALERT_INTERVAL}


def next_due_at(conn: Connection) -> datetime | None:
    """Return when the next alert about counted problems is due."""
    last: datetime | None = conn.execute(
        select(func.min(_TABLE.c.last_alert_at)).where(_TABLE.c.waiting.is_not(None))
    ).scalar_one()
    return None if last is None else last + ALERT_INTERVAL


def _group_from_row(row: Row[Any]) -> AlertGroup:
    return AlertGroup(
        row.connection, row.cause, row.last_alert_at, Counter(json.loads(row.waiting or "{}")), row.latest
    )
