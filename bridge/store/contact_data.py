"""Contact data: the rows of every table that are about an address or mention it, for erasure and export.

Bodies are searched for the address in all its spellings, so these queries read every stored body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, false, func, or_, select, text

from bridge.contacts.address import address_key
from bridge.contacts.email import email_spellings
from bridge.contacts.phone import contains_number, national_forms
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.sealing import PREFIX

_EVENTS, _DELIVERIES = schema.events, schema.deliveries


def events_mentioning(database: Database, address: str) -> Select[Any]:
    """Return the query for the events about an address, and for those whose body may contain it; see `mentions`.

    The rows have `id`, `body` and `is_contact`, oldest first.
    """
    is_contact = or_(_EVENTS.c.phone == address, _EVENTS.c.email == address_key(address))
    return (
        select(_EVENTS.c.id, _EVENTS.c.body, func.coalesce(is_contact, false()).label("is_contact"))
        .where(or_(is_contact, _body_may_contain(database, "events", address)))
        .order_by(_EVENTS.c.id)
    )


def mentions(database: Database, row: Any, address: str) -> bool:
    """Return whether a row of `events_mentioning` is about the address or contains it."""
    return bool(row.is_contact) or _contains(database, row.body, address)


def deliveries_mentioning(address: str, events: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition for the deliveries of these events, to or about an address, or with it in their params."""
    key = address_key(address)
    columns = (_DELIVERIES.c.params, _DELIVERIES.c.idempotency_key, _DELIVERIES.c.concurrency_key)
    return or_(
        _DELIVERIES.c.event_id.in_(events),
        _DELIVERIES.c.recipient == key,
        _DELIVERIES.c.contact == key,
        *(func.lower(column).contains(key, autoescape=True) for column in columns),
    )


def rejected_requests_mentioning(database: Database, conn: Connection, address: str) -> list[str]:
    """Return the IDs of the rejected requests whose body contains an address."""
    table = schema.rejected_requests
    rows = conn.execute(
        select(table.c.id, table.c.body).where(
            table.c.body.is_not(None), _body_may_contain(database, "rejected_requests", address)
        )
    )
    return [row.id for row in rows if _contains(database, row.body, address)]


def _body_may_contain(database: Database, table: str, address: str) -> ColumnElement[bool]:
    """Return the condition that a body has the characters of the address, in one of its spellings."""
    search = "instr({0}.body, :{1}) > 0" if database.is_sqlite else "position(:{1} in {0}.body) > 0"
    forms = sorted(email_spellings(address) if "@" in address else {address, *national_forms(address)})
    is_sealed = f"{'substr' if database.is_sqlite else 'substring'}({table}.body, 1, {len(PREFIX)}) = :sealed"
    return or_(
        text(is_sealed).bindparams(sealed=PREFIX),  # can only be searched once it is decrypted
        *(
            text(search.format(table, f"needle{index}")).bindparams(**{f"needle{index}": form.encode()})
            for index, form in enumerate(forms)
        ),
    )


def _contains(database: Database, body: bytes, address: str) -> bool:
    """Return whether a body contains the address, and not only the same digits in another number."""
    body_text = bytes(body).decode("utf-8", "replace")
    if "@" in address:
        return any(spelling in body_text for spelling in email_spellings(address))
    return address in body_text or contains_number(body_text, address, database.default_country)
