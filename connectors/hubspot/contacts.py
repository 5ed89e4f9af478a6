"""Actions that write contacts."""

from __future__ import annotations

from bridge.connector import (
    ContactParams,
    Context,
    Success,
    contact_result,
    fields_to_write,
    param,
    per_event,
)

from .account import Account
from .contact_source import Contacts
from .fields import to_strings
from .settings import connector


class WriteContactParams(ContactParams):
    """A contact and the fields to write. Values from the event fill empty fields only."""

    company: str | None = param(
        "{{ contact.company }}", "Company name. Written only if empty in HubSpot.", example="Lindqvist Cycles"
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def upsert_contact(account: Account, params: WriteContactParams, context: Context) -> Success:
    """Update the contact, or create it if HubSpot has no such contact."""
    return _write_contact(account, params, context, create=True)


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def update_contact(account: Account, params: WriteContactParams, context: Context) -> Success:
    """Update the contact. Fail if HubSpot has no such contact."""
    return _write_contact(account, params, context, create=False)


def _write_contact(
    account: Account, params: WriteContactParams, context: Context, *, create: bool
) -> Success:
    fields = params.contact_fields(
        email=params.email,
        phone=params.phone,
        firstname=params.first_name,
        lastname=params.last_name,
        company=params.company,
    )
    contact, current = Contacts(account, fields).resolve(params.contact_query(context, create=create))
    changes = to_strings(fields_to_write(fields, current)) if current is not None else {}
    if changes:
        account.objects.update("contacts", contact.id, {"properties": changes})
    return contact_result(contact, changes)
