"""Contact rows: the conditions that find the events and deliveries of an address, each by an index."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select, union

from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.store import schema

_EVENTS, _DELIVERIES = schema.events.c, schema.deliveries.c


def stored_addresses(text: str, country: str | None) -> list[str]:
    """Return how a phone number in any notation or an email address may be stored; empty for anything else.

    National numbers are read as numbers of `country`, and those of 10 digits as numbers of the US as well.
    """
    # Imported here, because it loads the numbering plans.
    from bridge.contacts.phone import normalize_phone

    email = normalize_email(text)
    if email is not None:
        return list(dict.fromkeys([email, address_key(email)]))
    digits = re.sub(r"[\s().\-/]", "", text)
    numbers = [normalize_phone(text, country), normalize_phone(f"+{digits}")]
    if len(digits) == 10:
        numbers.append(normalize_phone(f"+1{digits}"))
    return list(dict.fromkeys(number for number in numbers if number is not None))


def events_of(addresses: Collection[str]) -> Sequence[ColumnElement[bool]]:
    """Return the conditions for the events about these addresses: an event is one of a contact if one holds."""
    return (_EVENTS.phone.in_(addresses), _EVENTS.email.in_(addresses))


def deliveries_of(addresses: Collection[str]) -> Sequence[ColumnElement[bool]]:
    """Return the conditions for the deliveries to these addresses, or for events about them."""
    return (
        _DELIVERIES.contact.in_(addresses),
        # Only these are indexed by recipient; the others are found by their contact or event.
        and_(_DELIVERIES.recipient.in_(addresses), _DELIVERIES.possibly_sent_at.is_not(None)),
        _DELIVERIES.event_id.in_(select(_EVENTS.id).where(or_(*events_of(addresses)))),
    )


def narrow(query: Select[*tuple[Any, ...]], conditions: Sequence[ColumnElement[bool]]) -> Any:
    """Return the query for the rows that meet one of the conditions, each found by its own index.

    With `OR`, the database might read the whole table in the order of the page instead.
    """
    return select(union(*(query.where(condition) for condition in conditions)).subquery("matches"))
