"""What belongs to a contact in HubSpot: its owner, its primary company, its one open deal and its one open ticket."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from bridge.connector import RelatedRecords

from .account import Account
from .errors import required_scopes, status_of

_CONTACT_FIELDS = ("hubspot_owner_id", "associatedcompanyid")
_MAX_PER_CONTACT = 100
"""A contact with more deals or tickets than this is taken to have several open ones."""


def read_related(account: Account, contact_ids: Sequence[str]) -> dict[str, RelatedRecords]:
    """Return the related records of existing contacts, with one request each for contacts, deals and tickets.

    If any contact has deals or tickets, another request each reads which of these are open.
    """
    contacts = {
        str(item.id): item.properties
        for item in account.read("contacts", contact_ids, fields=_CONTACT_FIELDS)
    }
    found = [contact_id for contact_id in contact_ids if contact_id in contacts]
    if not found:
        return {}
    deals = _only_open(account, found, "deals", "hs_is_closed", _is_open_deal)
    tickets = _only_open(account, found, "tickets", "hs_pipeline_stage", partial(_is_open_ticket, account))
    return {
        contact_id: RelatedRecords(
            owner=contacts[contact_id].get("hubspot_owner_id") or "",
            company=contacts[contact_id].get("associatedcompanyid") or "",
            deal=deals.get(contact_id, ""),
            ticket=tickets.get(contact_id, ""),
        )
        for contact_id in found
    }


def _only_open(
    account: Account, contact_ids: Sequence[str], kind: str, state: str, is_open: Callable[[str], bool]
) -> dict[str, str]:
    """Return the open record of each contact that has exactly one. Empty if the key has no scope for the type."""
    if account.missing_scopes.problem(kind):
        return {}
    try:
        associated = {
            contact_id: ids
            for contact_id, ids in account.associated("contacts", contact_ids, kind).items()
            if len(ids) <= _MAX_PER_CONTACT
        }
        ids: Collection[str] = {record_id for ids in associated.values() for record_id in ids}
        records = account.read(kind, sorted(ids), fields=(state,)) if ids else []
        open_ids = {str(item.id) for item in records if is_open(item.properties.get(state) or "")}
    except Exception as error:
        if status_of(error) != 403:
            raise
        account.missing_scopes.report(kind, required_scopes(error))
        return {}
    one = {contact_id: open_ids.intersection(ids) for contact_id, ids in associated.items()}
    return {contact_id: next(iter(ids)) for contact_id, ids in one.items() if len(ids) == 1}


def _is_open_deal(is_closed: str) -> bool:
    return is_closed != "true"


def _is_open_ticket(account: Account, stage: str) -> bool:
    return stage not in account.ticket_stages.closed()
