"""Actions that write contacts and leads."""

from __future__ import annotations

from bridge.connector import (
    ContactLookupParams,
    ContactParams,
    ContactRef,
    Context,
    Properties,
    Property,
    Success,
    fields_to_write,
    param,
    per_event,
    resolve_contact,
)
from bridge.errors import PermanentError

from .contact_source import Contacts, read_contact, update_contact_record
from .org import Org
from .settings import ID_PATTERN, connector


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
    return update_contact_record(org, contact, fields_to_write(fields, current))


class UpdateLeadParams(ContactLookupParams):
    """An open lead and the fields to write."""

    lead: str | None = param(
        "{{ event.metadata.leadId }}",
        "Lead ID. Default: the open lead with the contact's email or phone.",
        example="00Q5g000009xYzA",
        pattern=ID_PATTERN,
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
    return update_contact_record(org, lead, fields_to_write(fields, row))
