"""Activities of calls and chats: the links of each to a person, an organization, a deal and an owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from bridge.connector import (
    CONTACT_OWNER,
    BatchItem,
    BatchResult,
    ContactDeleted,
    ContactQuery,
    ContactRef,
    Context,
    ConversationParams,
    RelatedRecords,
    Success,
    forget_related_records,
    items_by_conversation,
    param,
    read_related_records,
    write_for_contacts,
)
from bridge.errors import (
    AccountError,
    DeliveryError,
    LookupInconclusive,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)

from .account import Account, Record, rfc_3339
from .notes import reference_in, to_note
from .owners import OWNER, find_owner
from .params import NewOrganization, PersonParams
from .persons import Persons, owner_and_organization
from .writing import to_request

_LINK_NAMES = {"org_id": "organization", "deal_id": "deal", "owner_id": "owner"}
_LOOK_BACK = timedelta(minutes=5)
"""How far before the first attempt a lookup begins, because clocks differ."""


class DraftParams(PersonParams, ConversationParams):
    """Params of a call and of a chat."""

    owner: str | None = OWNER
    deal: str | None = param(
        "{{ event.metadata.dealId }}",
        "ID of the deal that the activity belongs to. Default: the event's, else the person's only open deal.",
        example="88",
    )
    transcript: str | None = param(
        None,
        "Transcript, at the end of the note. One of more than about 60,000 characters is cut. Default: none; Heppu's "
        "is `{{ details.transcript }}`.",
        example="Agent: Good morning.",
    )


@dataclass(frozen=True)
class Draft:
    """What the activity of one delivery has besides its note and links."""

    fields: Mapping[str, str | None]
    notes: list[str]
    """Notes for the result's detail."""
    recording: str | None = None


P = TypeVar("P", bound=DraftParams)


def log(
    account: Account, items: Sequence[BatchItem[P]], draft: Callable[[P, Context], Draft]
) -> list[BatchResult]:
    """Write the activity of each conversation: one request if the person is known and was active in the last hour.

    Pipedrive takes one activity per request. The batch serves the persons, who are looked for and read together.
    """
    by_key = items_by_conversation(items)
    results: dict[str, BatchResult] = {}
    for policy in dict.fromkeys(item.params.organization for item in items):
        group = {key: item for key, item in by_key.items() if item.params.organization == policy}
        results |= _log_group(account, policy, group, draft)
    return [results[key] for key in by_key]


def _log_group(
    account: Account,
    policy: NewOrganization,
    group: Mapping[str, BatchItem[P]],
    draft: Callable[[P, Context], Draft],
) -> dict[str, BatchResult]:
    contexts = {key: item.context for key, item in group.items()}
    persons = Persons(account, next(iter(contexts.values())).now, policy)
    queries: dict[str, ContactQuery] = {}
    drafts: dict[str, Draft] = {}
    for key, item in group.items():
        made = draft(item.params, item.context)
        query = item.params.person_query(item.context)
        queries[key], notes = query_with_owner(account, query, item.params.owner)
        drafts[key] = replace(made, notes=made.notes + notes)

    def write(contacts: Mapping[str, ContactRef | None]) -> dict[str, Success | DeliveryError]:
        new = {key: contexts[key] for key in contacts if contexts[key].existing_id is None}
        related = related_records(account, persons, new, contacts)
        results: dict[str, Success | DeliveryError] = {}
        stopped: DeliveryError | None = None
        for key, contact in contacts.items():
            activity = _Activity(account, persons, group[key].params, contexts[key], drafts[key], contact)
            results[key] = stopped or _result_of(activity, related.get(key, RelatedRecords()))
            if isinstance(results[key], AccountError | RateLimited | QuotaExhausted):
                stopped = results[key]  # type: ignore[assignment]
        return results

    return write_for_contacts(persons, queries, write)


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


def related_records(
    account: Account,
    persons: Persons,
    contexts: Mapping[str, Context],
    contacts: Mapping[str, ContactRef | None],
) -> dict[str, RelatedRecords]:
    """Return what belongs to each person, which is read at most once an hour. A new person has no deals."""
    existing = {key: contact.id for key in contexts if (contact := contacts.get(key)) and not contact.created}

    def read(ids: Sequence[str]) -> dict[str, RelatedRecords]:
        persons.by_id(ids)
        found = {}
        for person_id in ids:
            person = persons.person(person_id)
            if person is not None:
                deals = account.open_deals(person_id)
                own = owner_and_organization(person)
                found[person_id] = replace(own, deal=str(deals[0]["id"]) if len(deals) == 1 else "")
        return found

    related = read_related_records(contexts, {key: existing.get(key) for key in contexts}, read)
    created = {key: contact for key in contexts if (contact := contacts.get(key)) and contact.created}
    return related | {key: persons.created(contact.id) for key, contact in created.items()}


