"""HubSpot's batches: at most 100 inputs; what is wrong in itself refuses all of them, a missing object one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.responses import Response

from bridge.sandbox.hubspot.crm import Crm, CrmObject
from bridge.sandbox.hubspot.errors import batch_error, invalid
from bridge.sandbox.hubspot.schema import ObjectType
from bridge.sandbox.provider import Refusal

MOST_INPUTS = 100


@dataclass
class Outcome:
    """What became of a batch: objects (and whether they are new), and errors."""

    results: list[tuple[CrmObject, bool | None]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: CrmObject, new: bool | None = None) -> None:
        """One more object."""
        self.results.append((found, new))

    def refuse(self, response: Response, identifier: str, key: str = "ids") -> None:
        """One input was refused."""
        told = json.loads(bytes(response.body))
        self.errors.append(batch_error(told["category"], told["message"], [identifier], key))


def inputs(body: dict[str, Any], most: int = MOST_INPUTS) -> list[dict[str, Any]]:
    """The inputs of a batch; raises Refusal when they are no list of objects or too many."""
    found = body.get("inputs")
    if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
        raise invalid("Invalid input JSON: inputs must be a list of objects")
    if len(found) > most:
        raise invalid(f"The batch has {len(found)} inputs; the maximum is {most}")
    return found


def create(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> Outcome:
    """Create all or, when one of them cannot be created, none.

    When every input carries an `objectWriteTraceId` of its own, the good ones are created and the others are errors.
    """
    items = _known(inputs(body), {"properties", "associations", "objectWriteTraceId"})
    traces = [item.get("objectWriteTraceId") for item in items]
    separate = None not in traces and len(set(map(str, traces))) == len(traces)
    outcome = Outcome()
    ready = []
    for item in items:
        try:
            values = crm.checked(kind, item.get("properties"), create=True)
            conflict = crm.conflict(kind, values, None)
            if conflict is not None:
                raise Refusal(conflict)
            ready.append((values, crm.spec(kind, item.get("associations") or [])))
        except Refusal as refusal:
            if not separate:
                raise
            outcome.refuse(refusal.response, str(item["objectWriteTraceId"]), "objectWriteTraceId")
    for name in (name for name, known in kind.properties.items() if known.unique):
        _no_duplicates([values[name] for values, _ in ready if values.get(name)])
    for values, links in ready:
        outcome.add(crm.create(kind, values, links, now))
    return outcome


def read(crm: Crm, kind: ObjectType, body: dict[str, Any], _now: datetime) -> Outcome:
    """Read what there is; the rest are errors."""
    outcome = Outcome()
    missing = []
    id_property = _id_property(body)
    for item in _known(inputs(body), {"id"}):
        found = crm.find(kind, str(item.get("id")), id_property)
        if found is None:
            missing.append(str(item.get("id")))
        else:
            outcome.add(found)
    if missing:
        name = kind.singular.upper()
        message = (
            f"Could not get some {name} objects, they may be deleted or not exist. Check that ids are valid."
        )
        outcome.errors.append(batch_error("OBJECT_NOT_FOUND", message, missing))
    return outcome


def update(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> Outcome:
    """Update what there is; the rest are errors."""
    outcome = Outcome()
    ready = _checked(crm, kind, body, {"id", "idProperty", "properties", "objectWriteTraceId"})
    for item, values in ready:
        found = crm.find(kind, str(item["id"]), item.get("idProperty"))
        if found is None:
            outcome.errors.append(
                batch_error("OBJECT_NOT_FOUND", f"No {kind.singular} with this id exists", [str(item["id"])])
            )
        elif (conflict := crm.conflict(kind, values, found.id)) is not None:
            outcome.refuse(conflict, str(item["id"]))
        else:
            outcome.add(crm.update(kind, found, values, now))
    return outcome


def upsert(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> Outcome:
    """Update by a unique property, or create what is not there; takes no associations."""
    outcome = Outcome()
    for item, values in _checked(crm, kind, body, {"id", "idProperty", "properties", "objectWriteTraceId"}):
        key, identifier = item.get("idProperty"), str(item["id"])
        found = crm.find(kind, identifier, key)
        if found is None and key in (None, "hs_object_id"):
            outcome.errors.append(
                batch_error("OBJECT_NOT_FOUND", f"No {kind.singular} with this id exists", [identifier])
            )
            continue
        try:
            if found is not None:
                outcome.add(crm.update(kind, found, values, now), False)
            else:
                # The key's own value need not stand among the properties again.
                complete = crm.checked(
                    kind, {str(key): identifier} | (item.get("properties") or {}), create=True
                )
                outcome.add(crm.create(kind, complete, [], now), True)
        except Refusal as refusal:
            outcome.refuse(refusal.response, identifier)
    return outcome


def archive(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime) -> Outcome:
    """Delete what there is."""
    for item in _known(inputs(body), {"id"}):
        found = crm.find(kind, str(item.get("id")))
        if found is not None:
            crm.archive(kind, found, now)
    return Outcome()


ACTS: dict[str, Callable[[Crm, ObjectType, dict[str, Any], datetime], Outcome]] = {
    "create": create,
    "read": read,
    "update": update,
    "upsert": upsert,
    "archive": archive,
}


def _checked(
    crm: Crm, kind: ObjectType, body: dict[str, Any], fields: set[str]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    items = _known(inputs(body), fields)
    for item in items:
        _id_property(item)
        if not isinstance(item.get("id"), str) or not item["id"]:
            raise invalid("Invalid input JSON: an input needs an id, which is a string")
    _no_duplicates([item["id"] for item in items])
    return [(item, crm.checked(kind, item.get("properties"), create=False)) for item in items]


def _id_property(given: dict[str, Any]) -> str | None:
    found = given.get("idProperty")
    if found is not None and not isinstance(found, str):
        raise invalid("Invalid input JSON: idProperty must be a string")
    return found


def _known(items: list[dict[str, Any]], fields: set[str]) -> list[dict[str, Any]]:
    for item in items:
        for name in item:
            if name not in fields:
                raise invalid(f'Invalid input JSON: Unrecognized field "{name}"')
    return items


def _no_duplicates(values: list[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise invalid(f"Duplicate IDs found in batch input: {twice}. IDs must be unique")
