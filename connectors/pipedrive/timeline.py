"""Activities of calls and chats: the links of each to a person, an organization, a deal and an owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from bridge.connector import (
    CONTACT_OWNER,
    ContactDeleted,
    ContactQuery,
    ContactRef,
    Context,
    ConversationParams,
    RelatedRecords,
    Success,
    forget_related_records,
    param,
    read_related_records,
    write_for_contact,
)
from bridge.errors import DeliveryError, PermanentError

from .account import Account, Record, rfc_3339
from .notes import reference_in, to_note
from .owners import OWNER, find_owner
from .persons import NewOrganization, Persons, owner_and_organization
from .writing import to_request

_LOOK_BACK = timedelta(minutes=5)
"""How far before the first attempt a lookup begins, because clocks differ."""


class DraftParams(ConversationParams):
    """Params of a call and of a chat."""

    owner: str | None = OWNER
    deal: str | None = param(
        "{{ event.metadata.dealId }}",
        "ID of the deal that the activity belongs to. Default: the event's, else the person's only open deal.",
        example="88",
    )
    on_missing: Literal["create", "skip"] = param(
        "create", "If Pipedrive has no such person: `create` one, or `skip` logging.", example="skip"
    )
    organization: NewOrganization = param(
        "link",
        "The company of a person: `link` the organization of this name, or `create` it if there is none.",
        example="create",
    )
    transcript: str | None = param(
        None,
        "Transcript, at the end of the note. One of more than about 60,000 characters is cut. Default: none; Heppu's "
        "is `{{ details.transcript }}`.",
        example="Agent: Good morning.",
    )


@dataclass(frozen=True)
class Draft:
    """What an activity has besides its note and links."""

    fields: Mapping[str, str | None]
    notes: list[str]
    """Notes for the result's detail."""
    recording: str | None = None


def log(account: Account, params: DraftParams, context: Context, draft: Draft) -> Success:
    """Write the activity of a conversation: one request if the person is known and was active in the last hour."""
    persons = Persons(account, context.now, params.organization)
    query, owner_notes = query_with_owner(account, persons_query(params, context), params.owner)

    def write(contacts: Mapping[str, ContactRef | None]) -> dict[str, Success | DeliveryError]:
        [(key, contact)] = contacts.items()
        return {
            key: _write(
                account, persons, params, context, replace(draft, notes=draft.notes + owner_notes), contact
            )
        }

    return write_for_contact(persons, context.conversation_key, query, write)


def persons_query(params: DraftParams, context: Context) -> ContactQuery:
    """Return the query that finds the person of a conversation."""
    return params.contact_query(context, create=params.on_missing == "create")


def query_with_owner(
    account: Account, query: ContactQuery, owner: str | None
) -> tuple[ContactQuery, list[str]]:
    """Return the query with an owner for the person that it may create, and a note if there is no such user."""
    if owner in (None, CONTACT_OWNER):
        return query, []
    found = find_owner(account, str(owner))
    if found.id is None:
        return query, [f"without the owner: {found.problem}"]
    if not query.create or "owner_id" in query.new_fields:
        return query, []
    return replace(query, new_fields={**query.new_fields, "owner_id": found.id}), []


def related_to(
    account: Account, persons: Persons, context: Context, contact: ContactRef | None
) -> RelatedRecords:
    """Return what belongs to a person, which is read at most once an hour. A new person has no deals."""
    if contact is None:
        return RelatedRecords()
    if contact.created:
        return persons.created(contact.id)

    def read(ids: object) -> dict[str, RelatedRecords]:
        del ids
        person = persons.person(contact.id)
        if person is None:
            return {}
        deals = [*account.list_all("deal", person_id=contact.id, status="open", limit=100)]
        own = owner_and_organization(person)
        return {contact.id: replace(own, deal=str(deals[0]["id"]) if len(deals) == 1 else "")}

    return read_related_records({"": context}, {"": contact.id}, read)[""]


def find_activity(account: Account, params: DraftParams, context: Context) -> Success | None:
    """Return the activity with the reference of this delivery. None: there is none, or it is to be updated again.

    The activities of the person come first; if the person was merged meanwhile, or is not known, all of them.
    """
    if context.existing_id is not None:
        return None  # updating it again changes nothing
    return _find(account, persons_query(params, context), context)


