"""Contacts of one batch: which of its deliveries are about the same person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bridge.connector.contact_profile import ContactProfile
from bridge.connector.contacts import ContactQuery, ResolvedContact
from bridge.contacts.same_name import same_name


@dataclass
class Resolution:
    """The resolution of one query: unresolved while `contact` is None."""

    query: ContactQuery
    contact: ResolvedContact = None
    profile: ContactProfile | None = None
    """The record as last read. None: unknown."""
    note: str = ""
    """Why there is no contact and none could be looked for or created; empty if the CRM simply has none."""
    is_pair: bool = False
    """Email and phone lead to different records."""


def _group_by_address(items: Sequence[Resolution]) -> list[list[Resolution]]:
    """Return the items in groups that share addresses, directly or through other items of the group."""
    groups: list[tuple[set[str], list[Resolution]]] = []
    for item in items:
        keys = set(item.query.keys)
        linked = [group for group in groups if group[0] & keys]
        if not linked:
            groups.append((keys, [item]))
            continue
        first, *others = linked
        for other in others:
            first[0].update(other[0])
            first[1].extend(other[1])
            groups.remove(other)
        first[0].update(keys)
        first[1].append(item)
    return [members for _, members in groups]


def group_by_person(items: Sequence[Resolution]) -> list[tuple[ContactQuery, list[Resolution]]]:
    """Return the contact to create for each person, and the items that it is for.

    If two people share an address, the contact gets the values of one of them. Items of the other are for it as well,
    unless their addresses do not lead to it: these are a contact of their own.
    """
    people = []
    groups = _group_by_address(items)
    while groups:
        group = groups.pop(0)
        queries = [item.query for item in group]
        base = _merged_query(queries)
        own = [query for query in queries if not names_another(base, query)]
        keys = {key for query in own for key in query.keys}
        people.append((_merged_query(own), [item for item in group if not keys.isdisjoint(item.query.keys)]))
        groups += _group_by_address([item for item in group if keys.isdisjoint(item.query.keys)])
    return people


def names_another(query: ContactQuery, other: ContactQuery) -> bool:
    """Return whether two events give different names."""
    return bool(query.name and other.name and not same_name(query.name, other.name))


def _merged_query(queries: Sequence[ContactQuery]) -> ContactQuery:
    """Return the query with the most complete person, and the addresses of all of them."""
    base = max(queries, key=lambda query: (bool(query.name), bool(query.details.company)))
    return replace(
        base,
        email=base.email or next((query.email for query in queries if query.email), None),
        phone=base.phone or next((query.phone for query in queries if query.phone), None),
    )
