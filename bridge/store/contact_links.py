"""Contact links: the other addresses of a contact, known from the stored events that have a phone number and an email.

Two addresses belong to the same contact if one event has both, or if each occurs in an event with the same third
address. An address that occurs with more than `MAX_LINKS` others is shared, such as a company's switchboard or its
info@ address, and links nobody. The links of an address are found by index seeks, `MAX_LINKS` + 1 at most, however
many events it occurs in. They are known for as long as the events are kept (BRIDGE_RETENTION).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection, TextClause, text

from bridge.store.bulk import JSON_VALUES

MAX_LINKS: Final = 5


def _statement(column: str, other: str, values: str) -> TextClause:
    """Return the query for the addresses in `other` that occur with each address in `column`."""
    next_other = f"SELECT min({other}) FROM events WHERE {column} ="  # noqa: S608
    return text(
        f"WITH RECURSIVE links(address, other, number) AS ("  # noqa: S608
        f" SELECT value, ({next_other} value), 1 FROM {values}"
        f" UNION ALL"
        f" SELECT address, ({next_other} links.address AND {other} > links.other), number + 1"
        f" FROM links WHERE other IS NOT NULL AND number <= :max_links"
        f") SELECT address, other FROM links WHERE other IS NOT NULL"
    )


_STATEMENTS: Final = {
    (dialect, column): _statement(column, other, values)
    for dialect, values in JSON_VALUES.items()
    for column, other in (("phone", "email"), ("email", "phone"))
}


def linked_addresses(conn: Connection, addresses: Collection[str]) -> dict[str, set[str]]:
    """Return the other addresses of the same contacts, by address; an address without any is left out."""
    direct = _occur_with(conn, addresses)
    via = _occur_with(conn, {other for others in direct.values() for other in others})
    return {
        address: others.union(*(via.get(other, ()) for other in others)) - {address}
        for address, others in direct.items()
    }


def _occur_with(conn: Connection, addresses: Collection[str]) -> Mapping[str, set[str]]:
    """Return the addresses that occur in events with each of these, except those of a shared address."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    emails = [address for address in addresses if "@" in address]
    phones = [address for address in addresses if "@" not in address]
    for column, values in (("phone", phones), ("email", emails)):
        if values:
            parameters = {"values": json.dumps(values), "max_links": MAX_LINKS}
            for address, other in conn.execute(_STATEMENTS[conn.dialect.name, column], parameters).all():
                found[address].add(other)
    return {address: others for address, others in found.items() if len(others) <= MAX_LINKS}