def _find(account: Account, query: ContactQuery, context: Context) -> Success | None:
    cached = context.contact_cache.get(query.keys)
    person_ids = {record_id for record_id in cached.values() if record_id}
    since = rfc_3339(min(context.first_attempt_at, context.now) - _LOOK_BACK)
    for filters in (*({"person_id": person_id} for person_id in sorted(person_ids)), {}):
        for activity in account.list_all("activity", updated_since=since, **filters):
            if reference_in(activity.get("note")) == context.idempotency_token:
                return Success(id=str(activity["id"]), detail="found by its reference")
    return None


def _write(
    account: Account,
    persons: Persons,
    params: DraftParams,
    context: Context,
    draft: Draft,
    contact: ContactRef | None,
) -> Success | ContactDeleted:
    notes = list(draft.notes)
    if contact is None and params.on_missing == "skip" and context.existing_id is None:
        has_address = bool(params.contact_query(context, create=False).keys)
        return Success(detail="not logged: Pipedrive has no such person" if has_address else "not logged")
    note, is_whole = to_note(
        lambda size: params.body_text(context, contact, size),
        (params.transcript or "").strip(),
        draft.recording,
        context.idempotency_token,
    )
    if not is_whole:
        notes.append("the transcript was cut, because it is too long for a note in Pipedrive")
    own, field_notes = to_request(account, "activity", params.additional_fields(context))
    notes += field_notes
    standard = {name: value for name, value in draft.fields.items() if value is not None}
    body: Record = own | standard | {"done": True, "note": note}
    if context.existing_id is not None:
        existing = account.update("activity", context.existing_id, body)
        if existing is None:  # deleted by a user; an attempt before this one may have replaced it
            existing = _replacement(account, params, context, body)
            notes.append("the activity had been deleted in Pipedrive")
        if existing is not None:
            return Success(id=str(existing["id"]), detail="; ".join(notes))
    links, link_notes = _links(account, persons, params, context, contact)
    return _create(account, persons, context, body, links, contact, [*notes, *link_notes])


def _replacement(account: Account, params: DraftParams, context: Context, body: Record) -> Record | None:
    found = _find(account, persons_query(params, context), context)
    return account.update("activity", str(found.id), body) if found else None


def _links(
    account: Account, persons: Persons, params: DraftParams, context: Context, contact: ContactRef | None
) -> tuple[Record, list[str]]:
    """Return the organization, deal and owner of a new activity."""
    related = related_to(account, persons, context, contact)
    notes = []
    deal = params.deal or related.deal
    if deal and not deal.isdecimal():
        notes.append("without the deal: its ID is not one of Pipedrive")
        deal = related.deal
    owner = related.owner if params.owner == CONTACT_OWNER else None
    if params.owner not in (None, CONTACT_OWNER):
        owner = str(find_owner(account, str(params.owner)).id or "")
    named = {"org_id": related.company, "deal_id": deal, "owner_id": owner}
    return {name: int(value) for name, value in named.items() if value}, notes


def _create(
    account: Account,
    persons: Persons,
    context: Context,
    body: Record,
    links: Record,
    contact: ContactRef | None,
    notes: list[str],
) -> Success | ContactDeleted:
    """Create the activity. If Pipedrive refuses it, the cause may be a link to a record that was deleted meanwhile."""
    person = {"participants": [{"person_id": int(contact.id), "primary": True}]} if contact else {}
    try:
        created = account.create("activity", body | person | links)
    except PermanentError as error:
        if contact and persons.is_gone(contact.id):
            return ContactDeleted()
        if not links:
            raise
        created = account.create("activity", body | person)
        if contact:
            forget_related_records(context.contact_cache, [contact.id])
        names = ", ".join(
            {"org_id": "organization", "deal_id": "deal", "owner_id": "owner"}[name] for name in links
        )
        notes = [*notes, f"without its {names}, of which Pipedrive refused one ({error.code})"]
    return Success(id=str(created["id"]), detail="; ".join(notes))
