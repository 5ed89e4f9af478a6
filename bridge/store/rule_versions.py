"""Versions of the rules: every text that routed an event, and which of them routed the newest events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from bridge.store import schema
from bridge.store.database import Database
from bridge.store.queries import NotFound

SAMPLED_EVENTS: Final = 10_000
"""Newest events whose versions are counted."""
MIN_PREFIX: Final = 8
"""Characters of a hash that name a version."""
_TABLE = schema.rules


@dataclass(frozen=True)
class RulesVersion:
    """One version of the rules."""

    hash: str
    first_used_at: datetime
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the record of the API."""
        return {"hash": self.hash, "first_used_at": self.first_used_at, "text": self.text}


@dataclass(frozen=True)
class VersionUse:
    """How many of the newest events one version routed."""

    events: int
    last_used_at: datetime


def list_versions(
    database: Database, *, limit: int, cursor: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the versions without their texts, newest first, and the cursor of the next page: the hash of the last."""
    query = select(_TABLE.c.hash, _TABLE.c.first_used_at, func.length(_TABLE.c.text).label("characters"))
    with database.read() as conn:
        if cursor is not None:
            last = select(_TABLE.c.first_used_at).where(_TABLE.c.hash == cursor).scalar_subquery()
            query = query.where(_TABLE.c.first_used_at < last)
        rows = conn.execute(query.order_by(_TABLE.c.first_used_at.desc()).limit(limit + 1)).all()
    items = [dict(row._mapping) for row in rows[:limit]]
    return items, items[-1]["hash"] if len(rows) > limit else None


def show_version(database: Database, name: str) -> RulesVersion:
    """Return the version with this hash, or with a hash that starts so. Raise NotFound."""
    query = select(_TABLE).where(_TABLE.c.hash >= name, _TABLE.c.hash < f"{name}g").limit(2)
    with database.read() as conn:
        rows = conn.execute(query).all() if len(name) >= MIN_PREFIX else []
    if len(rows) != 1:
        raise NotFound(f"there is no version `{name[:64]}` of the rules that routed an event")
    return RulesVersion(rows[0].hash, rows[0].first_used_at, rows[0].text)


def previous_version(database: Database, version: RulesVersion) -> str | None:
    """Return the hash of the version that was first used before this one."""
    query = select(_TABLE.c.hash).where(_TABLE.c.first_used_at < version.first_used_at)
    with database.read() as conn:
        return conn.execute(query.order_by(_TABLE.c.first_used_at.desc()).limit(1)).scalar()


def version_use(database: Database) -> Mapping[str, VersionUse]:
    """Return how many of the SAMPLED_EVENTS newest events each version routed, by hash."""
    events = schema.events
    newest = (
        select(events.c.rules_hash, events.c.received_at)
        .order_by(events.c.received_at.desc())
        .limit(SAMPLED_EVENTS)
        .subquery()
    )
    query = (
        select(
            newest.c.rules_hash, func.count().label("events"), func.max(newest.c.received_at).label("last")
        )
        .where(newest.c.rules_hash.is_not(None))
        .group_by(newest.c.rules_hash)
    )
    with database.read() as conn:
        return {row.rules_hash: VersionUse(row.events, row.last) for row in conn.execute(query)}
