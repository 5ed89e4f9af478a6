"""Values of rules for the fields of an org: in the type of the field, and without fields that the object type lacks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from bridge.connector import Property
from bridge.errors import PermanentError

from .describe import FieldDescription
from .org import Org

Access = Literal["createable", "updateable"]
_OTHER_TYPE = {"Contact": "Lead", "Lead": "Contact"}
_STANDARD = {"LeadSource"}
"""Fields that every contact and lead has: with these alone, the org's description is not read."""
_NUMBERS = ("double", "currency", "percent")
_TEXT_TYPES = (
    "string", "textarea", "picklist", "phone", "email", "url", "combobox", "encryptedstring", "id", "reference",
    "multipicklist",
)  # fmt: skip


def writable_fields(
    org: Org, object_type: str, values: Mapping[str, Any], access: Access
) -> tuple[dict[str, Any], list[str]]:
    """Return the values in the types of their fields, and notes about those that were left out.

    A field that only the other one of Contact and Lead has is left out. Raise PermanentError for a field that neither
    has, or that the integration user may not write.
    """
    if values.keys() <= _STANDARD:
        return dict(values), []
    fields, notes = _fields(org, object_type, values, access)
    return {field.name: to_type(values[name], field) for name, field in fields.items()}, notes


def typed_properties(
    org: Org, object_type: str, properties: Mapping[str, Property], access: Access
) -> tuple[dict[str, Property], list[str]]:
    """Return those properties that have a value, as `writable_fields` does."""
    given = {name: item for name, item in properties.items() if item.value not in (None, "")}
    fields, notes = _fields(org, object_type, given, access)
    return {
        field.name: Property(value=to_type(given[name].value, field), mode=given[name].mode)
        for name, field in fields.items()
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


def to_type(value: Any, field: FieldDescription) -> Any:
    """Return a value in the type of its field: `5` and not `5.0` for a text, `a;b` for a multi-select picklist.

    A value that cannot be read as this type is returned as it is: Salesforce's refusal then names the field.
    """
    if isinstance(value, list | tuple):
        separator = ";" if field.type == "multipicklist" else ", "
        return separator.join(str(_to_text(item)) for item in value if item is not None)
    if field.type in _TEXT_TYPES:
        return _to_text(value)
    if field.type == "boolean" and isinstance(value, str):
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
            value.strip().lower(), value
        )
    if field.type in ("int", "long") and not isinstance(value, bool):
        return _to_integer(value)
    if field.type in _NUMBERS and isinstance(value, str):
        number = _to_number(value)
        return value if number is None else number
    if field.type == "date" and isinstance(value, str):
        return value[:10]
    return value


def _to_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def _to_integer(value: Any) -> Any:
    number = _to_number(value)
    return int(number) if number is not None and number.is_integer() else value


def _to_number(value: Any) -> float | None:
    """Return a number or numeric text as a number, None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


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
