"""The contact in an event: reads every field that Heppu documents, the most explicit one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.contacts.name import MAX_READ, PersonName, clean_name, is_name, is_placeholder, read_name
from bridge.contacts.plain_text import MAX_NAME, is_plain_name
from bridge.contacts.time_zone import residence_time_zone

_EMPTY: Final[Mapping[str, Any]] = {}
_FULL_NAME_PATHS: Final = ("metadata.contactName", "callMetadata.customer.name")
_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "name": _FULL_NAME_PATHS,
    "first_name": ("callMetadata.customer.firstName", "callMetadata.firstName", *_FULL_NAME_PATHS),
    "last_name": ("callMetadata.customer.lastName", "callMetadata.lastName", *_FULL_NAME_PATHS),
    "phone": ("metadata.contactPhone", "callMetadata.customer.phone"),
    "email": ("metadata.contactEmail", "callMetadata.customer.email"),
    "company": ("callMetadata.customer.company", "callMetadata.company", "metadata.company"),
    "time_zone": (
        "callMetadata.timezone",
        "callMetadata.customer.timezone",
        "callMetadata.context.timezone",
        "metadata.timezone",
    ),
    "visitor": ("metadata.visitorId",),
}
"""Field of the contact -> its paths in an event, the most explicit one first."""
_NAMES: Final = ("name", "first_name", "last_name", "company")
_NAME_PLACES: Final = tuple(
    (path, *path.rsplit(".", 1)) for path in dict.fromkeys(path for field in _NAMES for path in _PATHS[field])
)
"""The path of every name and company in an event, the path of its object, and its key there."""
_PROBLEMS: Final = {
    "name": (
        "is more than a name, such as a link, a phone number or a sentence, so messages to customers leave it out",
        "send the name alone",
    ),
    "email": ("is not one valid email address", "send one such as `maya@example.com`"),
    "time_zone": (
        "does not say where the contact lives",
        "send an IANA name of a place, such as `America/New_York`",
    ),
}
"""Field of the contact -> what is wrong with a value that cannot be read, and what to send instead."""


@dataclass
class Contact:
    """The person an event is about. A field is None if the event does not contain it.

    It is never changed, nor is an event. They are not frozen, because a frozen dataclass takes three times as long to
    create, and every webhook creates them.
    """

    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None
    email: str | None = None
    company: str | None = None
    time_zone: str | None = None
    visitor: str | None = None

    @property
    def plain_name(self) -> str | None:
        """The name in messages to customers: as given if it is plain, else the plain parts of it, if any."""
        if self.name is None or is_plain_name(self.name):
            return self.name
        return " ".join(filter(None, (self.first_name, self.last_name))) or None

    @property
    def key(self) -> str | None:
        """The contact's key in the database: the phone, else the email address, else the chat visitor's ID."""
        return self.phone or (self.email and address_key(self.email)) or self.visitor


@dataclass(frozen=True)
class UnreadableField:
    """A field of an event that has a value, but not one that the bridge understands."""

    field: str
    """The contact's field that stays empty, such as `phone`; for a field of no contact, its path."""
    path: str
    """Where the value is in the event, such as `metadata.contactPhone`."""
    problem: str
    """Why it cannot be read, as a predicate: `is a list, not a string`. Contains no part of the value."""
    hint: str = ""
    """What to send instead."""
    withheld: bool = False
    """True for a caller who withheld the number: nothing is wrong with the event."""

    @property
    def text(self) -> str:
        """The path, the problem and the hint as one sentence."""
        return f"{self.path} {self.problem}" + (f"; {self.hint}" if self.hint else "")


class ParsedContact(NamedTuple):
    """The contact of an event, and the fields that could not be read."""

    contact: Contact
    unreadable: tuple[UnreadableField, ...] = ()


def string_field(body: Mapping[str, Any], key: str) -> str | None:
    """Return the non-empty string under a key, stripped, or None for anything else."""
    value = body.get(key)
    return value.strip() or None if isinstance(value, str) else None


def contact_field_at(path: str) -> str | None:
    """Return the field of the contact that is read at a path of an event, if any."""
    return next((field for field, sources in _PATHS.items() if path in sources), None)


def contact_fields_below(path: str) -> list[str]:
    """Return the fields of the contact that are read at a path of an event or in the object there."""
    return [
        field
        for field, sources in _PATHS.items()
        if any(source == path or source.startswith(f"{path}.") for source in sources)
    ]


