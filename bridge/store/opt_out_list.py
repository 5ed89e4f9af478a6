"""The opt-out list, as operators see it: opt-outs and undeliverable addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import ColumnElement, Text, literal, null, select, union_all

from bridge.contacts.address import address_key
from bridge.ids import id_at
from bridge.policy import CHANNELS
from bridge.store import schema
from bridge.store.contact_links import linked_addresses
from bridge.store.database import Database
from bridge.store.opt_outs import AddressHasher
from bridge.store.queries import Page, read_page

EntryKind = Literal["opt_out", "undeliverable"]
ENTRY_KINDS: Final = get_args(EntryKind)
_EXPORT_PAGE: Final = 1000
_OPT_OUTS, _UNDELIVERABLE = schema.opt_outs, schema.undeliverable_addresses


def list_opt_outs(
    database: Database,
    limit: int = 50,
    *,
    cursor: str | None = None,
    channel: str | None = None,
    kind: str | None = None,
    source: str | None = None,
    since: datetime | None = None,
) -> Page:
    """List the entries, newest first: `kind`, `channel`, `address`, `since`, `until`, `source`, `actor`, `reason`.

    The address of an erased contact is `erased:` and a hash. `until` is None for opt-outs. The `reason` of an
    undeliverable address is what the provider reported. `source` selects by a part of the source,
    `since` by when the entry was made.
    """
    return _read(database, limit, cursor, channel=channel, kind=kind, source=source, since=since)


def export_opt_outs(
    database: Database, *, channel: str | None = None, kind: str | None = None, source: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield all entries, newest first, a page per transaction."""
    cursor: str | None = None
    while True:
        page = _read(database, _EXPORT_PAGE, cursor, channel=channel, kind=kind, source=source)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def show_opt_outs(
    database: Database, address: str, hash_address: AddressHasher | None
) -> list[dict[str, Any]]:
    """Return the entries of an address, and those of the contact's other addresses, which are marked.

    The field `other_address` is True for an entry of another address of the same contact.
    """
    own = address_key(address)
    with database.read() as conn:
        linked = linked_addresses(conn, [own]).get(own, set())
        names = {own, *linked}
        stored, own_names = set(names), {own}
        if hash_address is not None:
            stored.update(*map(hash_address, names))
            own_names.update(hash_address(own))
        # Naming the channels lets the primary keys find the rows.
        conditions: list[_Condition] = [
            lambda table: table.c.channel.in_(CHANNELS),
            lambda table: table.c.address.in_(stored),
        ]
        query = _entries(database.now(conn), conditions)
        rows = conn.execute(query.order_by(query.selected_columns.id.desc()))
        return [dict(row._mapping) | {"other_address": row.address not in own_names} for row in rows]


_Condition = Callable[[Any], ColumnElement[bool]]


def _read(
    database: Database,
    limit: int,
    cursor: str | None,
    *,
    channel: str | None,
    kind: str | None,
    source: str | None,
    since: datetime | None = None,
) -> Page:
    conditions: list[_Condition] = []
    if channel is not None:
        conditions.append(lambda table: table.c.channel == channel)
    if source is not None:
        conditions.append(lambda table: table.c.source.contains(source, autoescape=True))
    if since is not None:
        oldest = id_at("opt", since)
        conditions.append(lambda table: table.c.id >= oldest)
    if cursor is not None:
        conditions.append(lambda table: table.c.id < cursor)
    with database.read() as conn:
        query = _entries(database.now(conn), conditions, kind, newest=limit + 1)
        return read_page(conn, query, query.selected_columns.id, limit, cursor)


def _entries(
    now: datetime, conditions: list[_Condition], kind: str | None = None, newest: int | None = None
) -> Any:
    """Return the query for the entries of both tables that match, in the columns of the list.

    With `newest`, at most so many of each table are read, by the index of their IDs: a list may have 300,000 entries.
    """
    opt_outs = select(
        _OPT_OUTS.c.id,
        literal("opt_out").label("kind"),
        *_OPT_OUTS.c["channel", "address"],
        _OPT_OUTS.c.opted_out_at.label("since"),
        null().cast(schema.Instant).label("until"),
        *_OPT_OUTS.c["source", "actor", "reason"],
    ).where(_OPT_OUTS.c.opted_out_at.is_not(None), *(condition(_OPT_OUTS) for condition in conditions))
    undeliverable = select(
        _UNDELIVERABLE.c.id,
        literal("undeliverable").label("kind"),
        *_UNDELIVERABLE.c["channel", "address", "since", "until", "source"],
        null().cast(Text).label("actor"),
        _UNDELIVERABLE.c.detail.label("reason"),
    ).where(_UNDELIVERABLE.c.until > now, *(condition(_UNDELIVERABLE) for condition in conditions))
    selected = {"opt_out": [opt_outs], "undeliverable": [undeliverable]}.get(
        kind or "", [opt_outs, undeliverable]
    )
    if newest is not None:
        limited = [query.order_by(query.selected_columns.id.desc()).limit(newest) for query in selected]
        selected = [select(query.subquery()) for query in limited]
    return select(union_all(*selected).subquery("entries"))
