"""Fields of Pipedrive's records: what a request may contain, and the custom fields of the account."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.sandbox.pipedrive.errors import forbidden, invalid

CURRENCIES = ("EUR", "GBP", "USD")
FIELD_TYPES = (
    "varchar", "varchar_auto", "text", "double", "monetary", "enum", "set", "user", "org", "people", "phone",
    "date", "daterange", "time", "timerange", "address",
)  # fmt: skip
MAX_TEXT = 255
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
_DURATION = re.compile(r"\d{2,3}:[0-5]\d(:[0-5]\d)?")
_CONTACT_SYNC = ("job_title", "notes", "im", "birthday", "postal_address")

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class FieldDefinition:
    """A field, as the Fields API describes it."""

    code: str
    name: str
    type: str
    options: Mapping[int, str]
    is_custom: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the field as API v2 does."""
        options = [{"id": number, "label": label} for number, label in self.options.items()]
        return {
            "field_code": self.code,
            "field_name": self.name,
            "field_type": self.type,
            "options": options or None,
            "subfields": None,
            "is_custom_field": self.is_custom,
            "is_optional_response_field": False,
        }


def custom_field(name: str, kind: str, options: tuple[str, ...], number: int) -> FieldDefinition:
    """Return a new custom field, whose code is a hash of 40 characters."""
    code = hashlib.sha1(f"{name}:{number}".encode(), usedforsecurity=False).hexdigest()
    return FieldDefinition(code, name, kind, {number * 100 + at: label for at, label in enumerate(options)})


def default_fields() -> dict[str, dict[str, FieldDefinition]]:
    """Return the fields of a new account, by kind of record."""
    standard: dict[str, tuple[tuple[str, str, str, dict[int, str]], ...]] = {
        "person": (
            ("name", "Name", "varchar", {}),
            ("owner_id", "Owner", "user", {}),
            ("org_id", "Organization", "org", {}),
            ("label_ids", "Labels", "set", {5: "Customer", 6: "Hot lead"}),
        ),
        "organization": (("name", "Name", "varchar", {}), ("owner_id", "Owner", "user", {})),
        "deal": (
            ("title", "Title", "varchar", {}),
            ("value", "Value", "double", {}),
            ("probability", "Probability", "double", {}),
            ("expected_close_date", "Expected close date", "date", {}),
            ("label_ids", "Labels", "set", {31: "Hot"}),
        ),
        "activity": (
            ("subject", "Subject", "varchar", {}),
            ("public_description", "Public description", "text", {}),
            ("priority", "Priority", "enum", {1: "Low", 2: "Medium", 3: "High"}),
        ),
    }
    return {
        kind: {
            code: FieldDefinition(code, name, type_, options, is_custom=False)
            for code, name, type_, options in rows
        }
        for kind, rows in standard.items()
    }


def is_id(value: Any) -> bool:
    """Return whether a value is an ID: API v2 accepts no texts for numbers."""
    return type(value) is int and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _matches(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(is_id(item) for item in value)


def _are_addresses(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("value"), str)
        and set(item) <= {"value", "primary", "label"}
        and _is_flag(item.get("primary", False))
        for item in value
    )


def _are_participants(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and set(item) <= {"person_id", "primary"}
        and is_id(item.get("person_id"))
        and _is_flag(item.get("primary", False))
        for item in value
    )


_COMMON: dict[str, Check] = {"owner_id": is_id, "custom_fields": lambda value: isinstance(value, dict)}
WRITABLE: dict[str, dict[str, Check]] = {
    "person": _COMMON
    | {
        "name": _is_text, "org_id": is_id, "emails": _are_addresses, "phones": _are_addresses,
        "visible_to": is_id, "label_ids": _are_ids, "marketing_status": _is_text,
    },
    "organization": _COMMON | {"name": _is_text, "visible_to": is_id, "label_ids": _are_ids},
    "deal": _COMMON
    | {
        "title": _is_text, "person_id": is_id, "org_id": is_id, "pipeline_id": is_id, "stage_id": is_id,
        "value": _is_number, "currency": lambda value: value in CURRENCIES, "status": _is_text,
        "probability": _is_number, "expected_close_date": _matches(_DATE), "visible_to": is_id,
        "label_ids": _are_ids,
    },
    "activity": {
        "subject": _is_text, "type": _is_text, "owner_id": is_id, "deal_id": is_id, "org_id": is_id,
        "lead_id": _is_text, "project_id": is_id, "due_date": _matches(_DATE), "due_time": _matches(_CLOCK),
        "duration": _matches(_DURATION), "busy": _is_flag, "done": _is_flag, "participants": _are_participants,
        "public_description": _is_text, "priority": is_id, "outcome": is_id, "note": _is_text,
        "location": lambda value: isinstance(value, dict) and isinstance(value.get("value"), str),
    },
}  # fmt: skip
"""Kind -> what a request may contain, and the test of each value."""
REQUIRED = {"person": "name", "organization": "name", "deal": "title", "activity": "subject"}


def validate(kind: str, body: Any, fields: Mapping[str, FieldDefinition], *, create: bool) -> dict[str, Any]:
    """Return the values of a request. Raise ProviderError for what API v2 refuses."""
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object")
    if kind == "activity" and "person_id" in body:
        raise invalid(
            "'person_id' is a read-only field. Add a primary participant to set 'person_id' instead."
        )
    for name, value in body.items():
        if kind == "person" and name in _CONTACT_SYNC:
            raise forbidden(f"'{name}' requires Contact Sync")
        check = WRITABLE[kind].get(name)
        if check is None:
            raise invalid(f"'{name}' is not allowed")
        if not check(value):
            raise invalid(f"'{name}' is not valid")
    required = REQUIRED[kind]
    if (create or required in body) and not str(body.get(required) or "").strip():
        raise invalid(f"'{required}' is required")
    for code, value in body.get("custom_fields", {}).items():
        definition = fields.get(code)
        if definition is None or not definition.is_custom:
            raise invalid(f"custom field '{code}' does not exist")
        if value is not None and not _is_custom_value(definition, value):
            raise invalid(f"Invalid value of custom field '{code}'")
    return body


def _is_custom_value(definition: FieldDefinition, value: Any) -> bool:
    kind = definition.type
    if kind in ("varchar", "varchar_auto", "phone"):
        return isinstance(value, str) and len(value) <= MAX_TEXT
    if kind == "enum":
        return type(value) is int and value in definition.options
    if kind == "set":
        return (
            isinstance(value, list)
            and bool(value)
            and all(type(item) is int and item in definition.options for item in value)
        )
    if kind == "monetary":
        return (
            isinstance(value, dict) and _is_number(value.get("value")) and value.get("currency") in CURRENCIES
        )
    if kind in ("user", "org", "people"):
        return is_id(value)
    if kind == "time":
        return isinstance(value, dict) and _matches(_CLOCK)(value.get("value"))
    if kind == "address":
        return isinstance(value, dict) and isinstance(value.get("value"), str)
    checks: dict[str, Check] = {"text": _is_text, "double": _is_number, "date": _matches(_DATE)}
    return checks[kind](value) if kind in checks else isinstance(value, dict)