def parse_contact(body: Mapping[str, Any], country: str | None = None) -> ParsedContact:
    """Return the contact in a payload. Every field that Heppu documents is read, the most explicit one first.

    National phone numbers are read as numbers of `country` (ISO 3166 code, BRIDGE_DEFAULT_COUNTRY).
    """
    # Imported here, because it loads the numbering plans, which lists of names do not need.
    from bridge.contacts.phone import normalize_phone

    metadata, call = _object(body, "metadata"), _object(body, "callMetadata")
    customer, context = _object(call, "customer"), _object(call, "context")
    person = _read_person(metadata, call, customer)
    company = (
        string_field(customer, "company")
        or string_field(call, "company")
        or string_field(metadata, "company")
    )
    unreadable: list[UnreadableField] = []
    contact = Contact(
        name=person.name,
        first_name=person.first_name,
        last_name=person.last_name,
        phone=_first_readable(
            "phone",
            (metadata.get("contactPhone"), customer.get("phone")),
            normalize_phone,
            unreadable,
            country,
        ),
        email=_first_readable(
            "email", (metadata.get("contactEmail"), customer.get("email")), normalize_email, unreadable
        ),
        company=_read_company(company[:MAX_READ]) if company else None,
        time_zone=_first_readable(
            "time_zone",
            (
                call.get("timezone"),
                customer.get("timezone"),
                context.get("timezone"),
                metadata.get("timezone"),
            ),
            residence_time_zone,
            unreadable,
        ),
        visitor=clean_name(string_field(metadata, "visitorId")),
    )
    if person.name and not person.first_name and not person.last_name:
        unreadable += [_unplain(path) for path in _unplain_paths(body)[:1] if path not in _PATHS["company"]]
    return ParsedContact(contact, tuple(unreadable))


def contact_name(body: Mapping[str, Any]) -> str | None:
    """Return the name of the contact in a payload, without reading the rest of it."""
    call = _object(body, "callMetadata")
    return _read_person(_object(body, "metadata"), call, _object(call, "customer")).name


def unplain_names(body: Mapping[str, Any], contact: Contact) -> dict[tuple[str, ...], str]:
    """Return the names in rules of what a message to a customer leaves out, each with the reason.

    These are the names and companies that are not plain (`plain_text`), wherever the event has them.
    """
    paths = _unplain_paths(body)
    names = {("event", *path.split(".")): _unplain(path).text for path in paths}
    for field in _NAMES:
        value = getattr(contact, field)
        if field == "name" and contact.plain_name is not None:
            continue
        if value is not None and not is_plain_name(value):
            path = next((path for path in paths if path in _PATHS[field]), (paths or _PATHS[field])[0])
            names["contact", field] = _unplain(path).text
    return names


def _unplain_paths(body: Mapping[str, Any]) -> list[str]:
    """Return the paths of names and companies that are not plain."""
    call = _object(body, "callMetadata")
    objects = {
        "metadata": _object(body, "metadata"), "callMetadata": call,
        "callMetadata.customer": _object(call, "customer"),
    }  # fmt: skip
    found = []
    for path, parent, key in _NAME_PLACES:
        text = string_field(objects[parent], key)
        if text is None:
            continue
        value = " ".join(text.split())
        is_plain = len(value) <= MAX_NAME and is_plain_name(value)
        if not is_plain and any(char.isalnum() for char in value):
            found.append(path)
    return found


def _unplain(path: str) -> UnreadableField:
    return UnreadableField(contact_field_at(path) or "name", path, *_PROBLEMS["name"])


def _read_person(
    metadata: Mapping[str, Any], call: Mapping[str, Any], customer: Mapping[str, Any]
) -> PersonName:
    full, other_full = string_field(metadata, "contactName"), string_field(customer, "name")
    if full is None or (other_full is not None and other_full != full and not is_name(full)):
        full = other_full
    return read_name(
        full,
        string_field(customer, "firstName") or string_field(call, "firstName"),
        string_field(customer, "lastName") or string_field(call, "lastName"),
    )


@lru_cache(maxsize=4096)
def _read_company(text: str) -> str | None:
    company = clean_name(text)
    return None if company is None or is_placeholder(company) else company


def _first_readable(
    field: str,
    values: tuple[object, ...],
    read: Callable[..., str | None],
    unreadable: list[UnreadableField],
    *country: str | None,
) -> str | None:
    """Return the first value that `read` understands. If there are only others, add the first to `unreadable`.

    `values` are those at the field's `_PATHS`.
    """
    has_value = False
    for value in values:
        if value is not None:
            result = read(value, *country)
            if result is not None:
                return result
            has_value = True
    if has_value:
        for path, value in zip(_PATHS[field], values, strict=True):
            if value is not None and not (isinstance(value, str) and not value.strip()):
                unreadable.append(_unreadable(field, path, value, *country))
                break
    return None


def _unreadable(field: str, path: str, value: object, country: str | None = None) -> UnreadableField:
    if field != "phone":
        return UnreadableField(field, path, *_PROBLEMS[field])
    from bridge.contacts.phone import is_withheld, phone_problem

    problem, _, hint = phone_problem(value, country).partition(": ")
    return UnreadableField(field, path, problem, hint, is_withheld(value, country))


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else _EMPTY
