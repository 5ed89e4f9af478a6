"""Contact resolution: finds or creates a CRM's record of a contact, the same way for every CRM.

The lookup order is: the cached ID, then the email address, then the phone number. Phone numbers are compared as
E.164 because CRM users type them in every format. If several records match, the most recently active one is used and
the result says so. If none matches, a record is created unless the rule says otherwise.

A batch of deliveries is resolved together, with one search per kind of address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, Protocol
from zoneinfo import available_timezones

import phonenumbers
from pydantic import BaseModel, BeforeValidator, ConfigDict

from bridge.connector.api import Email, Params, PhoneNumber, Success, param
from bridge.connector.context import Context
from bridge.errors import DeliveryError, LookupInconclusive, PermanentError, TransientError

NOT_FOUND_TTL = timedelta(minutes=5)
"""Cache lifetime of a search without a match; short, because a CRM user may add the contact at any time."""
SEARCH_INDEX_LAG = timedelta(minutes=1)
"""Time for which a CRM's search may still return a deleted record."""

Scalar = str | int | float | bool


class Property(BaseModel):
    """A value for one of the CRM's own fields. With `mode: fill`, it is only written to an empty field."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    value: Scalar | None = None
    mode: Literal["overwrite", "fill"] = "overwrite"


def _properties(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {
        key: item if isinstance(item, Mapping | Property) else {"value": item} for key, item in value.items()
    }


Properties = Annotated[dict[str, Property], BeforeValidator(_properties)]
"""`field: value` or `field: {value: ..., mode: fill}`. A missing value leaves the field unchanged."""


def fields_to_write(
    properties: Mapping[str, Property], current: Mapping[str, Any] | None
) -> dict[str, Scalar]:
    """Return the non-empty values; those with `fill` only if the field is empty in `current` (None: a new record)."""
    return {
        name: item.value
        for name, item in properties.items()
        if item.value not in (None, "")
        and (item.mode == "overwrite" or current is None or current.get(name) in (None, ""))
    }


class ContactLookupParams(Params):
    """Params of an action that concerns one contact in the CRM."""

    email: Email | None = param(
        "{{ contact.email }}", "Email address of the contact, searched first.", example="maya@example.com"
    )
    phone: PhoneNumber | None = param(
        "{{ contact.phone }}", "Phone number of the contact (E.164), searched second.", example="+14155550123"
    )
    on_multiple: Literal["newest", "review"] = param(
        "newest",
        "If several contacts match: `newest` uses the most recently active, `review` asks the operator.",
        example="review",
    )

    def contact_query(self, context: Context, *, create: bool, scope: str = "") -> ContactQuery:
        """Return the query that finds this contact."""
        return ContactQuery(self.email, self.phone, context, self.on_multiple, create, scope)


@dataclass(frozen=True)
class ContactMatch:
    """A CRM record that a search returned."""

    id: str
    emails: Sequence[str] = ()
    phones: Sequence[str] = ()
    """As typed by CRM users, in any format."""
    activity: tuple[str, ...] = ()
    """Sort key of the last activity; the highest is the most recently active record."""
    zone: str | None = None
    """The contact's IANA time zone. Case does not matter; an unknown name is ignored."""


@dataclass(frozen=True)
class ContactQuery:
    """The contact that one delivery needs."""

    email: str | None
    phone: str | None
    context: Context
    on_multiple: str = "newest"
    create: bool = True
    scope: str = ""
    """Prefix of the cache keys, for searches over some kinds of records only (`lead:` for leads)."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the contact's cache keys. The email comes first because a phone number may be shared."""
        return tuple(self.key(kind) for kind in ("email", "phone") if getattr(self, kind))

    def key(self, kind: str) -> str:
        """Return the cache key for one kind of address, `email` or `phone`."""
        return f"{self.scope}{kind}:{getattr(self, kind)}".lower()

    def forget(self) -> None:
        """Remove the contact from the cache: its record has been deleted, merged or converted."""
        self.context.contact_cache.forget(self.keys)


@dataclass(frozen=True)
class ContactRef:
    """The CRM record of a contact."""

    id: str
    detail: str = ""
    """A note about how it was found, for the dashboard; empty if it was an ordinary match."""
    cached: bool = False
    """From the cache, without asking the CRM: the record may have been deleted since."""
    created: bool = False
    """No record existed, so this one was just created."""


class ContactSource(Protocol):
    """A connector's access to the contact records of its CRM."""

    def by_email(self, emails: Sequence[str]) -> Iterable[ContactMatch]:
        """Return all records that have one of these addresses."""
        ...

    def by_phone(self, phones: Sequence[str]) -> Iterable[ContactMatch]:
        """Return all records that may have one of these numbers. The caller compares the numbers again."""
        ...

    def create(self, queries: Sequence[ContactQuery]) -> Sequence[str | DeliveryError]:
        """Create one record per query and return, in their order, its external ID or the error."""
        ...


BatchResult = Success | DeliveryError | LookupInconclusive
"""The result of one delivery in a batch."""
ResolvedContact = ContactRef | DeliveryError | LookupInconclusive | None
"""None: no contact, because none may be created or the event has neither email nor phone."""


class ContactDeleted(PermanentError):
    """The contact's record has been deleted, merged or converted. `write_for_contacts` searches once more."""

    def __init__(self) -> None:
        super().__init__("the contact's record no longer exists", code="contact_deleted")


