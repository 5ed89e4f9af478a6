"""The schema of an org: object types, fields and their valid values."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import phonenumbers

from bridge.sandbox.salesforce.errors import RecordError

_ID = re.compile(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?")
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@dataclass(frozen=True)
class Field:
    """A field of an object type, as the describe API shows it."""

    name: str
    type: str = "string"
    length: int = 255
    values: tuple[str, ...] = ()
    restricted: bool = False
    required: bool = False
    createable: bool = True
    updateable: bool = True
    references: tuple[str, ...] = ()
    unique: bool = False
    external_id: bool = False

    @property
    def custom(self) -> bool:
        """True if the field is a custom field."""
        return self.name.endswith("__c")

    @property
    def indexed(self) -> bool:
        """True if the field has an index."""
        return self.external_id or self.type in ("email", "phone")

    @property
    def filterable(self) -> bool:
        """True if a WHERE clause may use the field. Long text areas cannot be filtered."""
        return not (self.type == "textarea" and self.length > 255)

    def validate(self, value: Any) -> Any:
        """Return the value as it will be stored. Raise RecordError if it is invalid."""
        if value is None or value == "":
            if self.required:
                raise RecordError(
                    "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{self.name}]", [self.name]
                )
            return False if self.type == "boolean" else None
        if self.type == "boolean":
            return self._typed(value, bool)
        if self.type == "int":
            return self._typed(value, int)
        if self.type in ("double", "currency"):
            return self._typed(value, (int, float))
        text: str = self._typed(value, str)
        if self.type == "date":
            return self._date(text)
        if self.type == "datetime":
            return self._datetime(text)
        if self.type == "reference":
            if not _ID.fullmatch(text):
                raise RecordError(
                    "MALFORMED_ID", f"{self.name}: id value of incorrect type: {text}", [self.name]
                )
            return long_id(text)
        if self.type == "email" and not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+\.[^@\s,<>]+", text):
            raise RecordError(
                "INVALID_EMAIL_ADDRESS", f"{self.name}: invalid email address: {text}", [self.name]
            )
        chosen = text.split(";") if self.type == "multipicklist" else [text]
        if self.restricted and not set(chosen) <= set(self.values):
            raise RecordError(
                "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                f"{self.name}: bad value for restricted picklist field: {text}",
                [self.name],
            )
        if len(text) > self.length:
            raise RecordError(
                "STRING_TOO_LONG",
                f"{self.name}: data value too large: {text[:80]} (max length={self.length})",
                [self.name],
            )
        return text

    def _typed(self, value: Any, python_type: Any) -> Any:
        fits = isinstance(value, python_type) and (python_type is bool or not isinstance(value, bool))
        if not fits:
            json_types = {
                str: "VALUE_STRING",
                bool: "VALUE_TRUE",
                int: "VALUE_NUMBER_INT",
                float: "VALUE_NUMBER_FLOAT",
            }
            raise RecordError(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of {self.type} from {json_types.get(type(value), 'START_OBJECT')} "
                f"value {str(value)[:40]} or request may be missing a required field: {self.name}",
            )
        return value

    def _date(self, text: str) -> str:
        try:
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
                raise ValueError
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise RecordError(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of date from VALUE_STRING value {text[:40]}: {self.name}",
            ) from None

    def _datetime(self, text: str) -> str:
        try:
            parsed = datetime.fromisoformat(text)
            if len(text) == 10 or parsed.tzinfo is None:
                raise ValueError
        except ValueError:
            raise RecordError(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of datetime from VALUE_STRING value {text[:40]}: {self.name}",
            ) from None
        return format_timestamp(parsed)

    def as_json(self) -> dict[str, Any]:
        """Return the field as the describe API shows it."""
        return {
            "name": self.name,
            "label": self.name.removesuffix("__c").replace("_", " "),
            "type": self.type,
            "length": self.length if self.type in ("string", "textarea", "phone", "email", "picklist") else 0,
            "custom": self.custom,
            "createable": self.createable,
            "updateable": self.updateable,
            "nillable": not self.required,
            "defaultedOnCreate": False,
            "filterable": self.filterable,
            "externalId": self.external_id,
            "idLookup": self.external_id or self.name in ("Id", "Email"),
            "unique": self.unique,
            "caseSensitive": False,
            "restrictedPicklist": self.restricted,
            "referenceTo": list(self.references),
            "relationshipName": self.name.removesuffix("Id") if self.references else None,
            "picklistValues": [
                {"value": value, "label": value, "active": True, "defaultValue": False}
                for value in self.values
            ],
        }


@dataclass(frozen=True)
class RecordType:
    """A record type of an object type."""

    id: str
    name: str
    available: bool
    """Whether it is assigned to the integration user."""


@dataclass
class SObjectType:
    """A type of record."""

    name: str
    prefix: str
    fields: dict[str, Field] = field(default_factory=dict)
    hidden_fields: dict[str, Field] = field(default_factory=dict)
    """Fields that field-level security hides from the integration user."""
    record_types: dict[str, RecordType] = field(default_factory=dict)
    """Record types by ID, besides the master record type."""

    def record_type_infos(self) -> list[dict[str, Any]]:
        """Return the record types as the describe API shows them."""
        master = RecordType("012000000000000AAA", "Master", True)
        return [
            {
                "recordTypeId": item.id,
                "name": item.name,
                "available": item.available,
                "active": True,
                "master": item is master,
            }
            for item in (*self.record_types.values(), master)
        ]

    def field(self, name: str) -> Field | None:
        """Return a field by its case-insensitive name."""
        return self.fields.get(name) or next(
            (definition for definition in self.fields.values() if definition.name.lower() == name.lower()),
            None,
        )


def long_id(value: str) -> str:
    """Return the 18-character form of an ID that may have 15 characters."""
    if len(value) != 15:
        return value
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << position for position in range(5) if value[start + position].isupper())
        suffix += _SUFFIX[bits]
    return value + suffix


def phone_words(value: str) -> list[str]:
    """Return the search words of a phone number: its groups of digits, all digits, and the national number."""
    words = [*re.findall(r"\d+", value), re.sub(r"\D", "", value)]
    with contextlib.suppress(phonenumbers.NumberParseException):
        words.append(str(phonenumbers.parse(value, "US").national_number))
    return [word for word in dict.fromkeys(words) if word]


def format_timestamp(at: datetime) -> str:
    """Format a timestamp as Salesforce does."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
