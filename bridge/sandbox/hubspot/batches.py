"""HubSpot's batch operations: at most 100 inputs.

An invalid input fails the whole batch. A missing object fails only its own input.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.responses import Response

from bridge.sandbox.hubspot.associations import parse_associations
from bridge.sandbox.hubspot.crm import Crm, CrmObject
from bridge.sandbox.hubspot.errors import batch_error, invalid
from bridge.sandbox.hubspot.schema import ObjectType
from bridge.sandbox.provider import ProviderError

MAX_BATCH_INPUTS = 100


@dataclass
class BatchResult:
    """The result of a batch: objects (and whether they were created), and errors."""

    results: list[tuple[CrmObject, bool | None]] = field(default_factory=list)
    trace_ids: dict[str, str] = field(default_factory=dict)
    """ID of a created object -> the `objectWriteTraceId` of its input."""
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, crm_object: CrmObject, created: bool | None = None) -> None:
        """Add an object."""
        self.results.append((crm_object, created))

    def add_error(self, response: Response, identifier: str, key: str = "ids") -> None:
        """Add the error response of a rejected input."""
        error = json.loads(bytes(response.body))
        self.errors.append(batch_error(error["category"], error["message"], [identifier], key))


def inputs(body: dict[str, Any], maximum: int = MAX_BATCH_INPUTS) -> list[dict[str, Any]]:
    """Return the inputs of a batch. Raise ProviderError if they are not a list of objects or too many."""
    items = body.get("inputs")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise invalid("Invalid input JSON: inputs must be a list of objects")
    if len(items) > maximum:
        raise invalid(f"The batch has {len(items)} inputs; the maximum is {maximum}")
    return items


def create(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> BatchResult:
    """Create all objects, or none if one of them is invalid.

    If every input has a unique `objectWriteTraceId`, valid objects are created and only the others are errors.
    """
    items = _reject_unknown_fields(inputs(body), {"properties", "associations", "objectWriteTraceId"})
    trace_ids = [item.get("objectWriteTraceId") for item in items]
    independent = None not in trace_ids and len(set(map(str, trace_ids))) == len(trace_ids)
    result = BatchResult()
    validated = []
    for item in items:
        try:
            values = crm.validate_properties(kind, item.get("properties"), create=True)
            conflict = crm.conflict(kind, values, None)
            if conflict is not None:
                raise ProviderError(conflict)
            links = parse_associations(kind, item.get("associations") or [], crm.find_id)
            validated.append((values, links, item.get("objectWriteTraceId")))
        except ProviderError as error:
            if not independent:
                raise
            result.add_error(error.response, str(item["objectWriteTraceId"]), "objectWriteTraceId")
    for name in (name for name, definition in kind.properties.items() if definition.unique):
        _no_duplicates([values[name] for values, _, _ in validated if values.get(name)])
    for values, links, trace_id in validated:
        created = crm.create(kind, values, links, now)
        result.add(created)
        if trace_id is not None:
            result.trace_ids[created.id] = str(trace_id)
    return result


def read(crm: Crm, kind: ObjectType, body: dict[str, Any], _now: datetime) -> BatchResult:
    """Read the objects that exist. Report the others as errors."""
    result = BatchResult()
    missing = []
    id_property = _id_property(body)
    for item in _reject_unknown_fields(inputs(body), {"id"}):
        record = crm.find(kind, str(item.get("id")), id_property)
        if record is None:
            missing.append(str(item.get("id")))
        else:
            result.add(record)
    if missing:
        name = kind.singular.upper()
        message = (
            f"Could not get some {name} objects, they may be deleted or not exist. Check that ids are valid."
        )
        result.errors.append(batch_error("OBJECT_NOT_FOUND", message, missing))
    return result


def update(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> BatchResult:
    """Update the objects that exist. Report the others as errors."""
    result = BatchResult()
    validated = _validated_inputs(crm, kind, body, {"id", "idProperty", "properties", "objectWriteTraceId"})
    for item, values in validated:
        record = crm.find(kind, str(item["id"]), item.get("idProperty"))
        if record is None:
            result.errors.append(
                batch_error("OBJECT_NOT_FOUND", f"No {kind.singular} with this id exists", [str(item["id"])])
            )
        elif (conflict := crm.conflict(kind, values, record.id)) is not None:
            result.add_error(conflict, str(item["id"]))
        else:
            result.add(crm.update(kind, record, values, now))
    return result


def upsert(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> BatchResult:
    """Update objects by a unique property, or create those that do not exist. Associations are not supported."""
    result = BatchResult()
    for item, values in _validated_inputs(
        crm, kind, body, {"id", "idProperty", "properties", "objectWriteTraceId"}
    ):
        key, identifier = item.get("idProperty"), str(item["id"])
        record = crm.find(kind, identifier, key)
        if record is None and key in (None, "hs_object_id"):
            result.errors.append(
                batch_error("OBJECT_NOT_FOUND", f"No {kind.singular} with this id exists", [identifier])
            )
            continue
        try:
            if record is not None:
                result.add(crm.update(kind, record, values, now), False)
            else:
                # The properties need not repeat the value of the unique property.
                properties = crm.validate_properties(
                    kind, {str(key): identifier} | (item.get("properties") or {}), create=True
                )
                result.add(crm.create(kind, properties, [], now), True)
        except ProviderError as error:
            result.add_error(error.response, identifier)
    return result


def archive(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> BatchResult:
    """Delete the objects that exist."""
    for item in _reject_unknown_fields(inputs(body), {"id"}):
        record = crm.find(kind, str(item.get("id")))
        if record is not None:
            crm.archive(kind, record, now)
    return BatchResult()


OPERATIONS: dict[str, Callable[[Crm, ObjectType, dict[str, Any], datetime], BatchResult]] = {
    "create": create,
    "read": read,
    "update": update,
    "upsert": upsert,
    "archive": archive,
}


def _validated_inputs(
    crm: Crm, kind: ObjectType, body: dict[str, Any], fields: set[str]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    items = _reject_unknown_fields(inputs(body), fields)
    for item in items:
        _id_property(item)
        if not isinstance(item.get("id"), str) or not item["id"]:
            raise invalid("Invalid input JSON: an input needs an id, which is a string")
    _no_duplicates([item["id"] for item in items])
    return [(item, crm.validate_properties(kind, item.get("properties"), create=False)) for item in items]


def _id_property(item: dict[str, Any]) -> str | None:
    id_property = item.get("idProperty")
    if id_property is not None and not isinstance(id_property, str):
        raise invalid("Invalid input JSON: idProperty must be a string")
    return id_property


def _reject_unknown_fields(items: list[dict[str, Any]], fields: set[str]) -> list[dict[str, Any]]:
    for item in items:
        for name in item:
            if name not in fields:
                raise invalid(f'Invalid input JSON: Unrecognized field "{name}"')
    return items


def _no_duplicates(values: list[str]) -> None:
    duplicates = sorted({value for value in values if values.count(value) > 1})
    if duplicates:
        raise invalid(f"Duplicate IDs found in batch input: {duplicates}. IDs must be unique")
