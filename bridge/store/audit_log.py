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

_TABLE = schema.audit


def note(
    connection: Connection,
    now: datetime,
    who: str,
    act: str,
    subjects: Iterable[str],
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write one entry for each subject: an id, a connection's name, or a masked address; never personal data."""
    words = json.dumps(detail, sort_keys=True) if detail else None
    rows = [
        {"id": new_id("aud"), "at": now, "who": who[:200], "act": act, "subject": subject, "detail": words}
        for subject in subjects
    ]
    if rows:
        connection.execute(_TABLE.insert(), rows)


def entries(
    database: Database, *, subject: str | None = None, limit: int = 50, before: str | None = None
) -> list[dict[str, Any]]:
    """Entries about `subject`, or about everything, the newest first."""
    query = select(_TABLE).order_by(_TABLE.c.id.desc()).limit(limit)
    if subject is not None:
        query = query.where(_TABLE.c.subject == subject)
    if before is not None:
        query = query.where(_TABLE.c.id < before)
    with database.read() as connection:
        found = [dict(row._mapping) for row in connection.execute(query)]
    for entry in found:
        entry["detail"] = json.loads(entry["detail"]) if entry["detail"] else None
    return found
