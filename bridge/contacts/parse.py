"""The contact in an event: reads every field that Heppu documents, the most explicit one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.contacts.name import clean_name
from bridge.contacts.phone import normalize_phone
from bridge.contacts.time_zone import residence_time_zone

_EMPTY: Final[Mapping[str, Any]] = {}
_TIME_ZONE_PATHS: Final = (
    "callMetadata.timezone",
    "callMetadata.customer.timezone",
    "callMetadata.context.timezone",
    "metadata.timezone",
)
_TIME_ZONE_PROBLEM: Final = (
    "does not say where the contact lives; send an IANA name of a place, such as `America/New_York`"
)


@dataclass(frozen=True)
class Contact:
    """The person an event is about. A field is None if the event does not contain it."""

    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None
    email: str | None = None
    company: str | None = None
    time_zone: str | None = None
    visitor: str | None = None

    @property
    def key(self) -> str | None:
        """The contact's key in the database: the phone, else the email address, else the chat visitor's ID."""
        return self.phone or (self.email and address_key(self.email)) or self.visitor


@dataclass(frozen=True)
class UnreadableField:
    """A field of an event that has a value, but not one that the bridge understands."""

    field: str
    """The contact's field that stays empty: `phone`, `email` or `time_zone`."""
    path: str
    """Where the value is in the event, such as `metadata.contactPhone`."""
    problem: str
    """Why it cannot be read and what to send instead. Contains no part of the value."""


@dataclass(frozen=True)
class ParsedContact:
    """The contact of an event, and the fields that could not be read."""

    contact: Contact
    unreadable: tuple[UnreadableField, ...] = ()


def string_field(body: Mapping[str, Any], key: str) -> str | None:
    """Return the non-empty string under a key, stripped, or None for anything else."""
    value = body.get(key)
    return value.strip() or None if isinstance(value, str) else None


def parse_contact(body: Mapping[str, Any], country: str | None = None) -> ParsedContact:
    """Return the contact in a payload. Every field that Heppu documents is read, the most explicit one first.

    National phone numbers are read as numbers of `country` (ISO 3166 code, BRIDGE_DEFAULT_COUNTRY).
    """
    metadata, call = _object(body, "metadata"), _object(body, "callMetadata")
    customer = _object(call, "customer")
    first_name = string_field(customer, "firstName") or string_field(call, "firstName")
    last_name = string_field(customer, "lastName") or string_field(call, "lastName")
    name = clean_name(
        string_field(metadata, "contactName")
        or string_field(customer, "name")
        or (f"{first_name} {last_name}" if first_name and last_name else first_name or last_name)
    )
    parts = name.split() if name else []
    unreadable: list[UnreadableField] = []
    contact = Contact(
        name=name,
        first_name=clean_name(first_name) or (parts[0] if parts else None),
        last_name=clean_name(last_name) or (parts[-1] if len(parts) > 1 else None),
        phone=normalize_phone(metadata.get("contactPhone"), country)
        or normalize_phone(customer.get("phone"), country),
        email=normalize_email(metadata.get("contactEmail")) or normalize_email(customer.get("email")),
        company=clean_name(
            string_field(customer, "company")
            or string_field(call, "company")
            or string_field(metadata, "company")
        ),
        time_zone=_first_readable(
            body, "time_zone", _TIME_ZONE_PATHS, residence_time_zone, _TIME_ZONE_PROBLEM, unreadable
        ),
        visitor=clean_name(string_field(metadata, "visitorId")),
    )
    return ParsedContact(contact, tuple(unreadable))


def _first_readable(
    body: Mapping[str, Any],
    field: str,
    paths: Sequence[str],
    read: Callable[[object], str | None],
    problem: str,
    unreadable: list[UnreadableField],
) -> str | None:
    """Return the first value that `read` understands. If there are only others, add the first to `unreadable`."""
    unread = None
    for path in paths:
        value = _value_at(body, path)
        result = read(value)
        if result is not None:
            return result
        if unread is None and value is not None and not (isinstance(value, str) and not value.strip()):
            unread = path
    if unread is not None:
        unreadable.append(UnreadableField(field, unread, problem))
    return None


def _value_at(body: Mapping[str, Any], path: str) -> object:
    *parents, key = path.split(".")
    for parent in parents:
        body = _object(body, parent)
    return body.get(key)


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else _EMPTY
