"""Custom properties, created through the properties API."""

from __future__ import annotations

import re
from typing import Any

from bridge.sandbox.hubspot.errors import error_response, invalid
from bridge.sandbox.hubspot.schema import ObjectType, PropertyDefinition
from bridge.sandbox.provider import ProviderError

MAX_UNIQUE_PROPERTIES = 10
_TYPES = ("string", "number", "date", "datetime", "enumeration", "bool")
_FIELD_TYPES = (
    "textarea",
    "text",
    "date",
    "file",
    "number",
    "select",
    "radio",
    "checkbox",
    "booleancheckbox",
    "calculation_equation",
)
_FIELDS = {
    "name",
    "label",
    "type",
    "fieldType",
    "groupName",
    "description",
    "options",
    "displayOrder",
    "hasUniqueValue",
    "hidden",
    "formField",
    "referencedObjectType",
    "calculationFormula",
    "externalOptions",
}


def parse_property(kind: ObjectType, body: dict[str, Any]) -> PropertyDefinition:
    """Return the property that a request defines. Raise ProviderError if it is invalid."""
    for name in body:
        if name not in _FIELDS:
            raise invalid(f'Invalid input JSON: Unrecognized field "{name}"')
    for name in ("name", "label", "type", "fieldType", "groupName"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise invalid(f"{name} is required", propertyName=name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", body["name"]) or body["name"].startswith("hs_"):
        raise invalid(f"Property name {body['name']} is not valid", propertyName=body["name"])
    if body["type"] not in _TYPES or body["fieldType"] not in _FIELD_TYPES:
        raise invalid(f"invalid property type {body['type']} with field type {body['fieldType']}")
    if body["groupName"] != kind.group:
        raise invalid(f"Property group {body['groupName']} does not exist", groupName=body["groupName"])
    if body["name"] in kind.properties:
        raise ProviderError(error_response(409, f"A property named '{body['name']}' already exists."))
    options = body.get("options") or []
    if not isinstance(options, list) or not all(
        isinstance(option, dict) and isinstance(option.get("value"), str) for option in options
    ):
        raise invalid("Invalid input JSON: options must be a list of labels and values")
    unique = body.get("hasUniqueValue", False)
    if unique not in (True, False):
        raise invalid("hasUniqueValue must be true or false")
    if unique and body["type"] not in ("string", "number"):
        raise invalid("only strings and numbers can be unique")
    if (
        unique
        and sum(existing.unique and existing.custom for existing in kind.properties.values())
        >= MAX_UNIQUE_PROPERTIES
    ):
        raise invalid(f"at most {MAX_UNIQUE_PROPERTIES} unique properties per object")
    return PropertyDefinition(
        body["name"],
        body["type"],
        tuple(option["value"] for option in options),
        unique,
        False,
        body["fieldType"],
        body["label"],
        body["groupName"],
        True,
        body.get("description") or "",
    )
