"""Actions that write contacts."""

from __future__ import annotations

from bridge.connector import (
    ON_MISSING,
    ContactParams,
    Context,
    NewContactParams,
    OnMissing,
    Success,
    contact_result,
    fields_to_write,
    param,
    per_event,
    refusal_notes,
)
from bridge.errors import PermanentError

from .account import Account
from .contact_source import Contacts, fit_contact, refused_fields
from .lenient_writes import CONTACT_PROPERTIES, WriteOutcome, refused_values
from .records import OWNER_PROPERTY
from .scopes import CONTACTS
from .settings import connector


class WriteContactParams(ContactParams):
    """A contact and the fields to write. Values from the event fill empty fields only."""

    company: str | None = param(
        "{{ contact.company }}", "Company name. Written only if empty in HubSpot.", example="Lindqvist Cycles"
    )


class UpsertContactParams(WriteContactParams, NewContactParams):
    """A contact to update or create."""


class UpdateContactParams(WriteContactParams):
    """A contact to update."""

    on_missing: OnMissing = ON_MISSING


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True, needs=CONTACTS)
def upsert_contact(account: Account, params: UpsertContactParams, context: Context) -> Success:
    """Update the contact, or create it if HubSpot has no such contact."""
    return _write_contact(account, params, context, create=True)


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True, needs=CONTACTS)
def update_contact(account: Account, params: UpdateContactParams, context: Context) -> Success:
    """Update the contact. If HubSpot has no such contact, nothing is written."""
    try:
        return _write_contact(account, params, context, create=False)
    except PermanentError as error:
        if params.on_missing == "error" or error.code != "not_found":
            raise
        return Success(detail=f"not updated: {error.detail}")


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
    contacts = Contacts(account, fields)
    contact, current = contacts.resolve(params.contact_query(context, create=create))
    if current is None:
        return contact_result(contact, ())
    # The contact of another person gets none of this person's values.
    fitted = fit_contact(
        account, fields_to_write(params.properties if contact.given_name else fields, current), context
    )
    outcome = contacts.update(contact.id, fitted.values) if fitted.values else WriteOutcome()
    if outcome.error is not None:
        raise outcome.error
    of_rule = params.properties.keys() - CONTACT_PROPERTIES - {OWNER_PROPERTY}
    notes = [
        *refusal_notes(refused_fields(outcome)),
        *fitted.notes,
        *refused_values(outcome.refused, of_rule),
    ]
    if code := outcome.refused.get(OWNER_PROPERTY):
        if outcome.id is None:
            raise PermanentError(
                f"HubSpot refused the owner, and there is nothing else to write ({code})", code=code
            )
        notes.append(f"without the owner, which HubSpot refused ({code})")
    if outcome.existing_id:
        context.report_duplicate(contact.id, outcome.existing_id)
        notes.append(f"possible duplicate: the email belongs to record {outcome.existing_id}")
    return contact_result(contact, fitted.values.keys() - outcome.refused.keys(), notes)
