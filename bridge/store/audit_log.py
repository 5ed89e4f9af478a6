"""What people did to stored work: who, when, what. Written in the transaction of the act itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from bridge.ids import new_id
from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.audit_log


def record_audit(
    conn: Connection,
    now: datetime,
    actor: str,
    action: str,
    targets: Iterable[str],
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write one entry for each subject: an id, a connection's name, or a masked address; never personal data."""
    detail_json = json.dumps(detail, sort_keys=True) if detail else None
    rows = [
        {
            "id": new_id("aud"),
            "created_at": now,
            "actor": actor[:200],
            "action": action,
            "target": target,
            "detail": detail_json,
        }
        for target in targets
    ]
    if rows:
        conn.execute(_TABLE.insert(), rows)


def list_audit_entries(
    database: Database, *, target: str | None = None, limit: int = 50, cursor: str | None = None
) -> list[dict[str, Any]]:
    """Entries about `subject`, or about everything, the newest first."""
    query = select(_TABLE).order_by(_TABLE.c.id.desc()).limit(limit)
    if target is not None:
        query = query.where(_TABLE.c.target == target)
    if cursor is not None:
        query = query.where(_TABLE.c.id < cursor)
    with database.read() as conn:
        found = [dict(row._mapping) for row in conn.execute(query)]
    for entry in found:
        entry["detail"] = json.loads(entry["detail"]) if entry["detail"] else None
    return found
