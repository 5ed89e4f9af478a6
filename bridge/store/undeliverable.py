"""Undeliverable addresses: a dead mailbox or a landline gets no further messages on that channel for 90 days."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, select, text

from bridge.connector.callbacks import Channel
from bridge.contacts.address import address_key
from bridge.ids import new_id
from bridge.policy import CHANNELS, UndeliverableAddress
from bridge.store import schema
from bridge.store.bulk import JSON_VALUES, bulk_insert
from bridge.store.database import Database

UNDELIVERABLE_FOR: Final = timedelta(days=90)
_TABLE = schema.undeliverable_addresses
_MAX_DETAIL: Final = 300
_UPSERT: Final = (
    "ON CONFLICT (channel, address) DO UPDATE SET id = excluded.id, since = excluded.since, until = excluded.until, "
    "source = excluded.source, detail = excluded.detail"
)


_ENTRY_COLUMNS = _TABLE.c["channel", "address", "since", "until", "detail"]
_ENTRIES: Final = {
    dialect: text(
        f"SELECT {', '.join(column.name for column in _ENTRY_COLUMNS)} FROM {values} "  # noqa: S608
        f"CROSS JOIN undeliverable_addresses WHERE address = value "
        f"AND channel IN ({', '.join(map(repr, CHANNELS))})"
    ).columns(*_ENTRY_COLUMNS)
    for dialect, values in JSON_VALUES.items()
}
"""By dialect, the query for the entries of the addresses `values`."""


@dataclass(frozen=True)
class DeliveryProblem:
    """A message to an address on one channel that cannot be delivered."""

    channel: Channel
    address: str
    source: str
    """The connection that reported it."""
    detail: str
    """What the provider reported, masked."""


def save_undeliverable(conn: Connection, problems: Sequence[DeliveryProblem], now: datetime) -> None:
    """Store that these addresses cannot be reached on these channels; messages are tried again after 90 days."""
    latest = {(problem.channel, address_key(problem.address)): problem for problem in problems}
    rows = [
        {
            "channel": channel,
            "address": address,
            "id": new_id("opt"),
            "since": now,
            "until": now + UNDELIVERABLE_FOR,
            "source": problem.source,
            "detail": problem.detail[:_MAX_DETAIL],
        }
        for (channel, address), problem in latest.items()
    ]
    if rows:
        bulk_insert(conn, _TABLE, rows, _UPSERT)


def undeliverable_addresses(
    conn: Connection, recipients: Collection[tuple[Channel, str]], now: datetime
) -> dict[tuple[Channel, str], UndeliverableAddress]:
    """Return those of these recipients (channel, address) that cannot be reached."""
    values = json.dumps([address for _, address in recipients])
    rows = conn.execute(_ENTRIES[conn.dialect.name], {"values": values})
    return {
        (channel, address): UndeliverableAddress(since, until, detail)
        for channel, address, since, until, detail in rows
        if until > now
    }


def clear_undeliverable(
    conn: Connection, recipients: Collection[tuple[Channel, str]]
) -> set[tuple[str, str]]:
    """Delete the entries of these recipients (channel, address), so that messages are tried again; return them."""
    keys = {(channel, address_key(address)) for channel, address in recipients}
    cleared: set[tuple[str, str]] = set()
    for channel, address in sorted(keys):
        is_entry = (_TABLE.c.channel == channel) & (_TABLE.c.address == address)
        if conn.execute(delete(_TABLE).where(is_entry)).rowcount:
            cleared.add((channel, address))
    return cleared


def remove_expired_entries(database: Database) -> None:
    """Delete the entries whose time is over. There are few, and usually none."""
    with database.read() as conn:
        is_expired = _TABLE.c.until <= database.now(conn)
        if conn.execute(select(_TABLE.c.id).where(is_expired).limit(1)).first() is None:
            return
    with database.write() as conn:
        conn.execute(delete(_TABLE).where(is_expired))
