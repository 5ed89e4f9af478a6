"""What else in a CRM belongs to a contact: its owner, its company, its one open deal and its one open ticket.

A connector reads this for a whole batch, and it is cached for an hour: a contact that calls twice costs no second
request, and a new deal or owner is noticed soon.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

from bridge.connector.context import ContactCache, Context

RELATED_RECORDS_TTL = timedelta(hours=1)
_OWN_RECORD_TTL = timedelta(days=1)


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
    contexts: Mapping[str, Context], contact_ids: Mapping[str, str | None], read: ReadRelated
) -> dict[str, RelatedRecords]:
    """Return what each delivery's record is related to, by its key: what belongs to the contact.

    It comes from the cache, or for all other contacts together from one call of `read`. A ticket or deal that the
    bridge has created for the conversation itself comes before the contact's only open one.
    """
    if not contexts:
        return {}
    cache = next(iter(contexts.values())).contact_cache
    ids = [contact_id for contact_id in dict.fromkeys(contact_ids.values()) if contact_id]
    tickets = {key: _own_key("ticket", context) for key, context in contexts.items()}
    deals = {key: _own_key("deal", context) for key, context in contexts.items()}
    cached = cache.get([*map(related_records_key, ids), *tickets.values(), *deals.values()])
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
    found = {key: related.get(contact_ids.get(key) or "", RelatedRecords()) for key in contexts}
    return {
        key: replace(
            item,
            ticket=cached.get(tickets[key]) or item.ticket,
            deal=cached.get(deals[key]) or item.deal,
        )
        for key, item in found.items()
    }


def remember_own_ticket(context: Context, ticket_id: str) -> None:
    """Remember the ticket that was created for a conversation, so that its call, note and messages are on it."""
    context.contact_cache.remember({_own_key("ticket", context): ticket_id}, _OWN_RECORD_TTL)


def remember_own_deal(context: Context, deal_id: str) -> None:
    """Remember the deal that was created for a conversation, in the same way."""
    context.contact_cache.remember({_own_key("deal", context): deal_id}, _OWN_RECORD_TTL)


def forget_related_records(cache: ContactCache, contact_ids: Iterable[str]) -> None:
    """Remove the related records of contacts from the cache: the CRM has refused one of them, or has a new one."""
    cache.forget([related_records_key(contact_id) for contact_id in contact_ids])


def related_records_key(contact_id: str) -> str:
    """Return the key of a contact's related records in the contact cache."""
    return f"related:{contact_id}"


def _own_key(kind: str, context: Context) -> str:
    return f"{kind}:{context.conversation_key}"


def _to_json(related: RelatedRecords) -> str:
    return json.dumps({name: value for name, value in asdict(related).items() if value})
