"""Finding a person in a CRM, the same way for every CRM and once for a whole batch.

The order is: the id we remember, then the e-mail, then the phone, compared as E.164 because people type numbers
in every form. Several matches: the most recently active one, and the result says so. No match: created, unless
the rule says otherwise.
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

NOBODY_FOR = timedelta(minutes=5)
"""How long a search that found nobody is remembered: somebody may add the person at any time."""
INDEX_LAG = timedelta(minutes=1)
"""After this a CRM's search no longer shows what is gone."""

Scalar = str | int | float | bool


class Property(BaseModel):
    """A value for one of the CRM's own fields, and whether it may replace what is there."""

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
"""`field: value` or `field: {value: ..., mode: fill}`; a value that is missing leaves the field alone."""


def fields_to_write(
    properties: Mapping[str, Property], current: Mapping[str, Any] | None
) -> dict[str, Scalar]:
    """What to write: everything that has a value, but `fill` only where `current` is empty (None: a new record)."""
    return {
        name: item.value
        for name, item in properties.items()
        if item.value not in (None, "")
        and (item.mode == "overwrite" or current is None or current.get(name) in (None, ""))
    }


class ContactLookupParams(Params):
    """Params of an action that concerns one person in the CRM."""

    email: Email | None = param(
        "{{ contact.email }}", "The person's e-mail, asked for first.", example="maya@example.com"
    )
    phone: PhoneNumber | None = param(
        "{{ contact.phone }}", "The person's phone, E.164, asked for next.", example="+14155550123"
    )
    on_multiple: Literal["newest", "review"] = param(
        "newest",
        "When several match: `newest` takes the most recently active, `review` asks a person.",
        example="review",
    )

    def query(self, context: Context, *, create: bool, scope: str = "") -> ContactQuery:
        """Whom to find."""
        return ContactQuery(self.email, self.phone, context, self.on_multiple, create, scope)


@dataclass(frozen=True)
class ContactMatch:
    """A record of the CRM that may be the person."""

    id: str
    emails: Sequence[str] = ()
    phones: Sequence[str] = ()
    """As people typed them."""
    activity: tuple[str, ...] = ()
    """Sorts by how recently the record was active; the latest wins."""
    zone: str | None = None
    """The time zone where the person lives, by its IANA name; capitals do not matter, an unknown name is no zone."""


@dataclass(frozen=True)
class ContactQuery:
    """Whom to find for one delivery."""

    email: str | None
    phone: str | None
    context: Context
    on_multiple: str = "newest"
    create: bool = True
    scope: str = ""
    """A map of its own, for records that are not the person as a whole (`lead:` for leads alone)."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Under which names the identity map knows the person; the e-mail tells more than a shared phone."""
        return tuple(self.key(kind) for kind in ("email", "phone") if getattr(self, kind))

    def key(self, kind: str) -> str:
        """The name for one kind of address."""
        return f"{self.scope}{kind}:{getattr(self, kind)}".lower()

    def forget(self) -> None:
        """The remembered record is deleted, merged or converted: ask the CRM next time."""
        self.context.contact_cache.forget(self.keys)


@dataclass(frozen=True)
class ContactRef:
    """The record that stands for the person."""

    id: str
    detail: str = ""
    """How it was found, in words for the log page; empty when there is nothing to say."""
    remembered: bool = False
    """Taken from the identity map without asking: the record may be gone by now."""
    made: bool = False
    """It was not there and was just made."""


class ContactSource(Protocol):
    """A CRM's records of people."""

    def by_email(self, emails: Sequence[str]) -> Iterable[ContactMatch]:
        """All records that have one of these addresses."""
        ...

    def by_phone(self, phones: Sequence[str]) -> Iterable[ContactMatch]:
        """All records that may have one of these numbers; they are compared again here."""
        ...

    def create(self, strangers: Sequence[ContactQuery]) -> Sequence[str | DeliveryError]:
        """A record for each of them, in their order: its id, or why there is none."""
        ...


BatchResult = Success | DeliveryError | LookupInconclusive
"""What one delivery of a batch comes to."""
Found = ContactRef | DeliveryError | LookupInconclusive | None
"""None: nobody, either not to be created or without e-mail and phone."""


class ContactDeleted(PermanentError):
    """The person's record is deleted, merged or converted; `write_for_contacts` looks for the person once more."""

    def __init__(self) -> None:
        super().__init__("the person's record is gone", code="person_gone")


def resolve_contacts(directory: ContactSource, queries: Sequence[ContactQuery]) -> list[Found]:
    """The person of each seeker, in their order; they are of one connection, which remembers what is found.

    The CRM is asked once for all e-mails and once for all phones that are not remembered.
    """
    found: list[Found] = [None] * len(queries)
    keys = {key for query in queries for key in query.keys}
    if not keys:
        return found
    memory = queries[0].context.contact_cache
    known = memory.get(keys)
    learned: dict[str, str] = {}
    zones: dict[str, str] = {}
    # Whoever creates looks again: a person whom nobody knew may have been added since.
    missing = [
        index
        for index, query in enumerate(queries)
        if query.keys and (query.create or any(known.get(key) != "" for key in query.keys))
    ]
    steps: tuple[tuple[str, Callable[[Sequence[str]], Iterable[ContactMatch]]], ...] = (
        ("email", directory.by_email),
        ("phone", directory.by_phone),
    )
    for kind, ask in steps:
        having = [index for index in missing if getattr(queries[index], kind)]
        for index in having:
            if remembered := known.get(queries[index].key(kind)):
                found[index] = ContactRef(remembered, remembered=True)
        asked = [index for index in having if found[index] is None]
        if asked:
            matches = tuple(ask(sorted({getattr(queries[index], kind) for index in asked})))
            for index in asked:
                found[index] = _choice(queries[index], kind, matches, learned, zones)
        missing = [index for index in missing if found[index] is None]
    _create(directory, [index for index in missing if queries[index].create], queries, found, learned)
    if learned:
        memory.remember(learned)
    if zones:
        memory.remember_zones(zones)
    nobody = {key: "" for index in missing if found[index] is None for key in queries[index].keys}
    if nobody:
        memory.remember(nobody, NOBODY_FOR)
    return found