def resolve_contacts(source: ContactSource, queries: Sequence[ContactQuery]) -> list[ResolvedContact]:
    """Return the contact of each query, in their order. All queries belong to one connection and share its cache.

    The CRM is searched once for all email addresses and once for all phone numbers that are not cached.
    """
    resolved: list[ResolvedContact] = [None] * len(queries)
    keys = {key for query in queries for key in query.keys}
    if not keys:
        return resolved
    cache = queries[0].context.contact_cache
    cached_ids = cache.get(keys)
    new_ids: dict[str, str] = {}
    new_zones: dict[str, str] = {}
    # A cached "not found" is ignored before a record is created: a CRM user may have added the contact since.
    unresolved = [
        index
        for index, query in enumerate(queries)
        if query.keys and (query.create or any(cached_ids.get(key) != "" for key in query.keys))
    ]
    searches: tuple[tuple[str, Callable[[Sequence[str]], Iterable[ContactMatch]]], ...] = (
        ("email", source.by_email),
        ("phone", source.by_phone),
    )
    for kind, search in searches:
        candidates = [index for index in unresolved if getattr(queries[index], kind)]
        for index in candidates:
            if cached_id := cached_ids.get(queries[index].key(kind)):
                resolved[index] = ContactRef(cached_id, cached=True)
        uncached = [index for index in candidates if resolved[index] is None]
        if uncached:
            matches = tuple(search(sorted({getattr(queries[index], kind) for index in uncached})))
            for index in uncached:
                resolved[index] = _select_match(queries[index], kind, matches, new_ids, new_zones)
        unresolved = [index for index in unresolved if resolved[index] is None]
    _create(source, [index for index in unresolved if queries[index].create], queries, resolved, new_ids)
    if new_ids:
        cache.remember(new_ids)
    if new_zones:
        cache.remember_zones(new_zones)
    not_found = {key: "" for index in unresolved if resolved[index] is None for key in queries[index].keys}
    if not_found:
        cache.remember(not_found, NOT_FOUND_TTL)
    return resolved


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


def _select_match(
    query: ContactQuery,
    kind: str,
    matches: Sequence[ContactMatch],
    new_ids: dict[str, str],
    new_zones: dict[str, str],
) -> ContactRef | LookupInconclusive | None:
    value = getattr(query, kind)
    candidates = {match.id: match for match in matches if _has_address(match, kind, value)}
    if not candidates:
        return None
    if len(candidates) > 1 and query.on_multiple == "review":
        return LookupInconclusive(
            f"{len(candidates)} records have this {kind}; merge them in the CRM or correct one, then retry"
        )
    newest = max(candidates.values(), key=lambda match: (match.activity, match.id))
    # A phone number that the record lacks may be another record's; an email address that no record has is safe.
    kinds = {kind, *(["email"] if query.email else [])}
    if query.phone and any(same_number(phone, query.phone) for phone in newest.phones):
        kinds.add("phone")
    new_ids.update((query.key(known), newest.id) for known in kinds)
    zone = _iana_names().get(newest.zone.lower()) if newest.zone else None
    if zone is not None:
        new_zones.update((getattr(query, known), zone) for known in kinds)
    several = f"{len(candidates)} records have this {kind}, the most recently active was used"
    return ContactRef(newest.id, several if len(candidates) > 1 else "")


@cache
def _iana_names() -> Mapping[str, str]:
    return {name.lower(): name for name in available_timezones()}


def _has_address(match: ContactMatch, kind: str, value: str) -> bool:
    if kind == "email":
        return any(email.lower() == value.lower() for email in match.emails)
    return any(same_number(phone, value) for phone in match.phones)


def _create(
    source: ContactSource,
    indices: Sequence[int],
    queries: Sequence[ContactQuery],
    resolved: list[ResolvedContact],
    new_ids: dict[str, str],
) -> None:
    """Create each missing contact once, even if several deliveries of the batch concern the same one."""
    first_by_key: dict[str, int] = {}
    first_of: dict[int, int] = {}
    for index in indices:
        keys = queries[index].keys
        first = next((first_by_key[key] for key in keys if key in first_by_key), index)
        first_of[index] = first
        first_by_key.update((key, first) for key in keys if key not in first_by_key)
    missing = [index for index in indices if first_of[index] == index]
    if not missing:
        return
    results = source.create([queries[index] for index in missing])
    for index, result in zip(missing, results, strict=True):
        resolved[index] = (
            ContactRef(result, "created a new contact", created=True) if isinstance(result, str) else result
        )
    for index in indices:
        contact = resolved[index] = resolved[first_of[index]]
        if isinstance(contact, ContactRef):
            new_ids.update(dict.fromkeys(queries[index].keys, contact.id))


def same_number(typed: str, number: str) -> bool:
    """Return whether `typed`, in any format, is the E.164 `number`. Without a country code, its country is assumed."""
    return typed == number or _e164(typed, _region(number)) == number


def national_digits(number: str) -> str:
    """Return the digits without the country code: CRMs index phone numbers in this form."""
    try:
        return phonenumbers.national_significant_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return number.lstrip("+")


@lru_cache(maxsize=16384)
def _e164(typed: str, region: str | None) -> str | None:
    try:
        parsed = phonenumbers.parse(
            "+" + typed.lstrip()[2:] if typed.lstrip().startswith("00") else typed, region
        )
    except phonenumbers.NumberParseException:
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


@lru_cache(maxsize=16384)
def _region(number: str) -> str | None:
    try:
        code = phonenumbers.parse(number).country_code
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.region_code_for_country_code(code) if code else None
