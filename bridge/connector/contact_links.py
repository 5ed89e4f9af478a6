"""What else in a CRM belongs to a contact: its owner, its company, its one open deal and its one open ticket.

A connector reads this for a whole batch, and it is cached for an hour: a contact that calls twice costs no second
request, and a new deal or owner is noticed soon.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from bridge.connector.context import ContactCache

LINKS_TTL = timedelta(hours=1)


@dataclass(frozen=True)
class ContactLinks:
    """IDs of the records that belong to a contact. Empty: none, or more than one that it could be."""

    owner: str = ""
    """The owner of the contact, as an ID that the CRM accepts as the owner of another record."""
    company: str = ""
    """The primary company (Salesforce: the account)."""
    deal: str = ""
    """The only open deal (Salesforce: opportunity)."""
    ticket: str = ""
    """The only open ticket (Salesforce: case)."""


ReadLinks = Callable[[Sequence[str]], Mapping[str, ContactLinks]]
"""Reads the links of contacts by ID. A contact that it leaves out is not cached and has no links."""


def read_contact_links(
    cache: ContactCache, contact_ids: Iterable[str], read: ReadLinks
) -> dict[str, ContactLinks]:
    """Return the links of each contact: from the cache, the others with one call of `read`."""
    ids = list(dict.fromkeys(contact_ids))
    if not ids:
        return {}
    cached = cache.get([links_key(contact_id) for contact_id in ids])
    links = {
        contact_id: ContactLinks(**json.loads(value))
        for contact_id in ids
        if (value := cached.get(links_key(contact_id)))
    }
    if unread := [contact_id for contact_id in ids if contact_id not in links]:
        new = read(unread)
        cache.remember({links_key(contact_id): _to_json(item) for contact_id, item in new.items()}, LINKS_TTL)
        links |= new
    return {contact_id: links.get(contact_id, ContactLinks()) for contact_id in ids}


def forget_contact_links(cache: ContactCache, contact_ids: Iterable[str]) -> None:
    """Remove the links of contacts from the cache: the CRM has refused one of them."""
    cache.forget([links_key(contact_id) for contact_id in contact_ids])


def links_key(contact_id: str) -> str:
    """Return the key of a contact's links in the contact cache."""
    return f"links:{contact_id}"


def _to_json(links: ContactLinks) -> str:
    return json.dumps({name: value for name, value in asdict(links).items() if value})
