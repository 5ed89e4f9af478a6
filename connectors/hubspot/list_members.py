"""Action that adds contacts to a static list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from bridge.connector import (
    ON_MISSING,
    BatchItem,
    BatchResult,
    ContactDeleted,
    ContactLookupParams,
    ContactRef,
    OnMissing,
    Success,
    param,
    per_event,
    write_for_contacts,
)
from bridge.errors import DeliveryError, PermanentError

from .account import BATCH_SIZE, Account
from .contact_source import Contacts
from .scopes import CONTACTS_READ, LISTS_READ, LISTS_WRITE
from .settings import connector

Items = Mapping[str, BatchItem["AddToListParams"]]


class AddToListParams(ContactLookupParams):
    """A contact to add to a list."""

    list: str = param(
        ...,
        "Name or ID of a static list (segment) of contacts. HubSpot fills an active list itself.",
        example="Test ride interest",
        max_length=255,
    )
    on_missing: OnMissing = ON_MISSING


@connector.action(
    idempotency=per_event,
    dedupe_by="list",
    idempotent=True,
    batch=BATCH_SIZE,
    needs=(CONTACTS_READ, LISTS_READ, LISTS_WRITE),
)
def add_to_list(account: Account, items: Sequence[BatchItem[AddToListParams]]) -> list[BatchResult]:
    """Add the contact to a static list. A contact that is a member already stays one."""
    by_key = {item.context.idempotency_token: item for item in items}
    results: dict[str, BatchResult] = {}
    by_list: dict[str, dict[str, BatchItem[AddToListParams]]] = {}
    for key, item in by_key.items():
        lookup = account.lists.resolve(item.params.list)
        if lookup.id:
            by_list.setdefault(lookup.id, {})[key] = item
        else:
            results[key] = PermanentError(lookup.problem, code="no_list")
    for list_id, chosen in by_list.items():
        queries = {key: item.params.contact_query(item.context, create=False) for key, item in chosen.items()}
        results |= write_for_contacts(Contacts(account), queries, partial(_add, account, list_id, chosen))
    return [results[key] for key in by_key]


def _add(
    account: Account, list_id: str, items: Items, contacts: Mapping[str, ContactRef | None]
) -> dict[str, Success | DeliveryError]:
    """Add the contacts of one list with one request, and return the result of each."""
    ids = list(dict.fromkeys(contact.id for contact in contacts.values() if contact))
    answer = account.lists.add(list_id, ids) if ids else {}
    new = {str(item) for item in answer.get("recordsIdsAdded") or ()}
    deleted = {str(item) for item in answer.get("recordIdsMissing") or ()}
    results: dict[str, Success | DeliveryError] = {}
    for key, contact in contacts.items():
        if contact is None:
            results[key] = _without_contact(items[key].params)
        elif contact.id in deleted:
            results[key] = ContactDeleted()
        else:
            results[key] = Success(contact.id, "added" if contact.id in new else "was a member already")
    return results


def _without_contact(params: AddToListParams) -> Success | DeliveryError:
    detail = "HubSpot has no such contact"
    if params.on_missing == "error":
        return PermanentError(detail, code="not_found")
    return Success(detail=f"not added: {detail}" if params.email or params.phone else "not added")
