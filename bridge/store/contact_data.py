"""Contact data: the rows of every table that are about an address or mention it, for erasure and export.

What is about an address is found by indexes. What mentions it elsewhere, in any of its spellings, is found by reading
everything that is stored, a part at a time, so that no transaction is long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import Column, ColumnElement, false, func, or_, select

from bridge.contacts.address import address_key
from bridge.contacts.email import email_spellings
from bridge.contacts.phone import contains_number, national_forms
from bridge.ids import id_at, time_of_id
from bridge.store import schema
from bridge.store.contact_rows import deliveries_of
from bridge.store.database import Database

_EVENTS, _DELIVERIES, _REJECTED = schema.events, schema.deliveries, schema.rejected_requests
_READ_AT_A_TIME: Final = 2_000
"""Rows of one transaction that reads everything."""
_OVERLAP: Final = timedelta(minutes=1)
"""How much later than others a row with an older ID may be committed."""


def events_about(database: Database, address: str) -> list[str]:
    """Return the IDs of the events about an address: two indexes lead to them."""
    with database.read() as conn:
        conditions = (_EVENTS.c.phone == address, _EVENTS.c.email == address_key(address))
        found = [conn.execute(select(_EVENTS.c.id).where(item)).scalars().all() for item in conditions]
    return sorted(set().union(*found))


def deliveries_about(database: Database, address: str) -> list[str]:
    """Return the IDs of deliveries about an address, and of messages to it: two indexes lead to them."""
    with database.read() as conn:
        contact, recipient, _of_events = deliveries_of([address_key(address)])
        query = select(_DELIVERIES.c.id)
        found = [conn.execute(query.where(item)).scalars().all() for item in (contact, recipient)]
    return sorted(set().union(*found))


def events_mentioning(database: Database, address: str, after: str = "") -> Iterator[list[str]]:
    """Yield the IDs of the events about an address, and of those whose body contains it, a part at a time.

    `after` is where to start: see `newest_ids`.
    """
    is_contact = or_(_EVENTS.c.phone == address, _EVENTS.c.email == address_key(address))
    stored = select(_EVENTS.c.id, _EVENTS.c.body, func.coalesce(is_contact, false()).label("is_contact"))
    mentions = _search(database, address)
    for is_part in _parts(database, _EVENTS.c.id, after):
        with database.read() as conn:
            rows = conn.execute(stored.where(is_part).order_by(_EVENTS.c.id))
            # Row by row, because large bodies are compressed.
            found = [row.id for row in rows if row.is_contact or mentions(row.body)]
        yield found


def deliveries_mentioning(database: Database, address: str, after: str = "") -> Iterator[list[str]]:
    """Yield the IDs of the deliveries to or about an address, or with it in their params or keys, a part at a time.

    `after` is where to start: see `newest_ids`.
    """
    key, table = address_key(address), _DELIVERIES.c
    texts = (table.params, table.idempotency_key, table.concurrency_key)
    found = select(table.id).where(
        or_(
            table.recipient == key,
            table.contact == key,
            *(func.lower(column).contains(key, autoescape=True) for column in texts),
        )
    )
    for is_part in _parts(database, table.id, after):
        with database.read() as conn:
            delivery_ids = list(conn.execute(found.where(is_part).order_by(table.id)).scalars())
        yield delivery_ids


def newest_ids(database: Database) -> tuple[str, str]:
    """Return the IDs of an event and of a delivery after which all that is stored from now on will be."""
    with database.read() as conn:
        events, deliveries = (
            conn.execute(select(func.max(table.c.id))).scalar_one() for table in (_EVENTS, _DELIVERIES)
        )
    return _before(events, "evt"), _before(deliveries, "dlv")


def _before(newest: str | None, prefix: str) -> str:
    return "" if newest is None else id_at(prefix, max(time_of_id(newest) - _OVERLAP, time_of_id("")))


def _parts(database: Database, column: Column[str], after: str) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of ranges of `_READ_AT_A_TIME` IDs, oldest first."""
    while True:
        ends = select(column).where(column > after).order_by(column).offset(_READ_AT_A_TIME).limit(1)
        with database.read() as conn:
            end = conn.execute(ends).scalar_one_or_none()
        yield column > after if end is None else (column > after) & (column <= end)
        if end is None:
            return
        after = end


def rejected_requests_mentioning(database: Database, address: str) -> list[str]:
    """Return the IDs of the rejected requests whose body contains an address."""
    mentions = _search(database, address)
    with database.read() as conn:
        rows = conn.execute(select(_REJECTED.c.id, _REJECTED.c.body).where(_REJECTED.c.body.is_not(None)))
        return [row.id for row in rows if mentions(row.body)]


def _search(database: Database, address: str) -> Callable[[bytes | None], bool]:
    """Return the test whether a body contains the address, and not only the same digits in another number.

    It is not SQL's, which reads neither compressed nor encrypted bodies.
    """
    is_email, country = "@" in address, database.default_country
    spellings = email_spellings(address) if is_email else {address, *national_forms(address)}
    forms = [spelling.encode() for spelling in sorted(spellings)]
    part = common_part(forms)

    def mentions(body: bytes | None) -> bool:
        if body is None or part not in body or not any(form in body for form in forms):
            return False
        return is_email or contains_number(body.decode("utf-8", "replace"), address, country)

    return mentions


def common_part(forms: Collection[bytes]) -> bytes:
    """Return the longest text that all of these spellings contain, so that one search rules out most bodies."""
    first = min(forms, key=len)
    starts = reversed(range(len(first)))  # of two as long, the last: area codes are frequent
    parts = (first[start:end] for start in starts for end in range(start + 1, len(first) + 1))
    return max((part for part in parts if all(part in form for form in forms)), key=len, default=b"")
