"""The part of a contact that the bridge knows or can add: which fields a CRM's record has, and values to fill in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from bridge.contacts.parse import Contact

ContactField = Literal["name", "email", "phone", "company"]
"""A field of a contact that every CRM has."""
CONTACT_FIELDS: tuple[ContactField, ...] = ("name", "email", "phone", "company")


@dataclass(frozen=True)
class ContactProfile:
    """A CRM's record as it was when the bridge last read or wrote it."""

    name: str = ""
    """Full name, empty if the record has none."""
    empty: frozenset[ContactField] = frozenset()
    """Fields that were empty and have not been refused. The bridge fills in only these."""


@dataclass(frozen=True)
class ContactDetails:
    """Values to write to empty fields of a record. None leaves a field as it is."""

    first_name: str | None = None
    """First name, or the whole name if the event does not give its parts."""
    last_name: str | None = None
    """Last name."""
    email: str | None = None
    """Email address."""
    phone: str | None = None
    """Phone number (E.164)."""
    company: str | None = None
    """Name of the company."""

    @property
    def fields(self) -> frozenset[ContactField]:
        """The fields that have a value."""
        values: Mapping[ContactField, str | None] = {
            "name": self.first_name or self.last_name,
            "email": self.email,
            "phone": self.phone,
            "company": self.company,
        }
        return frozenset(field for field, value in values.items() if value)

    def only(self, fields: Collection[ContactField]) -> ContactDetails:
        """Return these details without the fields that are not in `fields`."""
        return ContactDetails(
            self.first_name if "name" in fields else None,
            self.last_name if "name" in fields else None,
            self.email if "email" in fields else None,
            self.phone if "phone" in fields else None,
            self.company if "company" in fields else None,
        )


def full_name(person: Contact) -> str:
    """Return the name that an event gives, empty if it gives none."""
    return person.name or " ".join(part for part in (person.first_name, person.last_name) if part)
