"""Contact resolution: finds or creates a CRM's record of a contact, the same way for every CRM.

An email address and a phone number each lead to a record: the cached one, or the result of a search. If they lead to
two records, the most recently active one is used and the pair is reported as a possible duplicate. If neither leads to
a record, one is created unless the rule says otherwise. Every address of an event is then remembered for its record,
so that phone first, email later is one contact.

A batch of deliveries is resolved together, with one search per kind of address. `contact_filling.py` completes the
records that were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from bridge.connector.contact_groups import (
    Resolution,
    group_by_person,
    names_another,
)
from bridge.connector.contact_profile import CONTACT_FIELDS, ContactField, ContactProfile
from bridge.connector.contacts import (
    AddressKind,
    ContactMatch,
    ContactQuery,
    ContactRef,
    ContactRefused,
    ContactSource,
    FillableContactSource,
    NewContact,
    ResolvedContact,
)
from bridge.connector.context import ContactCache
from bridge.contacts.parse import contact_fields_below
from bridge.contacts.same_name import same_name
from bridge.contacts.time_zone import residence_time_zone
from bridge.errors import LookupInconclusive, PermanentError, TransientError

NOT_FOUND_TTL = timedelta(minutes=5)
"""Cache lifetime of a search without a match; short, because a CRM user may add the contact at any time."""
LINK_TTL = timedelta(days=30)
"""How long an address that a record may not have leads to it, if the CRM's search finds no record."""
SEARCH_INDEX_LAG = timedelta(minutes=1)
"""Time for which a CRM's search may still return a deleted record."""
_FIELD_NAMES: Mapping[ContactField, str] = {"email": "email address", "phone": "phone number"}


@dataclass(frozen=True)
class _Candidate:
    """The record that an address leads to."""

    id: str
    match: ContactMatch | None = None
    """The record as the CRM returned it. None: from the cache."""
    count: int = 1
    """Number of records that have the address."""


def resolve_contacts(source: ContactSource, queries: Sequence[ContactQuery]) -> list[ResolvedContact]:
    """Return the contact of each query, in their order. All queries belong to one connection and share its cache.

    The CRM is searched once for all email addresses and once for all phone numbers that are not cached.
    """
    return [resolution.contact for resolution in resolve(source, queries)]


def resolve(source: ContactSource, queries: Sequence[ContactQuery]) -> list[Resolution]:
    """Return the resolution of each query, as `resolve_contacts` does."""
    resolutions = [Resolution(query) for query in queries]
    if any(query.keys for query in queries):
        _ContactLookup(source, queries[0].context.contact_cache).run(resolutions)
    for item in resolutions:
        if item.contact is None and not item.query.keys:
            item.note = _absence(item.query)
        elif isinstance(item.contact, ContactRef) and is_second_person(item.query, item.profile):
            item.contact = replace(item.contact, given_name=item.query.name)
    return resolutions


def resolve_contact(
    source: ContactSource, query: ContactQuery, read: Callable[[str], Mapping[str, Any] | None]
) -> tuple[ContactRef, Mapping[str, Any] | None]:
    """Return the contact and the current fields of its record, as `read` returns them; None for a new record.

    `read` returns None for a record that no longer exists. Raise PermanentError if there is no contact.
    """
    [resolution] = resolve(source, [query])
    contact = resolution.contact
    if contact is None:
        raise PermanentError(resolution.note or "the CRM has no such contact", code="not_found")
    if not isinstance(contact, ContactRef):
        raise contact
    if contact.created:
        return contact, None
    current = read(contact.id)
    if current is not None:
        return contact, current
    query.forget()
    if contact.cached:
        return resolve_contact(source, query, read)
    raise stale_search_index()


def stale_search_index() -> TransientError:
    """Return the error for a record that was found and no longer exists."""
    return TransientError("the CRM's search still returns a deleted record", retry_after=SEARCH_INDEX_LAG)


def is_second_person(query: ContactQuery, profile: ContactProfile | None) -> bool:
    """Return whether the event gives another name than the record has."""
    return bool(profile and profile.name and query.name and not same_name(profile.name, query.name))


