"""Upserts of Tasks and Events: each has a key, so that a repeated write changes it instead of creating another."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from bridge.connector import Success
from bridge.errors import DeliveryError

from . import sdk
from .errors import DELETED_CODES, record_result
from .external_ids import is_field_missing, require_external_id
from .field_values import VALUE_CODES
from .org import Org, typed
from .session import Record
from .soql import chunks

_MISSING_FIELD_CACHE_SECONDS = 600.0
_Items = dict[str, Mapping[str, Any]]
"""Salesforce's result of each record, by its key."""
REFERENCES: Mapping[str, str] = {"OwnerId": "the owner", "WhatId": "the related record"}
"""Fields of a Task or Event that refer to other records, and that it can do without."""
ActivityType = Literal["Task", "Event"]
_REFERENCE_CODES = {
    *DELETED_CODES,
    "INACTIVE_OWNER_OR_USER",
    "MALFORMED_ID",
    "FIELD_INTEGRITY_EXCEPTION",
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
}
"""Error codes for a reference to a record that was deleted, is of another type, inactive or hidden from the user."""


@dataclass(frozen=True)
class ActivityResult:
    """The result of writing one Task or Event."""

    result: Success | DeliveryError
    refused: Collection[str] = ()
    """References without which it was written."""


def upsert_activities(
    org: Org,
    kind: ActivityType,
    records: Mapping[str, Record],
    existing_ids: Mapping[str, str],
    of_rule: Collection[str] = (),
) -> dict[str, ActivityResult]:
    """Create each record, or update the one with its key. `existing_ids` holds the IDs of records written before.

    If Salesforce refuses the owner, the related record, or the value of a field `of_rule`, the record is written
    without it, and its result says so.
    """
    items = _upsert(org, kind, records, existing_ids)
    refused = {
        key: references
        for key, item in items.items()
        if (references := _refused(records[key], item, of_rule))
    }
    if refused:
        remaining = {
            key: {name: value for name, value in records[key].items() if name not in references}
            for key, references in refused.items()
        }
        items |= _upsert(org, kind, remaining, existing_ids)
    return {key: _result(item, refused.get(key, {})) for key, item in items.items()}


def _result(item: Mapping[str, Any], refused: Mapping[str, str]) -> ActivityResult:
    result = record_result(item)
    if not isinstance(result, Success):
        return ActivityResult(result)
    notes = [
        f"without {REFERENCES.get(name, f'`{name}`')}, which Salesforce refused ({code})"
        for name, code in refused.items()
    ]
    return ActivityResult(
        replace(result, detail="; ".join(filter(None, [result.detail, *notes]))),
        refused.keys() & REFERENCES.keys(),
    )


def _refused(record: Record, item: Mapping[str, Any], of_rule: Collection[str]) -> dict[str, str]:
    """Return the references and values of a rejected record that may be the reason, with Salesforce's error code.

    Salesforce does not always name the field. Then it may be any reference, or the contact.
    """
    refused: dict[str, str] = {}
    for error in item.get("errors") or ():
        code, fields = str(error.get("statusCode")), error.get("fields") or ()
        if code in _REFERENCE_CODES:
            named = ["OwnerId"] if code == "INACTIVE_OWNER_OR_USER" else fields or REFERENCES
            refused |= {name: code for name in named if name in REFERENCES and name in record}
        if code in VALUE_CODES:
            refused |= {name: code for name in fields if name in of_rule and name in record}
    return refused


def _upsert(
    org: Org, kind: ActivityType, records: Mapping[str, Record], existing_ids: Mapping[str, str]
) -> _Items:
    known = {key: records[key] | {"id": existing_ids[key]} for key in records if key in existing_ids}
    items = _update(org, kind, known)
    remaining = {
        key: record
        for key, record in records.items()
        if key not in items or _code(items[key]) in DELETED_CODES
    }
    if not remaining:
        return items
    if kind == "Event":
        with require_external_id("Event", org.settings.task_field):
            return items | _upsert_by_external_id(org, kind, remaining)
    if time.monotonic() >= org.task_field_missing_until:
        try:
            return items | _upsert_by_external_id(org, kind, remaining)
        except sdk.SalesforceError as error:
            if not is_field_missing(error, org.settings.task_field):
                raise
        org.task_field_missing_until = time.monotonic() + _MISSING_FIELD_CACHE_SECONDS
    return items | _upsert_by_call_object(org, remaining)


def _upsert_by_external_id(org: Org, kind: ActivityType, records: Mapping[str, Record]) -> _Items:
    field = org.settings.task_field
    items: _Items = {}
    pending = {key: {**record, field: key} for key, record in records.items()}
    for _ in range(2):
        rows = [typed(kind, record) for record in pending.values()]
        answers = org.collection("PATCH", f"/{kind}/{field}", rows)
        items |= dict(zip(pending, answers, strict=True))
        # With these codes the record already exists: it was created by an attempt whose response was lost, or
        # concurrently by another process. A subtype can be set only when a Task is created.
        pending = {
            key: {name: value for name, value in record.items() if name != "TaskSubtype"}
            for key, record in pending.items()
            if _code(items[key]) in ("INVALID_FIELD_FOR_INSERT_UPDATE", "DUPLICATE_VALUE")
        }
        if not pending:
            break
    return items


def _upsert_by_call_object(org: Org, records: Mapping[str, Record]) -> _Items:
    """Upsert Tasks in an org without the External ID field: CallObject holds the key and is queried first."""
    existing: dict[str, str] = {}
    for keys in chunks(list(records)):
        soql = sdk.format_soql("SELECT Id, CallObject FROM Task WHERE CallObject IN {}", keys)
        existing |= {str(row["CallObject"]): str(row["Id"]) for row in org.query(soql)}
    keyed = {key: record | {"CallObject": key} for key, record in records.items()}
    items = _update(
        org, "Task", {key: keyed[key] | {"id": existing[key]} for key in keyed if key in existing}
    )
    new = {key: record for key, record in keyed.items() if key not in existing}
    if new:
        answers = org.collection("POST", "", [typed("Task", record) for record in new.values()])
        items |= dict(zip(new, answers, strict=True))
    return items


def _update(org: Org, kind: ActivityType, records: Mapping[str, Record]) -> _Items:
    if not records:
        return {}
    rows = [
        typed(kind, {name: value for name, value in record.items() if name != "TaskSubtype"})
        for record in records.values()
    ]
    answers = [{"created": False, **item} for item in org.collection("PATCH", "", rows)]
    return dict(zip(records, answers, strict=True))


def _code(item: Mapping[str, Any]) -> str:
    """Return the error code of a rejected record, empty if it was written."""
    return next((str(error.get("statusCode")) for error in item.get("errors") or ()), "")
