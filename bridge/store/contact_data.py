"""Contact data: the rows of every table that are about an address or mention it, for erasure and export.

What is about an address is found by indexes. What mentions it elsewhere, in any of its spellings, is found by reading
everything that is stored, a part at a time, so that no transaction is long.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import Column, ColumnElement, false, func, or_, select

from bridge.contacts.address import address_key
from bridge.contacts.mentions import mention_test
from bridge.ids import id_at, time_of_id
from bridge.store import schema
from bridge.store.contact_rows import deliveries_of
from bridge.store.database import Database

_EVENTS, _DELIVERIES, _REJECTED = schema.events, schema.deliveries, schema.rejected_requests
_READ_AT_A_TIME: Final = 2_000
"""Rows of one transaction that reads everything."""
_FEW: Final = {"yield_per": 100}
"""Bodies read at a time: they may be large, and PostgreSQL ends transactions that are idle for long."""
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
    mentions = mention_test(address, database.default_country)
    for is_part in _parts(database, _EVENTS.c.id, after):
        with database.read() as conn:
            rows = conn.execute(stored.where(is_part).order_by(_EVENTS.c.id), execution_options=_FEW)
            found = [row.id for row in rows if row.is_contact or mentions(row.body or b"")]
        yield found


def deliveries_mentioning(database: Database, address: str, after: str = "") -> Iterator[list[str]]:
    """Yield the IDs of the deliveries to or about an address, or with it in their params or keys, a part at a time.

    `after` is where to start: see `newest_ids`.
    """
    key, table = address_key(address), _DELIVERIES.c
    is_contact = func.coalesce(or_(table.recipient == key, table.contact == key), false())
    texts = (table.params, table.idempotency_key, table.concurrency_key)
    stored = select(table.id, is_contact.label("is_contact"), *texts)
    mentions = mention_test(address, database.default_country)
    for is_part in _parts(database, table.id, after):
        with database.read() as conn:
            rows = conn.execute(stored.where(is_part).order_by(table.id))
            found = [
                delivery_id
                for delivery_id, is_about, *fields in rows
                if is_about or mentions("\n".join(filter(None, fields)).encode())
            ]
        yield found


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
    mentions = mention_test(address, database.default_country)
    with database.read() as conn:
        stored = select(_REJECTED.c.id, _REJECTED.c.body).where(_REJECTED.c.body.is_not(None))
        rows = conn.execute(stored, execution_options=_FEW)
        return [row.id for row in rows if mentions(row.body)]
