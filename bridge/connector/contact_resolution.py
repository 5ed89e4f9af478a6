"""Contact resolution: finds or creates a CRM's record of a contact, the same way for every CRM.

The lookup order is: the cached ID and a search by email address, then the cached ID and a search by phone number. If
several records match, the most recently active one is used and the result says so. If none matches, a record is
created unless the rule says otherwise.

A batch of deliveries is resolved together, with one search per kind of address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from bridge.connector.api import Success
from bridge.connector.contacts import (
    AddressKind,
    BatchResult,
    ContactDeleted,
    ContactMatch,
    ContactQuery,
    ContactRef,
    ContactSource,
    ResolvedContact,
)
from bridge.connector.context import ContactCache
from bridge.contacts.address import address_key
from bridge.contacts.phone import same_number
from bridge.contacts.time_zone import residence_time_zone
from bridge.errors import DeliveryError, LookupInconclusive, PermanentError, TransientError

NOT_FOUND_TTL = timedelta(minutes=5)
"""Cache lifetime of a search without a match; short, because a CRM user may add the contact at any time."""
SEARCH_INDEX_LAG = timedelta(minutes=1)
"""Time for which a CRM's search may still return a deleted record."""


@dataclass
class Resolution:
    """The resolution of one query: unresolved while `contact` is None."""

    query: ContactQuery
    contact: ResolvedContact = None


@dataclass(frozen=True)
class CacheEntry:
    """A contact's address and external ID, to be cached."""

    key: str
    address: str
    id: str
    zone: str | None = None
    """IANA time zone of the contact, if the CRM has one."""


Strategy = Callable[[Sequence[Resolution]], Sequence[CacheEntry]]
"""One step of the resolution: sets the contact of those unresolved queries that it can resolve, and returns what to
cache."""


def resolve_contacts(source: ContactSource, queries: Sequence[ContactQuery]) -> list[ResolvedContact]:
    """Return the contact of each query, in their order. All queries belong to one connection and share its cache.

    The CRM is searched once for all email addresses and once for all phone numbers that are not cached.
    """
    resolutions = [Resolution(query) for query in queries]
    keys = {key for query in queries for key in query.keys}
    if keys:
        _resolve(source, resolutions, queries[0].context.contact_cache, keys)
    return [resolution.contact for resolution in resolutions]


def _resolve(
    source: ContactSource, resolutions: Sequence[Resolution], cache: ContactCache, keys: Iterable[str]
) -> None:
    cached_ids = cache.get(keys)
    strategies: tuple[Strategy, ...] = (
        partial(_use_cached, cached_ids, "email"),
        partial(_search, source.by_email, "email"),
        partial(_use_cached, cached_ids, "phone"),
        partial(_search, source.by_phone, "phone"),
        partial(_create, source),
    )
    # A cached "not found" is ignored before a record is created: a CRM user may have added the contact since.
    pending = [
        item
        for item in resolutions
        if item.query.keys and (item.query.create or not item.query.is_not_found(cached_ids))
    ]
    learned: list[CacheEntry] = []
    for strategy in strategies:
        learned += strategy([item for item in pending if item.contact is None])
    if learned:
        cache.remember({entry.key: entry.id for entry in learned})
    if zones := {entry.address: entry.zone for entry in learned if entry.zone}:
        cache.remember_zones(zones)
    if not_found := {key: "" for item in pending if item.contact is None for key in item.query.keys}:
        cache.remember(not_found, NOT_FOUND_TTL)


def resolve_contact(
    source: ContactSource, query: ContactQuery, read: Callable[[str], Mapping[str, Any] | None]
) -> tuple[ContactRef, Mapping[str, Any] | None]:
    """Return the contact and the current fields of its record, as `read` returns them; None for a new record.

    `read` returns None for a record that no longer exists. Raise PermanentError if there is no contact.
    """
    [contact] = resolve_contacts(source, [query])
    if contact is None:
        raise PermanentError(
            "the CRM has no such contact" if query.keys else "the event has neither email nor phone",
            code="not_found",
        )
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
    raise _stale_search_index()


