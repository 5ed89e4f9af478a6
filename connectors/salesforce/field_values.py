"""Values of rules for the fields of an org: in the type of the field. What does not fit is left out, with a note.

Salesforce refuses a whole record for one value of the wrong type. A structured result of a call, which a language model
has filled in, must not cost the call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bridge.connector import (
    Context,
    Property,
    find_option,
    shorten,
    to_boolean,
    to_day,
    to_instant,
    to_items,
    to_number,
    to_text,
)
from bridge.errors import PermanentError

from .describe import FieldDescription
from .org import Org
from .settings import ID_PATTERN

Access = Literal["createable", "updateable"]
Zone = Callable[[], str]
"""Returns the time zone of times that have none."""
VALUE_CODES = {
    "FIELD_FILTER_VALIDATION_EXCEPTION",
    "INVALID_EMAIL_ADDRESS",
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
    "MALFORMED_ID",
    "NUMBER_OUTSIDE_VALID_RANGE",
    "STRING_TOO_LONG",
}
"""Error codes for a value that only Salesforce can judge. The record is written without it if a rule has set it."""
_OTHER_TYPE = {"Contact": "Lead", "Lead": "Contact"}
_STANDARD = {"LeadSource"}
"""Fields that every contact and lead has: with these alone, the org's description is not read."""
_WHOLE_TEXTS = ("email", "phone", "url", "encryptedstring", "picklist")
"""Types of texts that mean nothing if they are cut."""


@dataclass(frozen=True)
class FittedValue:
    """A value as Salesforce takes it, and what does not fit."""

    value: Any = None
    """None: nothing fits."""
    problem: str = ""
    """Why nothing fits, or what became of the value; empty if the whole value fits."""


def writable_fields(
    org: Org, object_type: str, values: Mapping[str, Any], access: Access, context: Context
) -> tuple[dict[str, Any], list[str]]:
    """Return the values in the types of their fields, and notes about those that were left out.

    A field that only the other one of Contact and Lead has is left out, as a value that does not fit is. Raise
    PermanentError for a field that neither has, or that the integration user may not write.
    """
    if values.keys() <= _STANDARD:
        return dict(values), []
    fields, notes = _fields(org, object_type, values, access)
    fitted: dict[str, Any] = {}
    for name, field in fields.items():
        result = fit_value(values[name], field, lambda: context.contact.time_zone or org.time_zone)
        if result.value is not None:
            fitted[field.name] = result.value
        if result.problem:
            notes.append(
                f"without `{name}`, which {result.problem}"
                if result.value is None
                else f"`{name}` {result.problem}"
            )
    return fitted, notes


def typed_properties(
    org: Org, object_type: str, properties: Mapping[str, Property], access: Access, context: Context
) -> tuple[dict[str, Property], list[str]]:
    """Return those properties that have a value, as `writable_fields` does."""
    given = {name: item.value for name, item in properties.items() if item.value not in (None, "", [])}
    fitted, notes = writable_fields(org, object_type, given, access, context)
    modes = {name.lower(): properties[name].mode for name in given}
    return {
        name: Property.model_construct(value=value, mode=modes[name.lower()])
        for name, value in fitted.items()
    }, notes


def _fields(
    org: Org, object_type: str, names: Iterable[str], access: Access
) -> tuple[dict[str, FieldDescription], list[str]]:
    """Return the fields that the object type has, by the name that the rule gives, and a note about the others."""
    found: dict[str, FieldDescription] = {}
    absent: list[str] = []
    for name in names:
        field = find_field(org.fields(object_type), name)
        if field is not None and getattr(field, access):
            found[name] = field
            continue
        other = _OTHER_TYPE.get(object_type)
        if field is not None or other is None or find_field(org.fields(other), name) is None:
            raise _unwritable(object_type, name, exists=field is not None)
        absent.append(name)
    return found, (
        [f"without {', '.join(absent)}, which a {object_type.lower()} does not have"] if absent else []
    )


def find_field(fields: Mapping[str, FieldDescription], name: str) -> FieldDescription | None:
    """Return a field by its name. Uppercase and lowercase letters are the same to Salesforce."""
    return fields.get(name) or next(
        (field for field in fields.values() if field.name.lower() == name.lower()), None
    )


