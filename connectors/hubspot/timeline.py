"""What actions put on a contact's timeline: the owner, the associations and the transcript of each record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bridge.connector import (
    CONTACT_OWNER,
    BatchResult,
    ContactDeleted,
    ContactQuery,
    ContactRef,
    Context,
    FieldValue,
    RelatedRecords,
    Success,
    forget_related_records,
    read_related_records,
    write_for_contacts,
)
from bridge.errors import DeliveryError, TransientError

from .account import Account
from .contact_source import Contacts
from .property_values import fit_properties
from .records import ASSOCIATION_TYPES, LINKED_TYPES, OWNER_PROPERTY, Record, write_records
from .related_records import read_related

ORPHANS_SHOWN = ("calls", "tasks", "tickets", "deals", "meetings")
"""Types that HubSpot lists on a page of their own. A note without a contact is shown nowhere."""
_LINK_FIELDS = {kind: name for kind, name in LINKED_TYPES.items() if kind != "contacts"}
"""Object type -> field of RelatedRecords."""


@dataclass(frozen=True)
class Draft:
    """The record that one delivery is to write."""

    context: Context
    build: Callable[[ContactRef | None], Mapping[str, str]]
    """Returns the properties that the action itself writes, without the owner, by contact."""
    owner: str | None = CONTACT_OWNER
    """`contact`, an owner's email address or an owner's ID."""
    linked: Mapping[str, str | None] = field(default_factory=dict)
    """Object type -> ID of the record to associate instead of the contact's only open one."""
    properties: Mapping[str, FieldValue] = field(default_factory=dict)
    """Properties that the rule sets."""
    transcript: Sequence[str] = ()
    """Bodies of further notes, in HTML."""
    notes: Sequence[str] = ()
    """Notes for the result's detail."""
    skip: str = ""
    """The result's detail if there is no contact and the record is not to be written without one."""
    new_owner: str = ""
    """The owner of the contact, if it has just been created."""


Results = dict[str, Success | DeliveryError]


def query_with_owner(account: Account, query: ContactQuery, owner: str | None) -> ContactQuery:
    """Return the query with an owner for the contact that it may create: the record's, if that is a person."""
    if not query.create or owner in (None, CONTACT_OWNER) or OWNER_PROPERTY in query.new_fields:
        return query
    owner_id = account.owners.resolve(str(owner)).id
    return replace(query, new_fields=query.new_fields | {OWNER_PROPERTY: owner_id}) if owner_id else query


def write_batch(
    account: Account,
    kind: str,
    queries: Mapping[str, ContactQuery],
    drafts: Mapping[str, Draft],
) -> dict[str, BatchResult]:
    """Write the record of every query's contact in as few requests as HubSpot allows: one, if all are cached."""
    with_owners = {key: query_with_owner(account, query, drafts[key].owner) for key, query in queries.items()}
    drafts = {
        key: replace(draft, new_owner=str(with_owners[key].new_fields.get(OWNER_PROPERTY, "")))
        for key, draft in drafts.items()
    }
    return write_for_contacts(
        Contacts(account), with_owners, lambda contacts: write_drafts(account, kind, drafts, contacts)
    )


def write_drafts(
    account: Account, kind: str, drafts: Mapping[str, Draft], contacts: Mapping[str, ContactRef | None]
) -> Results:
    """Write the record of each contact, by the unique key of the record.

    A record is associated with the contact, its primary company, its only open deal and its only open ticket. A
    record that an earlier event wrote is updated; its associations and owner may have been changed by users.
    """
    existing_ids = {
        key: record_id for key in contacts if (record_id := drafts[key].context.existing_id) is not None
    }
    related = _read_related(account, drafts, contacts, existing_ids)
    records: dict[str, Record] = {}
    results: Results = {}
    for key, contact in contacts.items():
        draft = drafts[key]
        is_shown = contact is not None or (kind in ORPHANS_SHOWN and not draft.skip)
        if is_shown or key in existing_ids:
            records[key] = _record(account, kind, draft, contact, related.get(key, RelatedRecords()))
        else:
            results[key] = Success(detail=draft.skip or "not logged")
    written = write_records(account, kind, records, existing_ids)
    if kind in LINKED_TYPES:  # a new ticket changes which one is the contact's only open ticket
        cache = next(iter(drafts.values())).context.contact_cache
        forget_related_records(cache, [contact.id for contact in contacts.values() if contact])
    return results | _write_transcripts(account, drafts, records, contacts, written)


