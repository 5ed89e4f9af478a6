"""Rows of the table `events` as events. Separate from routing, so that commands that list events load no rules."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from bridge.events import Event, StoredEvent


def event_from_row(row: Row[Any], default_country: str | None) -> Event:
    """Build an Event from an `events` row. The body is empty if it was pruned or erased.

    `default_country` is that of the database.
    """
    if row.body is None:
        body = {"event": row.type, "conversationId": row.conversation_id}
        return Event(body, row.dedupe_key, row.received_at, row.id, default_country)
    return StoredEvent(row.body, row.type, row.dedupe_key, row.received_at, row.id, default_country)
