"""Contacts of a CRM: the query for one, the records that match, and the fields to write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from bridge.connector.action import Success
from bridge.connector.contact_profile import (
    CONTACT_FIELDS,
    ContactDetails,
    ContactField,
    ContactProfile,
    full_name,
)
from bridge.connector.context import Context
from bridge.connector.params import Email, Params, PhoneNumber, param
from bridge.contacts.address import address_key
from bridge.contacts.parse import Contact
from bridge.contacts.phone import same_number
from bridge.errors import DeliveryError, LookupInconclusive, PermanentError

AddressKind = Literal["email", "phone"]
ADDRESS_KINDS: tuple[AddressKind, ...] = ("email", "phone")
Scalar = str | int | float | bool
FieldValue = Scalar | list[Scalar]
"""A list is for a field that takes several options; a text field gets its items with `, ` between them."""


def _field_value(value: object) -> object:
    """Return a JSON value as a field takes it: a list without what is missing, an object as its JSON text."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        items = [item for item in value if item is not None]
        return [
            json.dumps(item, ensure_ascii=False) if isinstance(item, list | dict) else item for item in items
        ]
    return value


EventValue = Annotated[FieldValue, BeforeValidator(_field_value), WithJsonSchema({})]
"""A param that takes any value of an event; an action leaves out what does not fit the field."""


class Property(BaseModel):
    """A value for one of the CRM's own fields. With `mode: fill`, it is only written to an empty field."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    value: EventValue | None = None
    """The value; a missing one leaves the field unchanged."""
    mode: Literal["overwrite", "fill"] = "overwrite"
    """`overwrite`, or `fill` to write only to an empty field."""


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
) -> dict[str, FieldValue]:
    """Return the non-empty values; those with `fill` only if the field is empty in `current` (None: a new record)."""
    return {
        name: item.value
        for name, item in properties.items()
        if item.value not in (None, "", [])
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
    """External ID of the record."""
    emails: Sequence[str] = ()
    """Its email addresses."""
    phones: Sequence[str] = ()
    """As typed by CRM users, in any format."""
    activity: tuple[str, ...] = ()
    """Sort key of the last activity; the highest is the most recently active record."""
    zone: str | None = None
    """The contact's IANA time zone. Case does not matter; a name that is unknown or not that of a place is ignored."""
    first_name: str | None = None
    """Empty if the record has none, like the next two. None: the connector did not read it, or no such field exists."""
    last_name: str | None = None
    """Last name."""
    company: str | None = None
    """Company, as a name or an ID."""

    @property
    def name(self) -> str:
        """The full name, empty if the record has none or it was not read."""
        return " ".join(part for part in (self.first_name, self.last_name) if part)

    @property
    def profile(self) -> ContactProfile:
        """The name, and the fields that are known to be empty."""
        is_empty: Mapping[ContactField, bool] = {
            "name": self.first_name == "" or self.last_name == "",
            "email": not self.emails,
            "phone": not self.phones,
            "company": self.company == "",
        }
        return ContactProfile(self.name, frozenset(field for field in CONTACT_FIELDS if is_empty[field]))

    def has_address(self, kind: AddressKind, address: str) -> bool:
        """Return whether the record has this email address or phone number."""
        if kind == "email":
            return any(address_key(email) == address_key(address) for email in self.emails)
        return any(same_number(phone, address) for phone in self.phones)


@dataclass(frozen=True)
class ContactQuery:
    """The contact that one delivery needs."""

    email: str | None
    """Email address to search for."""
    phone: str | None
    """Phone number (E.164) to search for."""
    context: Context
    """Context of the delivery."""
    on_multiple: str = "newest"
    """The rule's choice if several records match: `newest` or `review`."""
    create: bool = True
    """Create the contact if none is found."""
    scope: str = ""
    """Prefix of the cache keys, for searches over some kinds of records only (`lead:` for leads)."""
    new_fields: dict[str, FieldValue] = field(default_factory=dict)
    """Fields to write if the contact is created, besides name and addresses."""

    @cached_property
    def addresses(self) -> Sequence[tuple[AddressKind, str]]:
        """The contact's addresses. The email comes first because a phone number may be shared."""
        return [(kind, address) for kind in ADDRESS_KINDS if (address := self.address(kind))]

    @cached_property
    def keys(self) -> Sequence[str]:
        """The cache keys of all addresses, in the order of `addresses`."""
        return [self.key(kind) for kind, _ in self.addresses]

    @cached_property
    def pair_key(self) -> str | None:
        """The cache key of both addresses together, for a record that only one of them leads to. None: one is missing.

        It ends with the phone number, so that erasing the number finds it, and so does erasing the email address.
        """
        if not (self.email and self.phone):
            return None
        return f"{self.scope}pair:{address_key(self.email)}:{address_key(self.phone)}"

    @cached_property
    def person(self) -> Contact:
        """The person that the addresses belong to: the event's contact, unless the rule names other addresses."""
        contact = self.context.contact
        is_contact = (self.email is not None and self.email == contact.email) or (
            self.phone is not None and self.phone == contact.phone
        )
        return contact if is_contact else Contact()

    @cached_property
    def name(self) -> str:
        """The person's name as the event gives it, empty if it gives none."""
        return full_name(self.person)

    @cached_property
    def details(self) -> ContactDetails:
        """Everything the event says about the person."""
        person = self.person
        return ContactDetails(
            person.first_name or (None if person.last_name else person.name),
            person.last_name,
            self.email,
            self.phone,
            person.company,
        )

    def address(self, kind: AddressKind) -> str | None:
        """Return the contact's email address or phone number, None if the event has none."""
        return self.email if kind == "email" else self.phone

    @cached_property
    def _keys(self) -> Mapping[AddressKind, str]:
        return {kind: f"{self.scope}{kind}:{address_key(self.address(kind) or '')}" for kind in ADDRESS_KINDS}

    def key(self, kind: AddressKind) -> str:
        """Return the cache key of one address."""
        return self._keys[kind]

    def link_key(self, kind: AddressKind) -> str:
        """Return the cache key of the contact's record, which may not have this address."""
        return f"link:{self.key(kind)}"

    def is_not_found(self, cached_ids: Mapping[str, str]) -> bool:
        """Return whether the cache says of every address that the CRM has no such contact."""
        return all(cached_ids.get(key) == "" for key in self.keys)

    def forget(self) -> None:
        """Remove the contact from the cache: its record has been deleted, merged or converted."""
        links = [self.link_key(kind) for kind, _ in self.addresses]
        pair = [self.pair_key] if self.pair_key else []
        self.context.contact_cache.forget([*self.keys, *links, *pair])