def resolve_contact(
    directory: ContactSource, query: ContactQuery, read: Callable[[str], Mapping[str, Any] | None]
) -> tuple[ContactRef, Mapping[str, Any] | None]:
    """The seeker's person and what `read` says of the record now; None when it was just made.

    `read` answers None for a record that is gone. Raises PermanentError when there is nobody.
    """
    [found] = resolve_contacts(directory, [query])
    if found is None:
        raise PermanentError(
            "the CRM does not know this person" if query.keys else "the event has neither e-mail nor phone",
            code="not_found",
        )
    if not isinstance(found, ContactRef):
        raise found
    if found.made:
        return found, None
    current = read(found.id)
    if current is not None:
        return found, current
    query.forget()
    if found.remembered:
        return resolve_contact(directory, query, read)
    raise _behind()


def write_for_contacts(
    directory: ContactSource,
    queries: Mapping[str, ContactQuery],
    write: Callable[[Mapping[str, ContactRef | None]], Mapping[str, Success | DeliveryError]],
) -> dict[str, BatchResult]:
    """Write something for the person of each seeker, and once more for those whose remembered record is gone.

    `write` is given the people that were found and answers for each; where the record is gone, with ContactDeleted.
    """
    found = dict(zip(queries, resolve_contacts(directory, list(queries.values())), strict=True))
    answers: dict[str, BatchResult] = {}
    people: dict[str, ContactRef | None] = {}
    for key, person in found.items():
        if isinstance(person, DeliveryError | LookupInconclusive):
            answers[key] = person
        else:
            people[key] = person
    again: dict[str, ContactQuery] = {}
    for key, answer in write(people).items() if people else ():
        person = people[key]
        answers[key] = answer
        if isinstance(answer, ContactDeleted):
            queries[key].forget()
            answers[key] = _behind()
            if person is not None and person.remembered:
                again[key] = queries[key]
        elif isinstance(answer, Success) and person is not None and person.detail:
            detail = f"{answer.detail}; {person.detail}" if answer.detail else person.detail
            answers[key] = Success(answer.id, detail)
    return answers | write_for_contacts(directory, again, write) if again else answers


def _behind() -> TransientError:
    return TransientError("the CRM's search still shows a record that is gone", retry_after=INDEX_LAG)


def _choice(
    query: ContactQuery,
    kind: str,
    matches: Sequence[ContactMatch],
    learned: dict[str, str],
    zones: dict[str, str],
) -> ContactRef | LookupInconclusive | None:
    value = getattr(query, kind)
    fitting = {match.id: match for match in matches if _fits(match, kind, value)}
    if not fitting:
        return None
    if len(fitting) > 1 and query.on_multiple == "review":
        return LookupInconclusive(
            f"{len(fitting)} records have this {kind}; merge them in the CRM or correct one, then send it again"
        )
    best = max(fitting.values(), key=lambda match: (match.activity, match.id))
    # A number that the record does not have may be another record's; an unknown e-mail can mislead nobody.
    kinds = {kind, *(["email"] if query.email else [])}
    if query.phone and any(same_number(phone, query.phone) for phone in best.phones):
        kinds.add("phone")
    learned.update((query.key(known), best.id) for known in kinds)
    zone = _iana_names().get(best.zone.lower()) if best.zone else None
    if zone is not None:
        zones.update((getattr(query, known), zone) for known in kinds)
    several = f"{len(fitting)} records have this {kind}, the most recently active was taken"
    return ContactRef(best.id, several if len(fitting) > 1 else "")


@cache
def _iana_names() -> Mapping[str, str]:
    return {name.lower(): name for name in available_timezones()}


def _fits(match: ContactMatch, kind: str, value: str) -> bool:
    if kind == "email":
        return any(email.lower() == value.lower() for email in match.emails)
    return any(same_number(phone, value) for phone in match.phones)


def _create(
    directory: ContactSource,
    indices: Sequence[int],
    queries: Sequence[ContactQuery],
    found: list[Found],
    learned: dict[str, str],
) -> None:
    """Create each missing person once, though several deliveries of the batch may be about the same one."""
    first: dict[str, int] = {}
    twins: dict[int, int] = {}
    for index in indices:
        keys = queries[index].keys
        twin = next((first[key] for key in keys if key in first), index)
        twins[index] = twin
        first.update((key, twin) for key in keys if key not in first)
    strangers = [index for index in indices if twins[index] == index]
    if not strangers:
        return
    for index, made in zip(strangers, directory.create([queries[index] for index in strangers]), strict=True):
        found[index] = ContactRef(made, "a new person", made=True) if isinstance(made, str) else made
    for index in indices:
        person = found[index] = found[twins[index]]
        if isinstance(person, ContactRef):
            learned.update(dict.fromkeys(queries[index].keys, person.id))


def same_number(typed: str, number: str) -> bool:
    """Whether a number as people type it is the E.164 `number`; without a country code, one of its country is meant."""
    return typed == number or _e164(typed, _region(number)) == number


def national_digits(number: str) -> str:
    """The digits without the country code, which is how CRMs index numbers."""
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
