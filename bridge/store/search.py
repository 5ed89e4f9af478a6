"""Search: finds the events and deliveries of a contact or conversation by any identifier an operator has at hand."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select

from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.contacts.phone import normalize_phone
from bridge.store import schema
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
    addresses = _addresses(term, database.default_country)
    events, deliveries = schema.events.c, schema.deliveries.c
    event_ids = _matching_ids(
        database,
        events.id,
        or_(
            events.id == term,
            events.dedupe_key == term,
            events.conversation_id == term,
            events.phone.in_(addresses),
            events.email.in_(addresses),
        ),
    )
    delivery_ids = _matching_ids(
        database,
        deliveries.id,
        or_(
            deliveries.id == term,
            deliveries.external_id == term,
            deliveries.conversation == term,
            deliveries.contact.in_(addresses),
            # Only these are indexed by recipient; the others are found by their event.
            and_(deliveries.recipient.in_(addresses), deliveries.possibly_sent_at.is_not(None)),
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


def _addresses(term: str, country: str | None) -> list[str]:
    """Return how a phone number or an email address may be stored: in E.164 format, in lowercase."""
    email = normalize_email(term)
    if email is not None:
        return [email, address_key(email)]
    digits = re.sub(r"[\s().\-/]", "", term)
    numbers = [normalize_phone(term, country), normalize_phone(f"+{digits}")]
    if len(digits) == 10:
        numbers.append(normalize_phone(f"+1{digits}"))
    return [term, *(number for number in numbers if number is not None)]
