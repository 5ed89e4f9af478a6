"""Fields of an object type, as the org describes them to the integration user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    options: Mapping[str, str] = field(default_factory=dict)
    """The active values of a picklist, and their labels."""
    restricted: bool = False
    """A picklist that accepts no other values."""
    length: int = 0
    """Characters that a text has room for. 0: no limit is known."""


def read_fields(description: Any) -> Mapping[str, FieldDescription]:
    """Return the fields of a `describe` answer by name. Raise OutcomeUnknown if it is not Salesforce's."""
    if not isinstance(description, Mapping) or "fields" not in description:
        raise OutcomeUnknown("the description of an object is not Salesforce's", reason="server_error")
    return {
        str(described["name"]): FieldDescription(
            str(described["name"]),
            str(described.get("type", "string")),
            bool(described.get("createable", True)),
            bool(described.get("updateable", True)),
            {
                str(item["value"]): str(item.get("label") or item["value"])
                for item in described.get("picklistValues") or ()
                if item.get("active")
            },
            bool(described.get("restrictedPicklist")),
            int(described.get("length") or 0),
        )
        for described in description["fields"]
    }