@dataclass(frozen=True)
class ContactRef:
    """The CRM record of a contact."""

    id: str
    """External ID of the record."""
    detail: str = ""
    """A note about how it was found, for the dashboard; empty if it was an ordinary match."""
    cached: bool = False
    """From the cache, without asking the CRM: the record may have been deleted since."""
    created: bool = False
    """No record existed, so this one was just created."""
    given_name: str = ""
    """The name that the event gives, if it is not the contact's: another person uses this number or address. Write
    it to the call, chat or task, never to the contact."""


@dataclass(frozen=True)
class NewContact:
    """The result of creating a contact."""

    id: str
    """External ID of the record."""
    refused: Mapping[ContactField, str] = field(default_factory=dict)
    """Fields that the CRM refused, with its error code: the record was created without them."""
    existing: bool = False
    """The CRM already has the contact and named its record."""
    kind: str = "contact"
    """The kind of record that was created, for the result of the delivery."""
    notes: Sequence[str] = ()
    """Notes on the new record, for the result of the delivery."""


@dataclass(frozen=True)
class ContactRefused:
    """The CRM refused every address of a contact, so a record could never be found again and was not created."""

    refused: Mapping[ContactField, str]
    """The fields with the CRM's error codes."""


@dataclass(frozen=True)
class FillResult:
    """The result of filling in empty fields of one record."""

    refused: Mapping[ContactField, str] = field(default_factory=dict)
    """Fields that the CRM refused, with its error code: the others were written."""
    duplicate: str | None = None
    """Another record that has the address to fill in, by the CRM's word; the address was not written."""


class ContactSource(Protocol):
    """A connector's access to the contact records of its CRM."""

    def by_email(self, emails: Sequence[str]) -> Iterable[ContactMatch]:
        """Return all records that have one of these addresses."""
        ...

    def by_phone(self, phones: Sequence[str]) -> Iterable[ContactMatch]:
        """Return all records that may have one of these numbers. The caller compares the numbers again."""
        ...

    def create(
        self, queries: Sequence[ContactQuery]
    ) -> Sequence[str | NewContact | ContactRefused | DeliveryError]:
        """Create one record per query and return, in their order, its external ID, a NewContact or the error."""
        ...


@runtime_checkable
class FillableContactSource(ContactSource, Protocol):
    """A source that can also complete existing records: `write_for_contacts` then fills in what an event adds."""

    def by_id(self, ids: Sequence[str]) -> Iterable[ContactMatch]:
        """Return the existing records among `ids`, as they are now and not as a search index has them."""
        ...

    def by_other_email(self, emails: Sequence[str]) -> Iterable[ContactMatch]:
        """Return records that have one of these as an additional address, which `by_email` does not find."""
        ...

    def fill(self, details: Mapping[str, ContactDetails]) -> Mapping[str, FillResult]:
        """Write values to empty fields of records, by external ID. Leave out what the CRM refuses."""
        ...


BatchResult = Success | DeliveryError | LookupInconclusive
"""The result of one delivery in a batch."""
ResolvedContact = ContactRef | DeliveryError | LookupInconclusive | None
"""None: no contact, because none may be created or the event has neither email nor phone."""


class ContactDeleted(PermanentError):
    """The contact's record has been deleted, merged or converted. `write_for_contacts` searches once more."""

    def __init__(self) -> None:
        super().__init__("the contact's record no longer exists", code="contact_deleted")
