"""Checks of one field that a rule sets: it exists, the integration user may write it, and it takes the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bridge.connector import FROM_EVENT, did_you_mean, find_option, to_items, to_text

from .account_errors import PERMISSION_SET
from .describe import FieldDescription
from .field_values import fit_value

Problem = tuple[str, str, Literal["error", "warning"]]
"""What is wrong, a hint, and the level."""


class DescribedField:
    """A field as Salesforce describes it, of the first object type that has it."""

    def __init__(self, object_type: str, field: Mapping[str, Any], description: Mapping[str, Any]) -> None:
        self.object_type = object_type
        self.name = str(field["name"])
        self.type = str(field.get("type", "string"))
        self.length = int(field.get("length") or 0)
        self.is_restricted = bool(field.get("restrictedPicklist"))
        values = field.get("picklistValues") or ()
        self.values = {
            str(item["value"]): str(item.get("label", "")) for item in values if item.get("active")
        }
        self.record_types = description.get("recordTypeInfos") or ()

    @property
    def full_name(self) -> str:
        """`Case.Origin`."""
        return f"{self.object_type}.{self.name}"


def find_described(
    descriptions: Mapping[str, Mapping[str, Any]], name: str, access: str
) -> DescribedField | Problem:
    """Return the field of the first object type that has it, or what is wrong with its name or permission."""
    names: list[str] = []
    read_only = ""
    for object_type, description in descriptions.items():
        for field in description["fields"]:
            names.append(str(field["name"]))
            if field["name"].lower() == name.lower():
                if field.get(access, True):
                    return DescribedField(object_type, field, description)
                read_only = f"{object_type}.{field['name']}"
    if read_only:
        return (
            f"the integration user may not write {read_only}",
            f"grant Edit access to the field under Object Settings in {PERMISSION_SET}, unless it is computed",
            "error",
        )
    return (
        f"{' and '.join(descriptions)} have no field `{name}` that the integration user can see"
        if len(descriptions) > 1
        else f"{next(iter(descriptions))} has no field `{name}` that the integration user can see",
        did_you_mean(name, dict.fromkeys(names))
        or f"write its API name, or grant Read and Edit access to it in {PERMISSION_SET}",
        "error",
    )


def required_fields(description: Mapping[str, Any]) -> list[str]:
    """Return the custom fields that a new record must have. Salesforce fills in required standard fields itself."""
    return [
        str(field["name"])
        for field in description["fields"]
        if field.get("custom")
        and field.get("createable")
        and not field.get("nillable", True)
        and not field.get("defaultedOnCreate")
        and field.get("type") != "boolean"
    ]


def check_value(field: DescribedField, written: str, value: Any) -> Problem | None:
    """Return why the field does not take the value. `written` is how the rule calls the field."""
    values = value if isinstance(value, list) else [value]
    for item in values:
        problem = None if item is None or item is FROM_EVENT else _check_item(field, written, item)
        if problem is not None:
            return problem
    return None


def _check_item(field: DescribedField, written: str, value: Any) -> Problem | None:
    text = to_text(value).strip()
    if field.name == "RecordTypeId":
        return _record_type_problem(field, text)
    if field.type in ("picklist", "multipicklist"):
        parts = to_items(value, field.values) if field.type == "multipicklist" else [text]
        return next(filter(None, (_option_problem(field, written, to_text(part)) for part in parts)), None)
    fitted = fit_value(value, FieldDescription(field.name, field.type, True, True, length=field.length))
    if fitted.value is None:
        return (
            f"`{written}` ({field.full_name}) takes a value of type {field.type}, not `{text[:40]}`",
            "",
            "error",
        )
    if fitted.problem:
        return f"`{written}` ({field.full_name}) has room for {field.length} characters", "", "error"
    return None


def _option_problem(field: DescribedField, written: str, value: str) -> Problem | None:
    if not field.values or find_option(value, field.values) is not None:
        return None
    hint = did_you_mean(value, field.values)
    text = f"`{value[:60]}` is not a value of `{written}` ({field.full_name})"
    if field.is_restricted:
        return text, hint, "error"
    return f"{text}; Salesforce accepts it, but reports and filters do not know it", hint, "warning"


def _record_type_problem(field: DescribedField, value: str) -> Problem | None:
    usable: Sequence[Mapping[str, Any]] = [
        item for item in field.record_types if item.get("available") and item.get("active", True)
    ]
    if any(str(item["recordTypeId"])[:15] == value[:15] for item in usable):
        return None
    by_name = next((item for item in usable if str(item.get("name", "")).lower() == value.lower()), None)
    if by_name is not None:
        return "`RecordTypeId` takes an ID, not a name", f"write {by_name['recordTypeId']}", "error"
    known = ", ".join(
        f"{item['recordTypeId']} ({item.get('name')})" for item in usable if not item.get("master")
    )
    return (
        f"`{value[:40]}` is not a record type of {field.object_type} that the integration user may use",
        f"one of: {known}" if known else f"assign it under Object Settings in {PERMISSION_SET}",
        "error",
    )
