"""Fields of an object type, as the org describes them to the integration user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import OutcomeUnknown


@dataclass(frozen=True)
class FieldDescription:
    """A field that the integration user can read."""

    name: str
    type: str
    """Salesforce's name of the type, such as `string`, `multipicklist` or `datetime`."""
    createable: bool
    updateable: bool
    values: tuple[str, ...] = ()
    """The active values of a picklist."""
    restricted: bool = False
    """A picklist that accepts no other values."""


def read_fields(description: Any) -> Mapping[str, FieldDescription]:
    """Return the fields of a `describe` answer by name. Raise OutcomeUnknown if it is not Salesforce's."""
    if not isinstance(description, Mapping) or "fields" not in description:
        raise OutcomeUnknown("the description of an object is not Salesforce's", reason="server_error")
    return {
        str(field["name"]): FieldDescription(
            str(field["name"]),
            str(field.get("type", "string")),
            bool(field.get("createable", True)),
            bool(field.get("updateable", True)),
            tuple(str(item["value"]) for item in field.get("picklistValues") or () if item.get("active")),
            bool(field.get("restrictedPicklist")),
        )
        for field in description["fields"]
    }
