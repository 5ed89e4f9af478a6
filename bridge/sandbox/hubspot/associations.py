"""Associations between records, as requests name them and as responses show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.sandbox.hubspot.errors import invalid
from bridge.sandbox.hubspot.schema import ObjectType

ASSOCIATIONS: Mapping[tuple[str, str], int] = {
    ("deals", "contacts"): 3,
    ("contacts", "deals"): 4,
    ("contacts", "tickets"): 15,
    ("tickets", "contacts"): 16,
    ("deals", "tickets"): 27,
    ("tickets", "deals"): 28,
    ("communications", "contacts"): 81,
    ("contacts", "communications"): 82,
    ("communications", "tickets"): 83,
    ("tickets", "communications"): 84,
    ("communications", "deals"): 85,
    ("deals", "communications"): 86,
    ("communications", "companies"): 87,
    ("companies", "communications"): 88,
    ("companies", "calls"): 181,
    ("calls", "companies"): 182,
    ("companies", "emails"): 185,
    ("emails", "companies"): 186,
    ("companies", "meetings"): 187,
    ("meetings", "companies"): 188,
    ("companies", "notes"): 189,
    ("notes", "companies"): 190,
    ("companies", "tasks"): 191,
    ("tasks", "companies"): 192,
    ("contacts", "calls"): 193,
    ("calls", "contacts"): 194,
    ("contacts", "emails"): 197,
    ("emails", "contacts"): 198,
    ("contacts", "meetings"): 199,
    ("meetings", "contacts"): 200,
    ("contacts", "notes"): 201,
    ("notes", "contacts"): 202,
    ("contacts", "tasks"): 203,
    ("tasks", "contacts"): 204,
    ("deals", "calls"): 205,
    ("calls", "deals"): 206,
    ("deals", "emails"): 209,
    ("emails", "deals"): 210,
    ("deals", "meetings"): 211,
    ("meetings", "deals"): 212,
    ("deals", "notes"): 213,
    ("notes", "deals"): 214,
    ("deals", "tasks"): 215,
    ("tasks", "deals"): 216,
    ("tickets", "calls"): 219,
    ("calls", "tickets"): 220,
    ("tickets", "emails"): 223,
    ("emails", "tickets"): 224,
    ("tickets", "meetings"): 225,
    ("meetings", "tickets"): 226,
    ("tickets", "notes"): 227,
    ("notes", "tickets"): 228,
    ("tickets", "tasks"): 229,
    ("tasks", "tickets"): 230,
    ("contacts", "companies"): 279,
    ("companies", "contacts"): 280,
    ("tickets", "companies"): 339,
    ("companies", "tickets"): 340,
    ("deals", "companies"): 341,
    ("companies", "deals"): 342,
}
"""HubSpot's own unlabeled association types: (from, to) -> type ID. The direction matters."""
FindId = Callable[[str, str], str | None]
"""Returns the current ID of an object by its type and ID, None if there is none."""


@dataclass(frozen=True)
class Association:
    """One direction of a link between two objects."""

    from_type: str
    from_id: str
    to_type: str
    to_id: str
    type_id: int
    category: str = "HUBSPOT_DEFINED"

    def reverse(self) -> Association:
        """Return the other direction."""
        type_id = ASSOCIATIONS[self.to_type, self.from_type]
        return Association(self.to_type, self.to_id, self.from_type, self.from_id, type_id, self.category)

    def as_result(self) -> dict[str, Any]:
        """Return the association as the response to a request that created it."""
        spec = {"associationCategory": self.category, "associationTypeId": self.type_id}
        return {"from": {"id": self.from_id}, "to": {"id": self.to_id}, "associationSpec": spec}

    def as_json(self) -> dict[str, Any]:
        """Return the association as one of those of its first object."""
        return {
            "toObjectId": self.to_id,
            "associationTypes": [{"category": self.category, "typeId": self.type_id, "label": None}],
        }


def parse_associations(kind: ObjectType, submitted: Any, find_id: FindId) -> list[Association]:
    """Return the associations of a create request, without the new object's ID. Raise ProviderError."""
    links = []
    if not isinstance(submitted, list):
        raise invalid("Invalid input JSON: associations must be a list")
    for item in submitted:
        to = item.get("to") if isinstance(item, dict) else None
        types = item.get("types") if isinstance(item, dict) else None
        if (
            not isinstance(to, dict)
            or not isinstance(to.get("id"), (str, int))
            or not isinstance(types, list)
        ):
            raise invalid("Invalid input JSON: an association needs to.id and types")
        links += [_parse_association(kind, str(to["id"]), spec, find_id) for spec in types]
    return links


def named_types(kind: ObjectType, submitted: Any) -> set[str]:
    """Return the object types that the associations of a create request lead to, also to missing objects."""
    type_ids = {
        spec.get("associationTypeId")
        for item in submitted or ()
        if isinstance(item, dict)
        for spec in item.get("types") or ()
        if isinstance(spec, dict)
    }
    return {
        to for (source, to), type_id in ASSOCIATIONS.items() if source == kind.name and type_id in type_ids
    }


def _parse_association(kind: ObjectType, to_id: str, spec: Any, find_id: FindId) -> Association:
    if not isinstance(spec, dict) or type(spec.get("associationTypeId")) is not int:
        raise invalid("Invalid input JSON: associationTypeId must be a number")
    if spec.get("associationCategory") != "HUBSPOT_DEFINED":
        raise invalid(f"invalid association category {spec.get('associationCategory')}")
    for (from_type, to_type), type_id in ASSOCIATIONS.items():
        if from_type == kind.name and type_id == spec["associationTypeId"]:
            target = find_id(to_type, to_id)
            if target is None:
                raise invalid(f"Object {to_type} with id {to_id} does not exist", toObjectId=to_id)
            return Association(kind.name, "", to_type, target, type_id)
    raise invalid(f"association type id {spec['associationTypeId']} doesn't exist from {kind.name}")
