"""Records on a timeline: calls, notes and tasks, written in batches and without what HubSpot refuses.

A call is worth more than its owner, its outcome or its deal: what HubSpot refuses of these is left out, and the result
says so. Every record carries a unique property, so that a repeated attempt updates it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.connector import ContactDeleted, Success
from bridge.errors import DeliveryError, PermanentError, TransientError

from .account import Account
from .errors import body_of, required_scopes, status_of
from .lenient_writes import WriteOutcome, refused_values, write_leniently
from .unique_properties import UNIQUE_PROPERTIES

OWNER_PROPERTY = "hubspot_owner_id"
_OPTIONAL: Mapping[str, str] = {
    OWNER_PROPERTY: "owner",
    "hs_call_disposition": "call outcome",
    "hs_activity_type": "type",
    "hs_meeting_outcome": "outcome",
    "hs_meeting_external_url": "link",
    "hs_call_recording_url": "recording",
    "hs_call_source": "recording's source",
    "hs_ticket_priority": "priority",
    "source_type": "source",
}
"""Properties that a record is written without if HubSpot refuses their values, and what they are called in a note."""
ASSOCIATION_TYPES: Mapping[str, Mapping[str, int]] = {
    "calls": {"contacts": 194, "companies": 182, "deals": 206, "tickets": 220},
    "notes": {"contacts": 202, "companies": 190, "deals": 214, "tickets": 228},
    "tasks": {"contacts": 204, "companies": 192, "deals": 216, "tickets": 230},
    "meetings": {"contacts": 200, "companies": 188, "deals": 212, "tickets": 226},
    "deals": {"contacts": 3, "companies": 341},
    "communications": {"contacts": 81, "companies": 87, "deals": 85, "tickets": 83},
    "emails": {"contacts": 198, "companies": 186, "deals": 210, "tickets": 224},
    "tickets": {"contacts": 16, "companies": 339, "deals": 28},
}
"""HubSpot's association type IDs from each type of record. The opposite direction has other IDs."""
_SET_ONCE: Mapping[str, Collection[str]] = {
    "tickets": ("subject", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_priority", "source_type"),
    "deals": ("dealname", "pipeline", "dealstage", "amount", "closedate"),
    "meetings": ("hs_meeting_outcome",),
}
"""Properties of a new record that an update leaves alone, as it does the owner: users may have changed them since."""
LINKED_TYPES: Mapping[str, str] = {
    "contacts": "contact",
    "companies": "company",
    "deals": "deal",
    "tickets": "ticket",
}
_MAX_ROUNDS = 6
"""A round leaves out one type of record for lack of a scope, or records that no longer exist."""


@dataclass(frozen=True)
class Record:
    """The desired properties of a record, and the records that it is associated with."""

    properties: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)
    """Object type -> ID."""
    notes: Sequence[str] = ()
    """What was left out, for the result's detail."""
    of_rule: Collection[str] = ()
    """Properties that the rule sets. The record is written without those of which HubSpot refuses the value."""


Results = dict[str, Success | DeliveryError]


def write_records(
    account: Account, kind: str, records: Mapping[str, Record], existing_ids: Mapping[str, str]
) -> Results:
    """Create records by their unique key, or update those that exist, and return the result of each.

    `existing_ids` holds the IDs of records written before. ContactDeleted: the contact no longer exists.
    """
    existing = {key: record_id for key, record_id in existing_ids.items() if key in records}
    results: Results = _update(account, kind, records, existing) if existing else {}
    remaining = {key: record for key, record in records.items() if key not in results}
    for _ in range(_MAX_ROUNDS):
        if not remaining:
            return results
        remaining = _create(account, kind, remaining, results)
    return results | dict.fromkeys(
        remaining, TransientError("HubSpot refuses the record for changing reasons")
    )


def _update(
    account: Account, kind: str, records: Mapping[str, Record], existing_ids: Mapping[str, str]
) -> Results:
    """Update records. A deleted one has no result."""

    def send(pending: Mapping[str, dict[str, str]], traced: bool) -> Any:
        inputs = [
            {"id": existing_ids[key], "properties": values} | ({"objectWriteTraceId": key} if traced else {})
            for key, values in pending.items()
        ]
        return account.batch.update(kind, {"inputs": inputs})

    keys = {record_id: key for key, record_id in existing_ids.items()}
    kept = {OWNER_PROPERTY, *_SET_ONCE.get(kind, ())}
    properties = {
        key: {name: value for name, value in records[key].properties.items() if name not in kept}
        for key in existing_ids
    }
    try:
        outcomes = _write(records, properties, send, lambda item: keys.get(str(item.id)))
    except Exception as error:
        if status_of(error) != 404:
            raise
        return {}
    return {
        key: _result(account, records[key], outcome, "updated")
        for key, outcome in outcomes.items()
        if not (isinstance(outcome.error, PermanentError) and outcome.error.code == "OBJECT_NOT_FOUND")
    }


