"""Upkeep of the history: ended pauses, counts per hour, and the deletion of what is too old."""

from __future__ import annotations

from sqlalchemy import delete

from bridge.store import schema
from bridge.store.database import Database
from bridge.store.hourly_counts import count_hours, remove_old_counts
from bridge.store.pause_history import HISTORY_AGE, note_drained, remove_old_pauses

HOURS_AT_ONCE = 24


def update_history(database: Database) -> bool:
    """Bring the history up to date; return True if there is more to count. Several processes may do so at once."""
    note_drained(database)
    counted = count_hours(database, HOURS_AT_ONCE)
    if counted:
        with database.write() as conn:
            before = database.now(conn) - HISTORY_AGE
            remove_old_counts(conn, before)
            remove_old_pauses(conn, before)
            conn.execute(delete(schema.connection_stats).where(schema.connection_stats.c.started_at < before))
    return counted == HOURS_AT_ONCE
