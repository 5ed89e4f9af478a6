"""Search: finds the events and deliveries of a contact or conversation by any identifier an operator has at hand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from bridge.store import schema
from bridge.store.contact_rows import deliveries_of, events_of, stored_addresses
from bridge.store.database import Database
from bridge.store.queries import Page, list_deliveries, list_events

LIMIT = 200
"""The number of events, and of deliveries, that a search examines: the newest."""


def search(database: Database, text: str, limit: int = 50) -> tuple[Page, Page]:
    """Return the events and the deliveries that match `text`, newest first, at most `limit` of each.

    `text` may be an event or delivery ID, an external ID, Heppu's webhook ID, a conversation ID, a phone number in any
    notation, or an email address.
    """
    term = text.strip()
    addresses = [term, *stored_addresses(term, database.default_country)]
    events, deliveries = schema.events.c, schema.deliveries.c
    event_ids = _matching_ids(
        database,
        events.id,
        or_(
            events.id == term,
            events.dedupe_key == term,
            events.conversation_id == term,
            *events_of(addresses),
        ),
    )
    delivery_ids = _matching_ids(
        database,
        deliveries.id,
        or_(
            deliveries.id == term,
            deliveries.external_id == term,
            deliveries.conversation == term,
            *deliveries_of(addresses)[:2],  # the third is covered by the events found
            deliveries.event_id.in_(event_ids),
        ),
    )
    return (
        list_events(database, ids=event_ids, limit=limit),
        list_deliveries(database, ids=delivery_ids, limit=limit),
    )


def _matching_ids(database: Database, column: Any, condition: ColumnElement[bool]) -> Collection[str]:
    with database.read() as conn:
        query = select(column).where(condition).order_by(column.desc()).limit(LIMIT)
        return list(conn.execute(query).scalars())