def write_for_contacts(
    source: ContactSource,
    queries: Mapping[str, ContactQuery],
    write: Callable[[Mapping[str, ContactRef | None]], Mapping[str, Success | DeliveryError]],
) -> dict[str, BatchResult]:
    """Write a record for the contact of each query, and return the result of each.

    `write` is called with the resolved contacts and returns a result for each, ContactDeleted if the contact's
    record no longer exists. If that contact came from the cache, it is resolved and written once more.
    """
    resolved = dict(zip(queries, resolve_contacts(source, list(queries.values())), strict=True))
    results: dict[str, BatchResult] = {}
    contacts: dict[str, ContactRef | None] = {}
    for key, contact in resolved.items():
        if isinstance(contact, DeliveryError | LookupInconclusive):
            results[key] = contact
        else:
            contacts[key] = contact
    stale: dict[str, ContactQuery] = {}
    for key, result in write(contacts).items() if contacts else ():
        contact = contacts[key]
        results[key] = result
        if isinstance(result, ContactDeleted):
            queries[key].forget()
            results[key] = _stale_search_index()
            if contact is not None and contact.cached:
                stale[key] = queries[key]
        elif isinstance(result, Success) and contact is not None and contact.detail:
            detail = f"{result.detail}; {contact.detail}" if result.detail else contact.detail
            results[key] = Success(result.id, detail)
    return results | write_for_contacts(source, stale, write) if stale else results


def _stale_search_index() -> TransientError:
    return TransientError("the CRM's search still returns a deleted record", retry_after=SEARCH_INDEX_LAG)


def _use_cached(
    cached_ids: Mapping[str, str], kind: AddressKind, unresolved: Sequence[Resolution]
) -> list[CacheEntry]:
    for item in unresolved:
        if item.query.address(kind) and (cached_id := cached_ids.get(item.query.key(kind))):
            item.contact = ContactRef(cached_id, cached=True)
    return []


def _search(
    search: Callable[[Sequence[str]], Iterable[ContactMatch]],
    kind: AddressKind,
    unresolved: Sequence[Resolution],
) -> list[CacheEntry]:
    addresses = {address for item in unresolved if (address := item.query.address(kind))}
    if not addresses:
        return []
    matches = tuple(search(sorted(addresses)))
    learned: list[CacheEntry] = []
    for item in unresolved:
        if address := item.query.address(kind):
            candidates = {match.id: match for match in matches if _has_address(match, kind, address)}
            learned += _select_match(item, kind, list(candidates.values()))
    return learned


def _select_match(
    item: Resolution, kind: AddressKind, candidates: Sequence[ContactMatch]
) -> list[CacheEntry]:
    if not candidates:
        return []
    query = item.query
    if len(candidates) > 1 and query.on_multiple == "review":
        item.contact = LookupInconclusive(
            f"{len(candidates)} records have this {kind}; merge them in the CRM or correct one, then retry"
        )
        return []
    newest = max(candidates, key=lambda match: (match.activity, match.id))
    several = f"{len(candidates)} records have this {kind}, the most recently active was used"
    item.contact = ContactRef(newest.id, several if len(candidates) > 1 else "")
    # A phone number that the record lacks may be another record's; an email address that no record has is safe.
    return [
        CacheEntry(query.key(known), address, newest.id, residence_time_zone(newest.zone))
        for known, address in query.addresses
        if known in (kind, "email") or any(same_number(phone, address) for phone in newest.phones)
    ]


def _has_address(match: ContactMatch, kind: AddressKind, address: str) -> bool:
    if kind == "email":
        return any(address_key(email) == address_key(address) for email in match.emails)
    return any(same_number(phone, address) for phone in match.phones)


def _create(source: ContactSource, unresolved: Sequence[Resolution]) -> list[CacheEntry]:
    """Create each missing contact once, even if several deliveries of the batch concern the same one."""
    groups: list[list[Resolution]] = []
    group_by_key: dict[str, list[Resolution]] = {}
    for item in unresolved:
        if not item.query.create:
            continue
        group = next((group_by_key[key] for key in item.query.keys if key in group_by_key), None)
        if group is None:
            groups.append(group := [])
        group.append(item)
        for key in item.query.keys:
            group_by_key.setdefault(key, group)
    results = source.create([group[0].query for group in groups]) if groups else ()
    learned: list[CacheEntry] = []
    for group, result in zip(groups, results, strict=True):
        for item in group:
            if isinstance(result, str):
                item.contact = ContactRef(result, "created a new contact", created=True)
                learned += [
                    CacheEntry(item.query.key(kind), address, result)
                    for kind, address in item.query.addresses
                ]
            else:
                item.contact = result
    return learned
