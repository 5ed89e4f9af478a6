"""Contact history: when the other events of an event's contact occurred, for `count` in rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, select, union

from bridge.contacts.address import address_key
from bridge.events import Event
from bridge.rules.counting import MAX_COUNTED, History
from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.events


def history_in(conn: Connection) -> History:
    """Return the function that reads the history of a contact in this transaction.

    An event belongs to the contact if it has the same phone number or email address; both are indexed.
    """

    def read(event: Event, event_types: Collection[str], since: datetime) -> Sequence[datetime]:
        contact = event.contact
        addresses = {"phone": contact.phone, "email": contact.email and address_key(contact.email)}
        queries = [
            select(_TABLE.c.id, _TABLE.c.occurred_at).where(
                _TABLE.c[column] == address,
                _TABLE.c.type.in_(event_types),
                _TABLE.c.occurred_at > since,
                _TABLE.c.occurred_at <= event.occurred_at,
                _TABLE.c.dedupe_key != event.dedupe_key,
            )
            for column, address in addresses.items()
            if address
        ]
        if not queries:
            return ()
        rows = union(*queries).subquery()
        latest = select(rows.c.occurred_at).order_by(rows.c.occurred_at.desc()).limit(MAX_COUNTED)
        return list(reversed(conn.execute(latest).scalars().all()))

    return read


@contextmanager
def contact_history(database: Database) -> Iterator[History]:
    """Read histories in one transaction."""
    with database.read() as conn:
        yield history_in(conn)