def refusal_notes(refused: Mapping[ContactField, str]) -> list[str]:
    """Return a sentence for each field that the CRM refused."""
    return [
        f"without the {_FIELD_NAMES.get(field, field)}, which the CRM refused ({code})"
        for field, code in refused.items()
    ]


def _absence(query: ContactQuery) -> str:
    """Return why an event has no address."""
    unreadable = [
        item
        for item in query.context.event.unreadable_fields
        if not {"email", "phone"}.isdisjoint(contact_fields_below(item.path))
    ]
    if any(item.withheld for item in unreadable):
        return "the caller withheld the number"
    if unreadable:
        return f"the event's {' and '.join(sorted({item.field for item in unreadable}))} cannot be read"
    return "the event has neither phone nor email"


class _ContactLookup:
    """The lookup of one batch: the record of every address, and what is to be cached."""

    def __init__(self, source: ContactSource, cache: ContactCache) -> None:
        self._source = source
        self._cache = cache
        self._found: dict[str, _Candidate | None] = {}
        """Cache key of an address -> its record. None: searched for, and no record has it."""
        self._profiles: dict[str, ContactProfile] = {}
        self._learned_ids: dict[str, str] = {}
        self._learned_links: dict[str, str] = {}
        self._learned_zones: dict[str, str] = {}
        self._learned_profiles: dict[str, ContactProfile] = {}

    def run(self, resolutions: Sequence[Resolution]) -> None:
        keys = {key for item in resolutions for key in (*item.query.keys, item.query.pair_key) if key}
        cached_ids = self._cache.get(keys)
        # A cached "not found" is ignored before a record is created: a CRM user may have added the contact since.
        pending = [
            item
            for item in resolutions
            if item.query.keys and (item.query.create or not item.query.is_not_found(cached_ids))
        ]
        self._found = {
            key: _Candidate(cached_ids[key])
            for item in pending
            for key in item.query.keys
            if cached_ids.get(key)
        }
        self._profiles |= self._cache.profiles({record_id for record_id in cached_ids.values() if record_id})
        for item in pending:
            if (pair_key := item.query.pair_key) and (record_id := cached_ids.get(pair_key)):
                item.contact, item.is_pair = ContactRef(record_id, cached=True), True
        self._find_records([item for item in pending if item.contact is None])
        for item in pending:
            if item.contact is None:
                self._select(item)
        self._follow_links([item for item in pending if item.contact is None])
        self._follow_shared_addresses(pending)
        self._create([item for item in pending if item.contact is None and item.query.create])
        for item in pending:
            if isinstance(item.contact, ContactRef):
                item.profile = self._profiles.get(item.contact.id)
        self._learn(pending)

    def _find_records(self, items: Sequence[Resolution]) -> None:
        """Find the record of every address that is not cached."""
        self._search(self._source.by_email, "email", self._unknown(items, "email"))
        self._search(self._source.by_phone, "phone", self._unknown(items, "phone"))
        if isinstance(self._source, FillableContactSource):
            # The CRM itself names the record when a contact with this additional address is created.
            other = [
                item
                for item in items
                if item.query.email
                and self._found.get(item.query.key("email")) is None
                and not (item.query.create and self._candidate(item, "phone") is None)
            ]
            self._search(self._source.by_other_email, "email", other)
        self._read_pairs([item for item in items if self._is_pair(item)])

    def _read_pairs(self, items: Sequence[Resolution]) -> None:
        """Read the cached records of pairs: only then is it known which of the two is more recently active."""
        if isinstance(self._source, FillableContactSource):
            cached = {
                key: record.id
                for item in items
                for key in item.query.keys
                if (record := self._found.get(key)) and not record.match
            }
            records = (
                {match.id: match for match in self._source.by_id(sorted(set(cached.values())))}
                if cached
                else {}
            )
            for key, record_id in cached.items():
                if record_id in records:
                    self._found[key] = _Candidate(record_id, records[record_id])
                else:  # deleted or merged
                    del self._found[key]
        searches: dict[AddressKind, Callable[[Sequence[str]], Iterable[ContactMatch]]] = {
            "email": self._source.by_email,
            "phone": self._source.by_phone,
        }
        for kind, search in searches.items():
            unread = [
                item for item in items if not ((record := self._candidate(item, kind)) and record.match)
            ]
            self._search(search, kind, unread)

    def _unknown(self, items: Sequence[Resolution], kind: AddressKind) -> list[Resolution]:
        """Return the items whose address of this kind may be another record's than the one found so far."""
        return [
            item
            for item in items
            if item.query.address(kind)
            and item.query.key(kind) not in self._found
            and not self._is_of_email_record(item, kind)
        ]

    def _candidate(self, item: Resolution, kind: AddressKind) -> _Candidate | None:
        return self._found.get(item.query.key(kind)) if item.query.address(kind) else None

    def _is_pair(self, item: Resolution) -> bool:
        """Return whether email and phone lead to two records, neither of which has both."""
        by_email, by_phone = self._candidate(item, "email"), self._candidate(item, "phone")
        if not (by_email and by_phone) or by_email.id == by_phone.id:
            return False
        return not self._is_of_email_record(item, "phone")

    def _is_of_email_record(self, item: Resolution, kind: AddressKind) -> bool:
        """Return whether the record that has the item's email address has its address of this kind as well."""
        by_email, address = self._candidate(item, "email"), item.query.address(kind)
        return bool(by_email and by_email.match and address and by_email.match.has_address(kind, address))

    def _search(
        self,
        search: Callable[[Sequence[str]], Iterable[ContactMatch]],
        kind: AddressKind,
        items: Sequence[Resolution],
    ) -> None:
        addresses = {item.query.key(kind): item.query.address(kind) or "" for item in items}
        if not addresses:
            return
        matches = tuple(search(sorted(set(addresses.values()))))
        for key, address in addresses.items():
            records = {match.id: match for match in matches if match.has_address(kind, address)}
            if not records:
                self._found.setdefault(key, None)  # a search index may not show a cached record yet
                continue
            newest = max(records.values(), key=_activity)
            self._found[key] = _Candidate(newest.id, newest, len(records))
            self._profiles[newest.id] = self._learned_profiles[newest.id] = newest.profile

    def _select(self, item: Resolution) -> None:
        """Set the contact of an item from the records that its addresses lead to."""
        candidates = {
            kind: record for kind, _ in item.query.addresses if (record := self._candidate(item, kind))
        }
        if not candidates:
            return
        if self._is_pair(item):
            self._select_from_pair(item, candidates["email"], candidates["phone"])
            return
        kind, record = next(iter(candidates.items()))
        if record.count > 1 and item.query.on_multiple == "review":
            item.contact = LookupInconclusive(
                f"{record.count} records have this {kind}; merge them in the CRM or correct one, then retry"
            )
            return
        several = f"{record.count} records have this {kind}, the most recently active was used"
        item.contact = ContactRef(record.id, several if record.count > 1 else "", cached=record.match is None)

    def _select_from_pair(self, item: Resolution, by_email: _Candidate, by_phone: _Candidate) -> None:
        item.is_pair = True
        item.query.context.report_duplicate(by_email.id, by_phone.id)
        ids = f"{by_email.id} and {by_phone.id}"
        if item.query.on_multiple == "review":
            item.contact = LookupInconclusive(
                f"email and phone lead to two records, {ids}; merge them in the CRM or correct one, then retry"
            )
            return
        newest = max(
            (record.match or ContactMatch(record.id) for record in (by_email, by_phone)), key=_activity
        )
        item.contact = ContactRef(
            newest.id,
            f"possible duplicate: email and phone lead to two records, {ids}; the most recently active was used",
        )

    def _follow_links(self, items: Sequence[Resolution]) -> None:
        """Use the record that an earlier event led to, if the CRM finds none: a record has room for few addresses."""
        link_keys = [[item.query.link_key(kind) for kind, _ in item.query.addresses] for item in items]
        links = self._cache.get({key for keys in link_keys for key in keys}) if items else {}
        self._profiles |= self._cache.profiles(set(links.values()))
        for item, keys in zip(items, link_keys, strict=True):
            record_id = next((links[key] for key in keys if key in links), None)
            if record_id is not None:
                item.contact = ContactRef(record_id, cached=True)

    def _follow_shared_addresses(self, items: Sequence[Resolution]) -> None:
        """Use the record of another item of the batch that has the same address and more."""
        while True:
            records = {
                key: item.contact.id
                for item in items
                if isinstance(item.contact, ContactRef) and not item.is_pair
                for key in item.query.keys
                if not is_second_person(item.query, self._profiles.get(item.contact.id))
            }
            linked = [
                item
                for item in items
                if item.contact is None and any(key in records for key in item.query.keys)
            ]
            if not linked:
                return
            for item in linked:
                item.contact = ContactRef(next(records[key] for key in item.query.keys if key in records))

    def _create(self, items: Sequence[Resolution]) -> None:
        """Create each missing contact once, even if several items of the batch concern the same one."""
        people = group_by_person(items)
        results = self._source.create([query for query, _ in people]) if people else ()
        for (query, group), result in zip(people, results, strict=True):
            if isinstance(result, ContactRefused):
                for item in group:
                    item.note = "; ".join(
                        f"the CRM refused the {_FIELD_NAMES.get(field, field)} ({code})"
                        for field, code in result.refused.items()
                    )
                continue
            if not isinstance(result, str | NewContact):
                for item in group:
                    item.contact = result
                continue
            new = NewContact(result) if isinstance(result, str) else result
            if new.existing:
                detail = "the CRM reported an existing contact, which was used"
            else:
                detail = "; ".join([f"created a new {new.kind}", *new.notes, *refusal_notes(new.refused)])
                absent = frozenset(CONTACT_FIELDS) - query.details.fields - new.refused.keys()
                self._profiles[new.id] = self._learned_profiles[new.id] = ContactProfile(query.name, absent)
            for item in group:
                item.contact = ContactRef(new.id, detail, created=not new.existing)
                if not names_another(query, item.query):
                    for kind, address in item.query.addresses:
                        if address != query.address(kind):
                            self._learned_links[item.query.link_key(kind)] = new.id

    def _learn(self, items: Sequence[Resolution]) -> None:
        """Cache the record of every address, and the absence of those that no record has."""
        not_found: dict[str, str] = {}
        for item in items:
            if isinstance(item.contact, ContactRef):
                self._learn_addresses(item, item.contact)
            elif item.contact is None:
                not_found |= dict.fromkeys(item.query.keys, "")
        if self._learned_ids:
            self._cache.remember(self._learned_ids)
        if self._learned_links:
            self._cache.remember(self._learned_links, LINK_TTL)
        if self._learned_profiles:
            self._cache.remember_profiles(self._learned_profiles)
        if self._learned_zones:
            self._cache.remember_zones(self._learned_zones)
        if not_found:
            self._cache.remember(not_found, NOT_FOUND_TTL)

    def _learn_addresses(self, item: Resolution, contact: ContactRef) -> None:
        query = item.query
        is_shared = item.is_pair or is_second_person(query, item.profile)
        candidates = [self._candidate(item, kind) for kind, _ in query.addresses]
        matches = [record.match for record in candidates if record and record.match]
        for (kind, address), record in zip(query.addresses, candidates, strict=True):
            owner = next((match for match in matches if match.has_address(kind, address)), None)
            if owner:
                self._learned_ids[query.key(kind)] = owner.id
                if zone := residence_time_zone(owner.zone):
                    self._learned_zones[address] = zone
            elif record is None and not is_shared:
                self._learned_ids[query.key(kind)] = contact.id
                if not contact.created:
                    self._learned_links[query.link_key(kind)] = contact.id
        if is_shared and query.pair_key and not contact.cached:
            self._learned_ids[query.pair_key] = contact.id


def _activity(match: ContactMatch) -> tuple[tuple[str, ...], str]:
    return match.activity, match.id