def find_activity(account: Account, params: DraftParams, context: Context) -> Success | None:
    """Return the activity with the reference of this delivery. None: there is none, or it is to be updated again.

    The activities of the person come first; if the person was merged meanwhile, or is not known, all of them.
    """
    if context.existing_id is not None:
        return None  # updating it again changes nothing
    return _find(account, params.person_query(context), context)


def _find(account: Account, query: ContactQuery, context: Context) -> Success | None:
    cached = context.contact_cache.get(query.keys)
    person_ids = {record_id for record_id in cached.values() if record_id}
    since = rfc_3339(min(context.first_attempt_at, context.now) - _LOOK_BACK)
    for filters in (*({"person_id": person_id} for person_id in sorted(person_ids)), {}):
        for activity in account.list_all("activity", updated_since=since, **filters):
            if reference_in(activity.get("note")) == context.idempotency_token:
                return Success(id=str(activity["id"]), detail="found by its reference")
    return None


def _result_of(activity: _Activity, related: RelatedRecords) -> Success | DeliveryError:
    try:
        return activity.write(related)
    except DeliveryError as error:
        return error
    except LookupInconclusive as error:
        return TransientError(str(error))


@dataclass(frozen=True)
class _Activity:
    """The activity of one delivery."""

    account: Account
    persons: Persons
    params: DraftParams
    context: Context
    draft: Draft
    contact: ContactRef | None

    def write(self, related: RelatedRecords) -> Success | ContactDeleted:
        """Create the activity, or update the one that an earlier event of the conversation has created."""
        context, existing_id = self.context, self.context.existing_id
        if self.contact is None and self.params.on_missing == "skip" and existing_id is None:
            has_address = bool(self.params.person_query(context).keys)
            return Success(detail="not logged: Pipedrive has no such person" if has_address else "not logged")
        body, notes = self._body()
        if existing_id is not None:
            updated = self.account.update("activity", existing_id, body)
            if updated is None:  # deleted by a user; an attempt before this one may have replaced it
                notes.append("the activity had been deleted in Pipedrive")
                found = _find(self.account, self.params.person_query(context), context)
                updated = self.account.update("activity", str(found.id), body) if found else None
            if updated is not None:
                return Success(id=str(updated["id"]), detail="; ".join(notes))
        return self._create(body, *self._links(related), notes)

    def _body(self) -> tuple[Record, list[str]]:
        """Return everything but the links, and notes on what was left out."""
        note, is_whole = to_note(
            lambda size: self.params.body_text(self.context, self.contact, size),
            (self.params.transcript or "").strip(),
            self.draft.recording,
            self.context.idempotency_token,
        )
        cut = [] if is_whole else ["the transcript was cut, because it is too long for a note in Pipedrive"]
        own, notes = to_request(self.account, "activity", self.params.additional_fields(self.context))
        standard = {name: value for name, value in self.draft.fields.items() if value is not None}
        return own | standard | {"done": True, "note": note}, [*self.draft.notes, *cut, *notes]

    def _links(self, related: RelatedRecords) -> tuple[Record, list[str]]:
        """Return the organization, deal and owner of a new activity."""
        notes = []
        deal = self.params.deal or related.deal
        if deal and not deal.isdecimal():
            notes.append("without the deal: its ID is not one of Pipedrive")
            deal = related.deal
        owner = owner_of_record(self.account, self.params.owner, related)
        named = {"org_id": related.company, "deal_id": deal, "owner_id": owner}
        return {name: int(value) for name, value in named.items() if value}, notes

    def _create(
        self, body: Record, links: Record, link_notes: list[str], notes: list[str]
    ) -> Success | ContactDeleted:
        """Create the activity. If it is refused, the cause may be a link to a record that was deleted meanwhile."""
        contact = self.contact
        person = {"participants": [{"person_id": int(contact.id), "primary": True}]} if contact else {}
        notes = [*notes, *link_notes]
        try:
            created = self.account.create("activity", body | person | links)
        except PermanentError as error:
            if contact and self.persons.is_gone(contact.id):
                return ContactDeleted()
            if not links:
                raise
            created = self.account.create("activity", body | person)
            if contact:
                forget_related_records(self.context.contact_cache, [contact.id])
            names = ", ".join(_LINK_NAMES[name] for name in links)
            notes.append(f"without its {names}, of which Pipedrive refused one ({error.code})")
        return Success(id=str(created["id"]), detail="; ".join(notes))


def owner_of_record(account: Account, owner: str | None, related: RelatedRecords) -> str:
    """Return the ID of a new record's owner; empty for the token's user, and for a user that does not exist."""
    if owner is None:
        return ""
    return related.owner if owner == CONTACT_OWNER else str(find_owner(account, owner).id or "")
