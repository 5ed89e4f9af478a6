"""Actions that write contacts and leads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from bridge.connector import (
    ON_MISSING,
    ContactLookupParams,
    ContactParams,
    ContactQuery,
    ContactRef,
    Context,
    OnMissing,
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
from .field_values import typed_properties
from .lenient_writes import update_leniently
from .new_records import NO_COMPANY, NewRecordParams, types_to_create
from .org import Org
from .permissions import UPDATE_LEADS, WRITE_PEOPLE
from .settings import ID_PATTERN, connector
from .soql import require_id


class UpsertContactParams(ContactParams, NewRecordParams):
    """A contact or lead and the fields to write. Values from the event fill empty fields only."""

    properties: Properties = param(
        {},
        "Additional fields of the contact or lead: `field: value`, or `field: {value: ..., mode: fill}`. Fields that "
        "only the other of the two has are left out.",
        example={"Title": {"value": "Buyer", "mode": "fill"}},
    )
    owner: str | None = param(
        None,
        "Owner of a lead or contact that this action creates: a user's email address, username or ID, or a queue's ID. "
        "Default: the org's assignment rules choose the owner of a lead, and a contact belongs to the account's owner.",
        example="ana@example.com",
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True, needs=WRITE_PEOPLE)
def upsert_contact(org: Org, params: UpsertContactParams, context: Context) -> Success:
    """Update the contact or open lead, or create a lead or contact if Salesforce has neither."""
    own_fields = {
        "FirstName": params.first_name,
        "LastName": params.last_name,
        "Email": params.email,
        "Phone": params.phone,
    }

    def read(record_id: str) -> Mapping[str, Any] | None:
        object_type = object_type_of(record_id)
        properties, _ = typed_properties(org, object_type, params.properties, "updateable", context)
        company = ["Company"] if object_type == "Lead" else []
        return read_contact(org, record_id, list(dict.fromkeys([*own_fields, *company, *properties])))

    query = params.new_record_query(org, context, params.owner)
    query = replace(query, new_fields={**fields_to_write(params.properties, None), **query.new_fields})
    found = _find(
        Contacts(org, create_as=types_to_create([query])), query, read, skip=params.on_missing == "skip"
    )
    if found is None:
        return Success(detail="Salesforce has no such contact or lead")
    contact, row = found
    if row is None:
        return Success(id=contact.id, detail=contact.detail)
    # What the bridge wrote because the name or company was not known counts as empty.
    placeholders = {"LastName": (params.phone, params.email), "Company": (NO_COMPANY,)}
    current = {name: None if value in placeholders.get(name, ()) else value for name, value in row.items()}
    if "Company" in row:
        own_fields["Company"] = context.contact.company
    object_type = object_type_of(contact.id)
    properties, notes = typed_properties(org, object_type, params.properties, "updateable", context)
    # The contact of another person gets none of this person's values.
    fill = {} if contact.given_name else own_fields
    fields = {name: Property(value=value, mode="fill") for name, value in fill.items()} | properties
    return _update(org, contact, fields_to_write(fields, current), context, notes, properties)


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
    on_missing: OnMissing = ON_MISSING


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True, needs=UPDATE_LEADS)
def update_lead(org: Org, params: UpdateLeadParams, context: Context) -> Success:
    """Update the contact's open lead. A converted lead is never changed."""
    # A wrong name of a field is an error, although only a contact may have it.
    properties, notes = typed_properties(org, "Lead", params.properties, "updateable", context)
    status = {"Status": Property(value=params.status)} if params.status else {}
    fields = properties | status

    def read(record_id: str) -> Mapping[str, Any] | None:
        return read_contact(org, record_id, fields)

    found: _Found | None
    if params.lead:
        row = read(params.lead)
        found = (ContactRef(params.lead), row) if row is not None else None
    else:
        query = params.contact_query(context, create=False, scope="lead:")
        found = _find(Contacts(org, object_types=("Lead",)), query, read, skip=True)
    if found is None:
        detail = "Salesforce has no open lead " + (
            "with this ID" if params.lead else "with this email or phone"
        )
        if params.on_missing == "error":
            raise PermanentError(detail, code="not_found")
        return Success(id=params.lead, detail=detail)
    lead, current = found
    return _update(org, lead, fields_to_write(fields, current), context, notes, properties)


_Found = tuple[ContactRef, Mapping[str, Any] | None]
"""A contact or lead, and its fields; None for one that was just created."""


def _find(
    source: Contacts, query: ContactQuery, read: Callable[[str], Mapping[str, Any] | None], *, skip: bool
) -> _Found | None:
    """Return the contact or lead, or None with `skip` if there is none. Raise PermanentError otherwise."""
    try:
        return resolve_contact(source, query, read)
    except PermanentError as error:
        if skip and error.code == "not_found":
            return None
        raise


def _update(
    org: Org,
    contact: ContactRef,
    changes: Mapping[str, Any],
    context: Context,
    notes: list[str],
    of_rule: Collection[str],
) -> Success:
    """Write the changes to a contact or lead, without what Salesforce refuses. `notes` are about what is missing."""
    if not changes:
        return contact_result(contact, changes, notes)
    record_id = require_id(contact.id)
    outcome = update_leniently(org, {record_id: (object_type_of(record_id), changes)}, of_rule)[record_id]
    if outcome.error is not None:
        raise outcome.error
    notes = [*notes, *outcome.notes, *refusal_notes(outcome.refused)]
    changes = changes if outcome.id is not None else {}
    if outcome.existing_id:
        context.report_duplicate(record_id, outcome.existing_id)
        notes.append(f"possible duplicate: the address belongs to record {outcome.existing_id} as well")
    return contact_result(contact, changes, notes)
