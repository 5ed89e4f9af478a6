"""Finding what is stored about a person or a conversation, by whatever somebody has at hand."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select

from bridge.events import normalize_email
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.queries import Page, list_deliveries, list_events

LIMIT = 200
"""Events, and deliveries, that a search looks at: the newest."""


def search(database: Database, text: str, limit: int = 50) -> tuple[Page, Page]:
    """The events and the deliveries that `text` stands for, the newest first, at most `limit` of each.

    It may be an id of ours, a partner's id, Heppu's webhook id, a conversation, a phone number in any spelling, or an
    e-mail address.
    """
    words = text.strip()
    addresses = _addresses(words)
    events, deliveries = schema.events.c, schema.deliveries.c
    found_events = _ids(
        database,
        events.id,
        or_(
            events.id == words,
            events.dedupe_key == words,
            events.conversation_id == words,
            events.phone.in_(addresses),
            events.email.in_(addresses),
        ),
    )
    found_deliveries = _ids(
        database,
        deliveries.id,
        or_(
            deliveries.id == words,
            deliveries.external_id == words,
            deliveries.conversation == words,
            deliveries.contact.in_(addresses),
            # Only these are indexed by recipient; the others are found by their event.
            and_(deliveries.recipient.in_(addresses), deliveries.possibly_sent_at.is_not(None)),
            deliveries.event_id.in_(found_events),
        ),
    )
    return (
        list_events(database, ids=found_events, limit=limit),
        list_deliveries(database, ids=found_deliveries, limit=limit),
    )


def _ids(database: Database, ident: Any, condition: ColumnElement[bool]) -> Collection[str]:
    with database.read() as conn:
        return list(
            conn.execute(select(ident).where(condition).order_by(ident.desc()).limit(LIMIT)).scalars()
        )


def _addresses(words: str) -> list[str]:
    """How a phone number or an e-mail address may be stored: E.164, small letters."""
    email = normalize_email(words)
    found = [words] if email is None else [email, email.casefold()]
    digits = re.sub(r"[\s().\-/]", "", words)
    if re.fullmatch(r"(\+|00)?\d{5,15}", digits):
        number = digits.removeprefix("+").removeprefix("00")
        found.append(f"+{number}")
        if len(number) == 10:
            found.append(f"+1{number}")
    return found