def fit_value(value: Any, field: FieldDescription, zone: Zone = lambda: "UTC") -> FittedValue:
    """Return a value in the type of its field: `5` and not `5.0` for a text, `a;b` for a multi-select picklist."""
    if field.type == "multipicklist":
        return _fit_options(value, field)
    if field.type == "picklist":
        option = find_option(value, field.options)
        if option is None and field.restricted:
            is_list = isinstance(value, list) and len(value) != 1
            return FittedValue(None, "takes one value, not a list" if is_list else "has no such value")
        return _fit_text(value, field) if option is None else FittedValue(option)
    if field.type not in _CONVERSIONS:
        return _fit_text(value, field)
    must_be, convert = _CONVERSIONS[field.type]
    item = value[0] if isinstance(value, list) and len(value) == 1 else value
    fitted = convert(item, zone)
    return FittedValue(fitted, "" if fitted is not None else f"takes {must_be}")


def refused_values(item: Mapping[str, Any], of_rule: Collection[str]) -> set[str]:
    """Return the fields of a rule of which Salesforce refuses the value, by its result of one record."""
    return {
        str(name)
        for error in item.get("errors") or ()
        if str(error.get("statusCode")) in VALUE_CODES
        for name in error.get("fields") or ()
        if name in of_rule
    }


def _fit_options(value: Any, field: FieldDescription) -> FittedValue:
    items = to_items(value, field.options)
    found = [
        find_option(item, field.options) or (None if field.restricted else to_text(item)) for item in items
    ]
    chosen = list(dict.fromkeys(option for option in found if option))
    if not chosen:
        return FittedValue(None, "has no such value")
    return FittedValue(";".join(chosen), "has no option for some of the values" if None in found else "")


def _fit_text(value: Any, field: FieldDescription) -> FittedValue:
    text = to_text(value)
    if not 0 < field.length < len(text):
        return FittedValue(text)
    if field.type in _WHOLE_TEXTS:
        return FittedValue(None, f"has room for {field.length} characters")
    return FittedValue(shorten(text, field.length), f"is cut to {field.length} characters")


def _whole_number(value: Any, _zone: Zone) -> int | None:
    number = to_number(value)
    return number if isinstance(number, int) else None


def _day(value: Any, _zone: Zone) -> str | None:
    day = to_day(value)
    return None if day is None else day.isoformat()


def _instant(value: Any, zone: Zone) -> str | None:
    instant = to_instant(value) or (to_instant(value, ZoneInfo(zone())) if to_day(value) else None)
    return None if instant is None else instant.isoformat(timespec="milliseconds")


def _record_id(value: Any, _zone: Zone) -> str | None:
    text = to_text(value).strip()
    return text if re.fullmatch(ID_PATTERN, text) and text.isascii() else None


_NUMBER = ("a number", lambda value, _zone: to_number(value))
_WHOLE = ("a whole number", _whole_number)
_CONVERSIONS: Mapping[str, tuple[str, Callable[[Any, Zone], Any]]] = {
    "boolean": ("true or false", lambda value, _zone: to_boolean(value)),
    "currency": _NUMBER,
    "date": ("a date like 2026-03-02", _day),
    "datetime": ("a time like 2026-03-02T15:00:00Z", _instant),
    "double": _NUMBER,
    "id": ("the ID of a record", _record_id),
    "int": _WHOLE,
    "long": _WHOLE,
    "percent": _NUMBER,
    "reference": ("the ID of a record", _record_id),
}
"""Type of a field -> what its value must be, and the conversion, which returns None for what it is not."""


def _unwritable(object_type: str, name: str, *, exists: bool) -> PermanentError:
    if exists:
        return PermanentError(
            f"this user may not write {object_type}.{name}: grant edit access to the field in its permission set",
            code="INVALID_FIELD",
        )
    owner = "contacts and leads have" if object_type in _OTHER_TYPE else f"a {object_type} has"
    return PermanentError(
        f"{owner} no field `{name[:40]}` that this user can read: use the API name, or grant access to the field",
        code="INVALID_FIELD",
    )
