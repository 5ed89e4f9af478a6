"""Fields of Pipedrive's records: found by name or key, and values in the form that each type takes.

Custom fields have keys of 40 characters, which differ between companies. Rules name a field as users see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.connector import did_you_mean, find_option, to_boolean, to_day, to_items, to_number, to_text

PLURALS = {"person": "persons", "organization": "organizations", "deal": "deals", "activity": "activities"}
MAX_TEXT_LENGTH = 255
_TEXTS = ("varchar", "varchar_auto", "phone")
_IDS = ("user", "org", "people")
_STANDARD = {
    "person": ("owner_id", "org_id", "label_ids", "visible_to", "marketing_status"),
    "deal": ("probability", "expected_close_date", "label_ids", "visible_to"),
    "activity": ("public_description", "priority", "outcome", "location", "busy", "lead_id", "project_id"),
}
"""Kind of record -> standard fields that rules may set. Params of their own set the others."""


class WrongValue(ValueError):
    """A value that a field does not take. The message says what it takes, without the value."""


@dataclass(frozen=True)
class Field:
    """A field of an account."""

    code: str
    name: str
    type: str
    options: Mapping[str, str]
    """ID -> label."""
    is_custom: bool

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Field:
        """Return the field that the Fields API describes."""
        options = {
            str(option.get("id")): str(option.get("label"))
            for option in item.get("options") or ()
            if isinstance(option, dict)
        }
        return cls(
            str(item.get("field_code")),
            str(item.get("field_name")),
            str(item.get("field_type")),
            options,
            item.get("is_custom_field") is True,
        )

    def is_writable(self, kind: str) -> bool:
        """Return whether rules can set the field of this kind of record."""
        return self.is_custom or self.code in _STANDARD.get(kind, ())

    def convert(self, value: Any, currency: str) -> Any:
        """Return a value as Pipedrive takes it. Raise WrongValue. `currency` is that of an amount without one."""
        if self.type == "set":
            return [self._option(item) for item in to_items(value, self.options)]
        if self.type == "enum" and self.options:
            return self._option(value)
        if self.type in _TEXTS:
            text = to_text(value)
            if len(text) > MAX_TEXT_LENGTH:
                raise WrongValue(f"must have at most {MAX_TEXT_LENGTH} characters")
            return text
        if self.type == "double":
            return _number(value)
        if self.type == "monetary":
            return _amount(value, currency)
        if self.type == "date":
            day = to_day(value)
            if day is None:
                raise WrongValue("must be a date like 2026-03-02")
            return day.isoformat()
        if self.type in _IDS or self.code.endswith("_id"):
            return _id(value)
        if self.type in ("time", "address") or self.code == "location":
            return {"value": to_text(value)}
        if self.type in ("daterange", "timerange"):
            raise WrongValue("has a type that the bridge cannot write (a range)")
        if self.code == "busy":
            return value
        return _id(value) if self.code == "visible_to" else to_text(value)

    def _option(self, value: Any) -> int | str:
        option = find_option(value, self.options)
        if option is None and (meaning := to_boolean(value)) is not None:  # Pipedrive has no checkboxes
            same = [number for number, label in self.options.items() if to_boolean(label) is meaning]
            option = same[0] if len(same) == 1 else None
        if option is None:
            raise WrongValue(f"has no such option; its options are {', '.join(self.options.values())}")
        return int(option) if option.isdecimal() else option


class Fields:
    """The fields of one kind of record."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self._by_code = {field.code: field for field in fields}

    def find(self, name: str) -> Field | None:
        """Return the field with this key or name; None if there is none, or more than one of this name."""
        if name in self._by_code:
            return self._by_code[name]
        named = [field for field in self._by_code.values() if field.name.casefold() == name.casefold()]
        custom = [field for field in named if field.is_custom] or named
        return custom[0] if len(custom) == 1 else None

    def problem(self, kind: str, name: str) -> tuple[str, str] | None:
        """Return what is wrong with a field that a rule sets, and a hint; None if nothing is."""
        field = self.find(name)
        if field is None:
            same = [item for item in self._by_code.values() if item.name.casefold() == name.casefold()]
            if len(same) > 1:
                return (
                    f"Pipedrive has {len(same)} fields `{name}` of a {kind}",
                    "write the field's key instead",
                )
            known = [item.name for item in self._by_code.values() if item.is_writable(kind)]
            return f"Pipedrive's {PLURALS[kind]} have no field `{name}`", did_you_mean(name, known)
        if not field.is_writable(kind):
            return (
                f"the field `{name}` cannot be set here",
                "use the param of the action for it, or leave it out",
            )
        return None


def _number(value: Any) -> int | float:
    number = to_number(value)
    if number is None:
        raise WrongValue("must be a number")
    return number


def _amount(value: Any, currency: str) -> dict[str, Any]:
    if isinstance(value, str) and len(parts := value.split()) == 2:
        value, currency = (parts[0], parts[1]) if to_number(parts[0]) is not None else (parts[1], parts[0])
    number = to_number(value)
    if number is None or not (len(currency) == 3 and currency.isalpha()):
        raise WrongValue("must be an amount like 500 or `500 EUR`")
    return {"value": number, "currency": currency.upper()}


def _id(value: Any) -> int:
    number = to_number(value)
    if not isinstance(number, int) or number < 1:
        raise WrongValue("must be an ID (digits)")
    return number
