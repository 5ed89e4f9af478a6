"""Rows of the table `events` as events. Separate from routing, so that commands that list events load no rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row

from bridge.events import Event, StoredEvent

EVENT_COLUMNS: Final = ("id", "dedupe_key", "received_at", "type", "conversation_id", "body")
"""The columns that an Event is built from, in the order of the last arguments of `event_of`."""


def event_of(
    default_country: str | None,
    event_id: str,
    dedupe_key: str,
    received_at: datetime,
    event_type: str,
    conversation_id: str,
    body: bytes | None,
) -> Event:
    """Build an Event from the columns of its row. The body is empty if it was pruned or erased.

    `default_country` is that of the database.
    """
    if body is None:
        fields = {"event": event_type, "conversationId": conversation_id}
        return Event(fields, dedupe_key, received_at, event_id, default_country)
    return StoredEvent(body, event_type, dedupe_key, received_at, event_id, default_country)


def event_from_row(row: Row[Any], default_country: str | None) -> Event:
    """Build an Event from an `events` row that has the `EVENT_COLUMNS`, in any order and with others.

    Unpacking a row with only these columns takes a fifth of the time.
    """
    return event_of(
        default_country, row.id, row.dedupe_key, row.received_at, row.type, row.conversation_id, row.body
    )
