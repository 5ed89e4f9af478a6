"""Opt-outs in HubSpot: reads the flags of contacts, and the action that sets them.

HubSpot has a flag for email, and none for calls and text messages: for these, an administrator names a property.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from bridge.connector import (
    EMAIL_CHANNELS,
    PHONE_CHANNELS,
    Context,
    OptOutFlag,
    SetOptOutParams,
    Success,
    addresses_of,
    find_all_contacts,
    flags_by_address,
    per_event,
)
from bridge.errors import AccountError, ConfigError

from .account import BATCH_SIZE, Account
from .contact_source import Contacts
from .scopes import CONTACTS_READ, UNSUBSCRIBE
from .settings import connector

EMAIL_FLAG = "hs_email_optout"
"""HubSpot's property "Unsubscribed from all email". Only HubSpot itself writes it."""


@connector.opt_out_flags
def opt_out_flags(
    account: Account, emails: Sequence[str], phones: Sequence[str]
) -> dict[str, list[OptOutFlag]]:
    """Read the flags of all contacts with these addresses, which are current even if the search index lags."""
    do_not_call = account.settings.do_not_call_property
    if do_not_call is not None:
        try:
            account.require_boolean_property(do_not_call)
        except ConfigError as error:
            raise AccountError(str(error)) from error
    matches = find_all_contacts([Contacts(account)], emails, phones)
    flags = [OptOutFlag(EMAIL_FLAG, EMAIL_CHANNELS)]
    flags += [OptOutFlag(do_not_call, PHONE_CHANNELS)] if do_not_call else []
    ids = list(matches)
    records = [
        record
        for start in range(0, len(ids), BATCH_SIZE)
        for record in account.read(
            "contacts", ids[start : start + BATCH_SIZE], fields=[flag.field for flag in flags]
        )
    ]
    found = {
        str(record.id): [flag for flag in flags if (record.properties or {}).get(flag.field) == "true"]
        for record in records
        if str(record.id) in matches
    }
    return flags_by_address(matches, found, emails, phones)


@connector.action(idempotency=per_event, idempotent=True, needs=(CONTACTS_READ, UNSUBSCRIBE))
def set_opt_out(account: Account, params: SetOptOutParams, context: Context) -> Success:
    """Record in HubSpot that the contact opted out: unsubscribe the email address, or set the do-not-call property."""
    del context
    if params.channel == "email":
        return _unsubscribe(account, params)
    name = account.settings.do_not_call_property
    if name is None:
        return Success(
            detail="nothing to update: HubSpot has no property for opt-outs of calls and text messages; set "
            "HUBSPOT_DO_NOT_CALL_PROPERTY to a property of your account"
        )
    emails, phones = [params.email] if params.email else [], [params.phone] if params.phone else []
    matches = find_all_contacts([Contacts(account)], emails, phones)
    ids = [match.id for match in matches.values() if addresses_of(match, emails, phones)]
    if not ids:
        return params.no_contact("HubSpot has no such contact")
    account.require_boolean_property(name)
    updated = account.update("contacts", {record_id: (record_id, {name: "true"}) for record_id in ids})
    if not updated:
        return params.no_contact("the contact was deleted a moment ago")
    return Success(id=ids[0], detail=f"{name} set on {_count(len(updated))}")


def _unsubscribe(account: Account, params: SetOptOutParams) -> Success:
    """Unsubscribe an address from all email, which needs no contact. HubSpot accepts it repeatedly."""
    if params.email is None:
        return params.no_contact("the event has no email address")
    version = account.settings.api_version
    path = f"/communication-preferences/{version}/statuses/{quote(params.email, safe='')}/unsubscribe-all"
    # Without `verbose`, HubSpot's response is empty, as that of a proxy may be.
    account.call_api(f"{path}?channel=EMAIL&verbose=true", "POST")
    return Success(detail="unsubscribed from all email")


def _count(contacts: int) -> str:
    return "1 contact" if contacts == 1 else f"{contacts} contacts"
