"""Writes of contacts and leads that leave out what Salesforce refuses, so that one invalid value loses only itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.connector import ContactField, Success
from bridge.errors import AccountError, DeliveryError

from .account_errors import missing_field
from .errors import record_result
from .field_values import VALUE_CODES
from .org import Org, typed
from .person_accounts import refusal
from .session import Record

CONTACT_PREFIX, LEAD_PREFIX = "003", "00Q"
"""Key prefixes: the first three characters of an ID state its object type."""
FIELDS: Mapping[str, ContactField] = {
    "Email": "email",
    "Phone": "phone",
    "FirstName": "name",
    "LastName": "name",
    "Company": "company",
}
"""Fields that the bridge writes by itself. Another refused field fails the delivery, unless it is of `new_contact`."""
_OF_NEW_RECORDS: Mapping[str, str] = {"LeadSource": "the lead source", "OwnerId": "the owner"}
"""Further fields of new records that are left out if they are refused."""
_ACCESS_CODES = {
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
    "INVALID_FIELD",
    "INVALID_FIELD_FOR_INSERT_UPDATE",
    "INVALID_TYPE",
}
"""Besides `INSUFFICIENT_ACCESS...`: codes for an access that the integration user lacks."""
_MAX_ROUNDS = 4
_ADDRESS_WORDS = {"Email": r"\be-?mail", "Phone": r"\bphone"}


@dataclass
class WriteOutcome:
    """The result of writing one contact or lead."""

    id: str | None = None
    """None if nothing was written."""
    refused: dict[ContactField, str] = field(default_factory=dict)
    """Fields that were left out, with Salesforce's error code."""
    notes: list[str] = field(default_factory=list)
    """What else was left out."""
    existing_id: str | None = None
    """Another contact or lead with the same values, by Salesforce's word."""
    is_duplicate: bool = False
    """A duplicate rule rejected the record."""
    error: DeliveryError | None = None
    denied: str = ""
    """Salesforce's error code if `error` is an access that the integration user lacks."""


def write_leniently(
    org: Org,
    method: str,
    records: Sequence[Record],
    without: Callable[[Record, set[str]], Record | None],
    headers: Mapping[str, str] | None = None,
    optional: Collection[str] = (),
    of_rule: Collection[str] = (),
) -> list[WriteOutcome]:
    """Write contacts or leads in one collection, and those that are rejected once more without what is refused.

    `without` returns a record without the given fields, or None if it should not be written then. `optional` are fields
    of rules that may be left out as well, and fields `of_rule` are left out if Salesforce refuses the value.
    """
    can_omit = {*_OF_NEW_RECORDS, *optional}
    outcomes = [WriteOutcome() for _ in records]
    pending = dict(enumerate(records))
    for _ in range(_MAX_ROUNDS):
        if not pending:
            break
        items = org.collection(method, "", list(pending.values()), headers)
        rejected: dict[int, Record] = {}
        for (number, record), item in zip(pending.items(), items, strict=True):
            refused = _read_result(outcomes[number], item, record, can_omit, of_rule)
            remaining = without(record, refused) if refused else None
            if remaining is not None:
                rejected[number] = remaining
        pending = rejected
    return outcomes


def _read_result(
    outcome: WriteOutcome,
    item: Mapping[str, Any],
    record: Record,
    can_omit: set[str],
    of_rule: Collection[str],
) -> set[str]:
    """Store the result of one record. Return the fields that Salesforce refused and that can be left out."""
    result = record_result(item)
    if isinstance(result, Success):
        outcome.id = result.id or ""
        return set()
    code = str(item["errors"][0]["statusCode"]) if item.get("errors") else ""
    refused = _refused_fields(item, can_omit, of_rule) & record.keys()
    if isinstance(result, AccountError) and not refused & can_omit:
        outcome.error = result  # no value is wrong: every record would be refused
        outcome.denied = code if code in _ACCESS_CODES or code.startswith("INSUFFICIENT_ACCESS") else ""
        return set()
    if code in ("DUPLICATES_DETECTED", "DUPLICATE_VALUE"):
        outcome.is_duplicate = code == "DUPLICATES_DETECTED"
        outcome.existing_id = _existing_id(item)
        outcome.error = None if outcome.existing_id else result
        return set()
    outcome.refused |= {FIELDS[name]: code for name in refused if name in FIELDS}
    outcome.notes += [
        f"without {_OF_NEW_RECORDS.get(name, f'`{name}`')}, which Salesforce refused ({code})"
        for name in sorted(refused - FIELDS.keys())
    ]
    if not refused:
        outcome.error = result
    return refused


def _existing_id(item: Mapping[str, Any]) -> str | None:
    """Return the ID of the record that Salesforce names in its refusal."""
    match = re.search(rf"\b(?:{CONTACT_PREFIX}|{LEAD_PREFIX})\w{{12}}(?:\w{{3}})?\b", json.dumps(item))
    return match[0] if match else None


def _refused_fields(item: Mapping[str, Any], can_omit: set[str], of_rule: Collection[str]) -> set[str]:
    """Return the refused fields, if the record can do without all of them.

    A validation rule names a field only if the administrator chose one; otherwise its message has to mention it.
    """
    names: set[str] = set()
    omissible = FIELDS.keys() | can_omit
    for error in item.get("errors") or ():
        code, fields = str(error.get("statusCode")), {str(name) for name in error.get("fields") or ()}
        if code == "INACTIVE_OWNER_OR_USER":
            fields = {"OwnerId"}
        elif (hidden := missing_field(code, str(error.get("message")))) in can_omit:
            fields = {str(hidden)}
        if not fields and code == "FIELD_CUSTOM_VALIDATION_EXCEPTION":
            message = str(error.get("message", ""))
            fields = {
                name for name, word in _ADDRESS_WORDS.items() if re.search(word, message, re.IGNORECASE)
            }
        names |= fields
        omissible |= fields.intersection(of_rule) if code in VALUE_CODES else set()
    return names if names <= omissible else set()


def update_leniently(
    org: Org, changes: Mapping[str, tuple[str, Mapping[str, Any]]], of_rule: Collection[str] = ()
) -> dict[str, WriteOutcome]:
    """Update contacts and leads, given as ID -> (object type, fields), without what Salesforce refuses.

    If an address is another record's by a duplicate rule, the address is left out.
    """

    def without(record: Record, fields: set[str]) -> Record | None:
        remaining = {name: value for name, value in record.items() if name not in fields}
        return remaining if remaining.keys() - {"attributes", "id"} else None

    records = {
        record_id: typed(object_type, {"id": record_id, **fields})
        for record_id, (object_type, fields) in changes.items()
    }
    written = write_leniently(org, "PATCH", list(records.values()), without, of_rule=of_rule)
    outcomes = dict(zip(records, written, strict=True))
    again = {
        record_id: remaining
        for record_id, outcome in outcomes.items()
        if (outcome.existing_id or outcome.is_duplicate)
        and (remaining := without(records[record_id], {"Email", "Phone"})) is not None
    }
    for record_id, outcome in zip(
        again,
        write_leniently(org, "PATCH", list(again.values()), without, of_rule=of_rule),
        strict=True,
    ):
        first = outcomes[record_id]
        outcome.existing_id, outcome.refused = first.existing_id, first.refused | outcome.refused
        outcomes[record_id] = outcome
    errors = {
        record_id: outcome.error
        for record_id, outcome in outcomes.items()
        if outcome.error is not None and record_id.startswith(CONTACT_PREFIX)
    }
    for record_id, error in refusal(org, errors).items():
        outcomes[record_id].error = error
    return outcomes
