"""Audit log: records operator actions, each in the transaction of the action itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from bridge.ids import new_id
from bridge.store import schema
from bridge.store.database import Database

BRIDGE: Final = "bridge"
"""Actor of what the bridge does by itself, such as the pause of a connection that does not respond."""
RECIPIENT: Final = "recipient"
"""Actor of what a recipient of messages does, such as an opt-out."""
_TABLE = schema.audit_log


def record_audit(
    conn: Connection,
    now: datetime,
    actor: str,
    action: str,
    targets: Iterable[str],
    detail: Mapping[str, Any] | None = None,
    part_of: str | None = None,
) -> None:
    """Write one entry per target: an ID, a connection's name, or a masked address; never personal data.

    `part_of` is the entry of an action on many targets of which these are a part.
    """
    detail_json = json.dumps(detail, sort_keys=True) if detail else None
    rows = [
        {
            "id": new_id("aud"),
            "created_at": now,
            "actor": actor[:200],
            "action": action,
            "target": target,
            "detail": detail_json,
            "part_of": part_of,
        }
        for target in targets
    ]
    if rows:
        conn.execute(_TABLE.insert(), rows)


def list_audit_entries(
    database: Database,
    *,
    target: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> list[dict[str, Any]]:
    """Return the entries with these values, newest first; without a target, those that are no part of another one."""
    query = select(_TABLE).order_by(_TABLE.c.id.desc()).limit(limit)
    query = query.where(_TABLE.c.part_of.is_(None) if target is None else _TABLE.c.target == target)
    if action is not None:
        query = query.where(_TABLE.c.action == action)
    if actor is not None:
        query = query.where(_TABLE.c.actor == actor)
    if cursor is not None:
        query = query.where(_TABLE.c.id < cursor)
    with database.read() as conn:
        return [_entry_from_row(row) for row in conn.execute(query)]


def find_audit_entry(database: Database, entry_id: str) -> dict[str, Any] | None:
    """Return one entry, or None if there is none with this ID."""
    with database.read() as conn:
        row = conn.execute(select(_TABLE).where(_TABLE.c.id == entry_id)).one_or_none()
        return None if row is None else _entry_from_row(row)


def _entry_from_row(row: Row[Any]) -> dict[str, Any]:
    return {**row._mapping, "detail": json.loads(row.detail) if row.detail else None}