def _create(
    account: Account, kind: str, records: Mapping[str, Record], results: Results
) -> dict[str, Record]:
    """Create records and add their results. Return those to write once more, without what was in the way."""
    key_property = UNIQUE_PROPERTIES[kind][0]

    def send(pending: Mapping[str, dict[str, str]], traced: bool) -> Any:
        inputs = [
            {
                "properties": {**values, key_property: key},
                "associations": [_association(kind, *link) for link in records[key].links.items()],
            }
            | ({"objectWriteTraceId": key} if traced else {})
            for key, values in pending.items()
        ]
        return account.unique_properties.run_with(
            kind, lambda: account.batch.create(kind, {"inputs": inputs})
        )

    properties = {key: dict(record.properties) for key, record in records.items()}
    try:
        outcomes = _write(records, properties, send, lambda item: (item.properties or {}).get(key_property))
    except Exception as error:
        if status_of(error) == 403 and (linked := _without_forbidden_types(account, records, error)):
            return linked
        if status_of(error) not in (400, 404) or "propert" in body_of(error).lower():
            raise
        repaired = _without_missing(account, records, results)
        if repaired is None:
            raise
        return repaired
    conflicts = {
        key: outcome.existing_id
        for key, outcome in outcomes.items()
        if outcome.existing_id or (outcome.error and getattr(outcome.error, "code", "") == "CONFLICT")
    }
    if conflicts:
        results |= _update(account, kind, records, _existing_ids(account, kind, conflicts))
    rejected = {
        key: records[key]
        for key, outcome in outcomes.items()
        if key not in conflicts and isinstance(outcome.error, PermanentError)
    }
    repaired = _without_missing(account, rejected, results) if rejected else None
    results |= {
        key: _result(account, records[key], outcome, "")
        for key, outcome in outcomes.items()
        if key not in results and not (repaired and key in rejected)
    }
    return repaired or {}


def _write(
    records: Mapping[str, Record], properties: Mapping[str, dict[str, str]], send: Any, key_of: Any
) -> dict[str, WriteOutcome]:
    return write_leniently(
        properties,
        send,
        is_sufficient=lambda _values: True,
        stop_at_existing=True,
        optional=_OPTIONAL,
        of_rule={name for key in properties for name in records[key].of_rule},
        key_of=key_of,
    )


def _existing_ids(account: Account, kind: str, conflicts: Mapping[str, str | None]) -> dict[str, str]:
    """Return the IDs of the records with these unique keys: as HubSpot named them, else by reading them."""
    key_property = UNIQUE_PROPERTIES[kind][0]
    named = {key: record_id for key, record_id in conflicts.items() if record_id}
    unnamed = [key for key in conflicts if key not in named]
    items = account.read(kind, unnamed, key_property) if unnamed else []
    return named | {str(item.properties.get(key_property)): str(item.id) for item in items}


def _result(account: Account, record: Record, outcome: WriteOutcome, detail: str) -> Success | DeliveryError:
    if outcome.error is not None:
        return outcome.error
    if outcome.id is None:
        return TransientError("HubSpot reports a record with the same key, but does not show it")
    if OWNER_PROPERTY in outcome.refused:
        account.owners.report_refused(record.properties[OWNER_PROPERTY])
    refused = [
        f"without the {_OPTIONAL[name]}, which HubSpot refused ({code})"
        for name, code in outcome.refused.items()
        if name in _OPTIONAL
    ]
    refused += refused_values(outcome.refused, outcome.refused.keys() - _OPTIONAL.keys())
    notes = [*([detail] if detail else []), *record.notes, *refused]
    return Success(id=outcome.id, detail="; ".join(notes))


def _association(kind: str, linked_type: str, record_id: str) -> dict[str, Any]:
    spec = {
        "associationCategory": "HUBSPOT_DEFINED",
        "associationTypeId": ASSOCIATION_TYPES[kind][linked_type],
    }
    return {"to": {"id": record_id}, "types": [spec]}


def _without_forbidden_types(
    account: Account, records: Mapping[str, Record], error: Exception
) -> dict[str, Record] | None:
    """Return the records without the types that the key may not use. None: it lacks another scope."""
    scopes = required_scopes(error)
    # HubSpot names the scopes of all types, also those that the key has.
    named = {
        name: next(iter(ids))
        for name in LINKED_TYPES
        if name != "contacts"
        and any(name in scope for scope in scopes)
        and (ids := {record.links[name] for record in records.values() if name in record.links})
    }
    if not named:
        return None
    unreadable = [name for name, record_id in named.items() if not account.may_read(name, record_id)]
    forbidden = unreadable or list(named)
    for name in forbidden:
        account.missing_scopes.report(name, [scope for scope in scopes if name in scope])
    return {
        key: _without(record, {name: account.missing_scopes.problem(name) for name in forbidden})
        for key, record in records.items()
    }


def _without_missing(
    account: Account, records: Mapping[str, Record], results: Results
) -> dict[str, Record] | None:
    """Return the records without associations to what no longer exists, and add ContactDeleted results.

    None: everything exists, so that something else is in the way.
    """
    missing = {
        name: account.missing(
            name, {record.links[name] for record in records.values() if name in record.links}
        )
        for name in LINKED_TYPES
    }
    if not any(missing.values()):
        return None
    repaired: dict[str, Record] = {}
    for key, record in records.items():
        gone = {
            name: "it no longer exists"
            for name, record_id in record.links.items()
            if record_id in missing[name]
        }
        if "contacts" in gone:
            results[key] = ContactDeleted()
        else:
            repaired[key] = _without(record, gone)
    return repaired


def _without(record: Record, reasons: Mapping[str, str]) -> Record:
    """Return a record without associations to some types, with the reason of each."""
    notes = [
        f"not associated with the {LINKED_TYPES[name]}: {reason}"
        for name, reason in reasons.items()
        if name in record.links
    ]
    links = {name: record_id for name, record_id in record.links.items() if name not in reasons}
    return replace(record, links=links, notes=[*record.notes, *notes])
