"""Action that writes persons."""

from __future__ import annotations

from dataclasses import replace

from bridge.connector import (
    ContactParams,
    Context,
    Properties,
    Success,
    contact_result,
    details_to_fill,
    fields_to_write,
    param,
    per_event,
    resolve_contact,
)
from bridge.errors import PermanentError, TransientError

from .account import Account
from .params import PersonParams
from .persons import Persons, match_of
from .settings import connector
from .timeline import query_with_owner
from .writing import to_fill, to_request


class UpsertPersonParams(PersonParams, ContactParams):
    """A person and the fields to write. Values from the event fill empty fields only."""

    company: str | None = param(
        "{{ contact.company }}",
        "Company name. Linked as an organization if the person has none.",
        example="Lindqvist Cycles",
    )
    properties: Properties = param(
        {},
        "Additional fields of the person, by name or key: `field: value`, or `field: {value: ..., mode: fill}`.",
        example={"Plan": {"value": "Gold", "mode": "fill"}},
    )
    owner: str | None = param(
        None,
        "Owner of a person that this action creates: a user's email address or ID. Default: the token's user.",
        example="ana@example.com",
        pattern=r"^([^@\s]+@[^@\s]+|\d+)$",
        must_be="a user's email address or ID",
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def upsert_person(account: Account, params: UpsertPersonParams, context: Context) -> Success:
    """Update the person, or create one if Pipedrive has no such person."""
    query = params.person_query(context)
    details = replace(
        query.details,
        first_name=params.first_name or (None if params.last_name else query.details.first_name),
        last_name=params.last_name,
        company=params.company,
    )
    persons = Persons(account, context.now, params.organization, details)
    query, notes = query_with_owner(account, query, params.owner)
    query = replace(query, new_fields=fields_to_write(params.properties, None) | query.new_fields)
    try:
        contact, current = resolve_contact(persons, query, persons.person)
    except PermanentError as error:
        if params.on_missing == "create" or error.code != "not_found":
            raise
        return Success(detail=f"not updated: {error.detail}")
    if current is None:
        return contact_result(contact, (), notes)
    person = dict(current)
    body, own_notes = to_request(account, "person", to_fill(account, "person", params.properties, person))
    notes += own_notes
    if not contact.given_name:  # another person gets none of this one's values
        added, missing = persons.changes(person, details_to_fill(match_of(person), details))
        body, notes = added | body, notes + missing
    if body and account.update("person", contact.id, body) is None:
        query.forget()
        raise TransientError("the person was deleted in Pipedrive a moment ago")
    return contact_result(contact, body, notes)