def _read_related(
    account: Account,
    drafts: Mapping[str, Draft],
    contacts: Mapping[str, ContactRef | None],
    existing_ids: Mapping[str, str],
) -> dict[str, RelatedRecords]:
    """Return the related records of each new record, read for all of them together.

    A contact that was just created has none.
    """
    contexts = {key: drafts[key].context for key in contacts if key not in existing_ids}
    ids = {key: contact.id for key, contact in contacts.items() if contact and not contact.created}
    return read_related_records(
        contexts, {key: ids.get(key) for key in contexts}, partial(read_related, account)
    )


def _record(
    account: Account,
    kind: str,
    draft: Draft,
    contact: ContactRef | None,
    related: RelatedRecords,
) -> Record:
    notes = list(draft.notes)
    linked = {"contacts": contact.id} if contact else {}
    for linked_type, name in _LINK_FIELDS.items():
        if linked_type not in ASSOCIATION_TYPES[kind]:
            continue
        record_id = draft.linked.get(linked_type) or getattr(related, name)
        if problem := account.missing_scopes.problem(linked_type):
            if contact or record_id:
                notes.append(f"not associated with a {name}: {problem}")
        elif record_id and not record_id.isdecimal():
            notes.append(f"not associated with the {name}: its ID is not one of HubSpot")
        elif record_id:
            linked[linked_type] = record_id
    owner = draft.owner
    if owner == CONTACT_OWNER:
        owner = draft.new_owner if contact and contact.created else related.owner
    lookup = account.owners.resolve(owner) if owner else None
    if lookup is not None and lookup.problem:
        notes.append(f"without the owner: {lookup.problem}")
    of_rule = fit_properties(account, kind, draft.properties, draft.context)
    properties = {**draft.build(contact), **of_rule.values}
    if lookup is not None and lookup.id:
        properties.setdefault(OWNER_PROPERTY, lookup.id)
    return Record(properties, linked, [*notes, *of_rule.notes], of_rule.values.keys())


def _write_transcripts(
    account: Account,
    drafts: Mapping[str, Draft],
    records: Mapping[str, Record],
    contacts: Mapping[str, ContactRef | None],
    results: Results,
) -> Results:
    """Write the transcripts that need notes of their own, and return the results of the records with theirs."""
    parts: dict[str, tuple[str, Record]] = {}
    """Unique key of a note -> the key of its record, and the note."""
    for key, record in records.items():
        if not isinstance(results[key], Success):
            continue
        contact = contacts[key]
        for number, body in enumerate(drafts[key].transcript, 1):
            names = ("hs_timestamp", OWNER_PROPERTY)
            properties = {name: record.properties[name] for name in names if name in record.properties}
            links = record.links if contact else {}
            note = Record(properties | {"hs_note_body": body}, links)
            parts[f"{key}:transcript-{number}"] = (key, note)
    without_contact = {key for key, _ in parts.values() if contacts[key] is None}
    for key in without_contact:
        results = results | {key: _noted(results[key], "without the transcript, which needs a contact")}
    notes = {name: note for name, (key, note) in parts.items() if key not in without_contact}
    if not notes:
        return results
    for name, result in write_records(account, "notes", notes, {}).items():
        key = parts[name][0]
        if isinstance(result, ContactDeleted):
            result = TransientError("the contact was deleted while its transcript was written")
        if isinstance(result, TransientError):
            results = results | {key: result}
        elif not isinstance(result, Success):
            results = results | {key: _noted(results[key], f"without the transcript: {result}")}
    return results


def _noted(result: Success | DeliveryError, note: str) -> Success | DeliveryError:
    if not isinstance(result, Success):
        return result
    return replace(result, detail="; ".join(part for part in (result.detail, note) if part))
