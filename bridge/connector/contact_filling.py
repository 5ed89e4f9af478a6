"""Records of contacts: writes a call, chat or task for the contact of each event, and completes the contact.

A contact that was found gets its empty name, email, phone and company filled in from the event; nothing is ever
overwritten. What was empty is cached, so a contact that an event adds nothing to costs no request. Completing a contact
never fails a delivery: a field that the CRM refuses is left out, and the delivery says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bridge.connector.action import Success
from bridge.connector.contact_groups import Resolution
from bridge.connector.contact_profile import (
    ContactDetails,
    ContactField,
    ContactProfile,
)
from bridge.connector.contact_resolution import (
    is_second_person,
    refusal_notes,
    resolve,
    stale_search_index,
)
from bridge.connector.contacts import (
    BatchResult,
    ContactDeleted,
    ContactMatch,
    ContactQuery,
    ContactRef,
    ContactSource,
    FillableContactSource,
    FillResult,
)
from bridge.contacts.same_name import same_name
from bridge.errors import DeliveryError, LookupInconclusive, PermanentError

ContactWriter = Callable[[Mapping[str, ContactRef | None]], Mapping[str, Success | DeliveryError]]


def write_for_contacts(
    source: ContactSource, queries: Mapping[str, ContactQuery], write: ContactWriter
) -> dict[str, BatchResult]:
    """Write a record for the contact of each query, and return the result of each.

    `write` is called with the contacts, None if an event has none, and returns a result for each: ContactDeleted if the
    contact's record no longer exists. If that contact came from the cache, it is resolved and written once more.
    """
    resolutions = dict(zip(queries, resolve(source, list(queries.values())), strict=True))
    if isinstance(source, FillableContactSource):
        _complete_contacts(source, list(resolutions.values()))
    results: dict[str, BatchResult] = {}
    contacts: dict[str, ContactRef | None] = {}
    for key, resolution in resolutions.items():
        if isinstance(resolution.contact, DeliveryError | LookupInconclusive):
            results[key] = resolution.contact
        else:
            contacts[key] = resolution.contact
    stale: dict[str, ContactQuery] = {}
    for key, result in write(contacts).items() if contacts else ():
        contact = contacts[key]
        results[key] = result
        if isinstance(result, ContactDeleted):
            queries[key].forget()
            results[key] = stale_search_index()
            if contact is not None and contact.cached:
                stale[key] = queries[key]
        elif isinstance(result, Success):
            if contact is not None:
                results[key] = replace(result, detail=_joined("; ", result.detail, contact.detail))
            elif reason := resolutions[key].note:
                note = f"without a contact: {reason}"
                detail = (
                    _joined("; ", result.detail, note) if result.id else _joined(": ", result.detail, reason)
                )
                results[key] = replace(result, detail=detail)
    return results | write_for_contacts(source, stale, write) if stale else results


def write_for_contact(source: ContactSource, key: str, query: ContactQuery, write: ContactWriter) -> Success:
    """Write one record as `write_for_contacts` does. Raise DeliveryError or LookupInconclusive if it fails."""
    result = write_for_contacts(source, {key: query}, write)[key]
    if not isinstance(result, Success):
        raise result
    return result


def details_to_fill(current: ContactMatch, details: ContactDetails) -> ContactDetails:
    """Return those details whose field is empty in the record.

    One part of a name is filled in only if the other part is the same, so that no name is put together from two.
    """
    first, last = current.first_name, current.last_name
    return ContactDetails(
        first_name=details.first_name if first == "" and _agrees(last, details.last_name) else None,
        last_name=details.last_name if last == "" and _agrees(first, details.first_name) else None,
        email=None if current.emails else details.email,
        phone=None if current.phones else details.phone,
        company=details.company if current.company == "" else None,
    )


def _agrees(part: str | None, other: str | None) -> bool:
    return not part or (other is not None and same_name(part, other))


def _joined(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)


@dataclass
class _Completion:
    """One record, and what the events of a batch add to it."""

    match: ContactMatch
    """The record as it will be."""
    items: list[Resolution]
    changes: ContactDetails = field(default_factory=ContactDetails)
    offered: frozenset[ContactField] = frozenset()

    def add(self, item: Resolution) -> None:
        """Add what one event says, unless it is about another person than the record."""
        contact, query = item.contact, item.query
        if is_second_person(query, self.match.profile):
            if isinstance(contact, ContactRef):
                item.contact = replace(contact, given_name=query.name)
            return
        added = details_to_fill(self.match, query.details)
        self.offered |= query.details.fields
        self.changes = ContactDetails(
            *(
                getattr(added, name) or getattr(self.changes, name)
                for name in ContactDetails.__dataclass_fields__
            )
        )
        self.match = replace(
            self.match,
            first_name=added.first_name or self.match.first_name,
            last_name=added.last_name or self.match.last_name,
            emails=self.match.emails or [value for value in (added.email,) if value],
            phones=self.match.phones or [value for value in (added.phone,) if value],
            company=added.company or self.match.company,
        )


def _complete_contacts(source: FillableContactSource, resolutions: Sequence[Resolution]) -> None:
    """Fill in what the events add, with one read and one write for the whole batch, or with no request at all."""
    items_by_id: dict[str, list[Resolution]] = {}
    for item in resolutions:
        if isinstance(item.contact, ContactRef) and _may_add(item):
            items_by_id.setdefault(item.contact.id, []).append(item)
    if not items_by_id:
        return
    records = {match.id: match for match in source.by_id(list(items_by_id))}
    completions: dict[str, _Completion] = {}
    for record_id, items in items_by_id.items():
        if record_id not in records:  # deleted or merged: searched for again when the next event arrives
            for item in items:
                item.query.forget()
            continue
        completions[record_id] = completion = _Completion(records[record_id], items)
        for item in items:
            completion.add(item)
    changes = {record_id: item.changes for record_id, item in completions.items() if item.changes.fields}
    problem = ""
    filled: Mapping[str, FillResult] = {}
    try:
        filled = source.fill(changes) if changes else {}
    except PermanentError as error:
        problem = f"the contact was not completed: {error}"
    profiles: dict[str, ContactProfile] = {}
    for record_id, completion in completions.items():
        result = filled.get(record_id, FillResult())
        profile = completion.match.profile
        # A field that could not be filled in is not tried again until the cache entry expires.
        profiles[record_id] = ContactProfile(profile.name, profile.empty - completion.offered)
        _note_completion(completion, changes.get(record_id), result, problem)
    resolutions[0].query.context.contact_cache.remember_profiles(profiles)


def _may_add(item: Resolution) -> bool:
    """Return whether an event may say something that its contact's record lacks, or give another name."""
    if item.is_pair:
        return False
    offered = item.query.details.fields
    if item.profile is None:
        return bool(offered)
    if is_second_person(item.query, item.profile):
        return False
    adds = offered & item.profile.empty
    more_of_name = len(item.query.name.split()) > len(item.profile.name.split())
    return bool(adds - {"name"}) or ("name" in adds and more_of_name)


def _note_completion(
    completion: _Completion, changes: ContactDetails | None, result: FillResult, problem: str
) -> None:
    """Note what was left out in the contact of every event about the record's own person."""
    if changes is None:
        return
    notes = refusal_notes(result.refused)
    if result.duplicate:
        notes.append(f"possible duplicate: the address belongs to record {result.duplicate} as well")
    for item in completion.items:
        contact = item.contact
        if isinstance(contact, ContactRef) and not contact.given_name:
            if result.duplicate:
                item.query.context.report_duplicate(contact.id, result.duplicate)
            detail = [contact.detail] if contact.detail else []
            item.contact = replace(contact, detail="; ".join([*detail, *([problem] if problem else notes)]))
