"""Preview of an erasure: how much is stored about a person, counted by indexes alone.

An erasure also finds events and deliveries that mention the address elsewhere, which takes much longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, select, union

from bridge.contacts.address import address_key
from bridge.store import schema
from bridge.store.contact_rows import deliveries_of, events_of
from bridge.store.database import Database

MAX_COUNT: Final = 10_000
"""Counts end here."""
_EVENTS, _DELIVERIES, _OPT_OUTS = schema.events.c, schema.deliveries.c, schema.opt_outs.c
# Not the column itself: its index would be preferred to those of the addresses.
_IS_WAITING: Final = func.coalesce(_DELIVERIES.state, "").in_(("pending", "retrying", "needs_review"))


@dataclass(frozen=True)
class ErasePreview:
    """What an erasure would delete. Each count ends at `MAX_COUNT`."""

    events: int
    deliveries: int
    cancelled: int
    """Of the deliveries, those that have not been sent."""
    opt_outs: int
    """Opt-outs that would be kept as a hash."""


def preview_erase(database: Database, addresses: Sequence[str]) -> ErasePreview:
    """Count what is stored about these addresses."""
    if not addresses:
        return ErasePreview(0, 0, 0, 0)
    keys = [address_key(address) for address in addresses]
    deliveries = select(_DELIVERIES.id)
    with database.read() as conn:
        return ErasePreview(
            events=_count(conn, select(_EVENTS.id), events_of(addresses)),
            deliveries=_count(conn, deliveries, deliveries_of(keys)),
            cancelled=_count(conn, deliveries.where(_IS_WAITING), deliveries_of(keys)),
            opt_outs=_count(
                conn,
                select(_OPT_OUTS.id).where(_OPT_OUTS.opted_out_at.is_not(None)),
                [_OPT_OUTS.address.in_(keys)],
            ),
        )


def _count(conn: Connection, query: Any, conditions: Sequence[ColumnElement[bool]]) -> int:
    """Count the rows that meet one of the conditions, reading at most `MAX_COUNT` for each."""
    parts = [select(query.where(condition).limit(MAX_COUNT).subquery()) for condition in conditions]
    count: int = conn.execute(select(func.count()).select_from(union(*parts).subquery())).scalar_one()
    return min(count, MAX_COUNT)
