"""Actions that write contacts and leads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.connector import (
    ContactLookupParams,
    ContactParams,
    ContactRef,
    Context,
    Properties,
    Property,
    Success,
    contact_result,
    fields_to_write,
    param,
    per_event,
    refusal_notes,
    resolve_contact,
)
from bridge.errors import PermanentError

from .contact_source import Contacts, object_type_of, read_contact
from .lenient_writes import update_leniently
from .org import Org
from .settings import ID_PATTERN, connector
from .soql import require_id


class UpsertContactParams(ContactParams):
    """A contact or lead and the fields to write. Values from the event fill empty fields only."""


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def upsert_contact(org: Org, params: UpsertContactParams, context: Context) -> Success:
    """Update the contact or open lead, or create a contact if Salesforce has neither."""
    fields = params.contact_fields(
        FirstName=params.first_name, LastName=params.last_name, Email=params.email, Phone=params.phone
    )
    query = params.contact_query(context, create=True)
    contacts = Contacts(org, properties=params.properties)
    contact, row = resolve_contact(contacts, query, lambda record_id: read_contact(org, record_id, fields))
    if row is None:
        return Success(id=contact.id, detail=contact.detail)
    # The bridge wrote the address as the last name if the name was not known.
    is_placeholder = row["LastName"] in (params.phone, params.email)
    current = {**row, "LastName": None} if is_placeholder else row
    # The contact of another person gets none of this person's values.
    changes = fields_to_write(params.properties if contact.given_name else fields, current)
    return _update(org, contact, changes, context)


class UpdateLeadParams(ContactLookupParams):
    """An open lead and the fields to write."""

    lead: str | None = param(
        "{{ event.metadata.leadId }}",
        "Lead ID. Default: the open lead with the contact's email or phone.",
        example="00Q5g000009xYzA",
        pattern=ID_PATTERN,
        must_be="a Salesforce lead ID (15 or 18 letters and digits)",
    )
    status: str | None = param(None, "New lead status.", example="Working - Contacted")
    properties: Properties = param(
        {}, "Additional fields of the lead.", example={"Rating": {"value": "Warm", "mode": "fill"}}
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def update_lead(org: Org, params: UpdateLeadParams, context: Context) -> Success:
    """Update the contact's open lead. A converted lead is never changed."""
    fields = {"Status": Property(value=params.status)} | params.properties
    if params.lead:
        lead, row = ContactRef(params.lead), read_contact(org, params.lead, fields)
    else:
        query = params.contact_query(context, create=False, scope="lead:")
        leads = Contacts(org, object_types=("Lead",), create_as="Lead")
        lead, row = resolve_contact(leads, query, lambda record_id: read_contact(org, record_id, fields))
    if row is None:
        raise PermanentError(
            "Salesforce has no open lead with this ID: check the param `lead`", code="not_found"
        )
    return _update(org, lead, fields_to_write(fields, row), context)


def _update(org: Org, contact: ContactRef, changes: Mapping[str, Any], context: Context) -> Success:
    """Write the changes to a contact or lead, without what Salesforce refuses."""
    if not changes:
        return contact_result(contact, changes)
    record_id = require_id(contact.id)
    outcome = update_leniently(org, {record_id: (object_type_of(record_id), changes)})[record_id]
    if outcome.error is not None:
        raise outcome.error
    notes = refusal_notes(outcome.refused)
    if outcome.existing_id:
        context.report_duplicate(record_id, outcome.existing_id)
        notes.append(f"possible duplicate: the address belongs to record {outcome.existing_id} as well")
    return contact_result(contact, changes, notes)
