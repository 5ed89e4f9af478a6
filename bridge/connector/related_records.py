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

RELATED_RECORDS_TTL = timedelta(hours=1)


@dataclass(frozen=True)
class RelatedRecords:
    """IDs of the records that belong to a contact. Empty: none, or more than one that it could be."""

    owner: str = ""
    """The owner of the contact, as an ID that the CRM accepts as the owner of another record."""
    company: str = ""
    """The primary company (Salesforce: the account)."""
    deal: str = ""
    """The only open deal (Salesforce: opportunity)."""
    ticket: str = ""
    """The only open ticket (Salesforce: case)."""


ReadRelated = Callable[[Sequence[str]], Mapping[str, RelatedRecords]]
"""Reads the related records of contacts by ID. A contact that it leaves out is not cached and has none."""


def read_related_records(
    cache: ContactCache, contact_ids: Iterable[str], read: ReadRelated
) -> dict[str, RelatedRecords]:
    """Return the related records of each contact: from the cache, the others with one call of `read`."""
    ids = list(dict.fromkeys(contact_ids))
    if not ids:
        return {}
    cached = cache.get([related_records_key(contact_id) for contact_id in ids])
    related = {
        contact_id: RelatedRecords(**json.loads(value))
        for contact_id in ids
        if (value := cached.get(related_records_key(contact_id)))
    }
    if unread := [contact_id for contact_id in ids if contact_id not in related]:
        new = read(unread)
        cache.remember(
            {related_records_key(contact_id): _to_json(item) for contact_id, item in new.items()},
            RELATED_RECORDS_TTL,
        )
        related |= new
    return {contact_id: related.get(contact_id, RelatedRecords()) for contact_id in ids}


def forget_related_records(cache: ContactCache, contact_ids: Iterable[str]) -> None:
    """Remove the related records of contacts from the cache: the CRM has refused one of them."""
    cache.forget([related_records_key(contact_id) for contact_id in contact_ids])


def related_records_key(contact_id: str) -> str:
    """Return the key of a contact's related records in the contact cache."""
    return f"related:{contact_id}"


def _to_json(related: RelatedRecords) -> str:
    return json.dumps({name: value for name, value in asdict(related).items() if value})
