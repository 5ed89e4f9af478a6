"""Writes that leave out what HubSpot refuses, so that one invalid value loses nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from bridge.connector import address_key
from bridge.errors import DeliveryError, PermanentError

from .errors import (
    body_of,
    classify_error,
    existing_id,
    failure_in_batch,
    failure_of_batch_error,
    is_conflict,
    refused_properties,
    status_of,
)
from .unique_properties import UNIQUE_PROPERTIES

PHONE_KEY = UNIQUE_PROPERTIES["contacts"][0]
CONTACT_PROPERTIES = frozenset({"email", "phone", "firstname", "lastname", "company"})
"""Properties of a contact that the bridge writes by itself."""
_WRONG_NAMES = {"PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE"}
"""HubSpot's error codes for a property that nobody can write: an error of the rule, not of one value."""
_MAX_ROUNDS = 4

Properties = dict[str, str]
SendBatch = Callable[[Mapping[str, Properties], bool], Any]
"""Sends the properties of several records, by a key of the caller, and returns the SDK's response.

If the flag is true, it sends the keys as `objectWriteTraceId`: HubSpot then rejects single records of a batch."""
KeyOf = Callable[[Any], str | None]
"""Returns the caller's key of a record in a response, if the response shows it."""


@dataclass
class WriteOutcome:
    """The result of writing one record."""

    id: str | None = None
    """None if nothing was written."""
    refused: dict[str, str] = field(default_factory=dict)
    """Properties that were left out, with HubSpot's error code."""
    existing_id: str | None = None
    """Another record that has the unique value: the contact's email address or phone number."""
    error: DeliveryError | None = None


@dataclass(frozen=True)
class _Omissible:
    """The properties that records can do without."""

    optional: Collection[str]
    of_rule: Collection[str]

    def includes(self, name: str, code: str) -> bool:
        """Return whether a record is written without this property, which HubSpot refused with an error code."""
        return name in self.optional or (name in self.of_rule and code not in _WRONG_NAMES)


@dataclass(frozen=True)
class _Rejection:
    message: str
    error: DeliveryError


def write_leniently(
    records: Mapping[str, Properties],
    send: SendBatch,
    *,
    is_sufficient: Callable[[Properties], bool],
    stop_at_existing: bool,
    optional: Collection[str] = CONTACT_PROPERTIES,
    of_rule: Collection[str] = (),
    key_of: KeyOf | None = None,
) -> dict[str, WriteOutcome]:
    """Write records in one batch, and those that HubSpot rejects once more without what it refuses.

    Only `optional` properties are left out, and properties `of_rule` of which HubSpot refuses the value. A record
    that is no longer sufficient is not written. If another record has the unique value, the record is not written
    with `stop_at_existing`, and a contact is written without the address otherwise. `key_of` is needed for records
    without an address.
    """
    omissible = _Omissible(optional, of_rule)
    outcomes = {key: WriteOutcome() for key in records}
    pending = {key: dict(values) for key, values in records.items()}
    for attempt in range(_MAX_ROUNDS):
        if not pending:
            break
        try:
            results = _send(pending, send, omissible, key_of)
        except Exception as error:
            failure = classify_error(error)
            if attempt == 0 or not isinstance(failure, PermanentError):
                raise
            for key in pending:  # the records of earlier rounds are written
                outcomes[key].error = failure
            break
        rejected: dict[str, Properties] = {}
        for key, values in pending.items():
            outcome, result = outcomes[key], results[key]
            if isinstance(result, str):
                outcome.id = result
                continue
            refused = {
                name: code
                for name, code in refused_properties(result.message).items()
                if name in values and omissible.includes(name, code)
            }
            if owner := existing_id(result.message):
                outcome.existing_id = owner
                if stop_at_existing:
                    continue
                refused = {}
                dropped = {"email", PHONE_KEY}
            elif refused:
                outcome.refused |= refused
                dropped = {*refused, *([PHONE_KEY] if "phone" in refused else [])}
            else:
                outcome.error = result.error
                continue
            remaining = {name: value for name, value in values.items() if name not in dropped}
            if is_sufficient(remaining):
                rejected[key] = remaining
        pending = rejected
    return outcomes


def _send(
    pending: Mapping[str, Properties],
    send: SendBatch,
    omissible: _Omissible,
    key_of: KeyOf | None,
    *,
    traced: bool = False,
) -> dict[str, str | _Rejection]:
    """Return the ID of each record that was written, or why it was not."""
    try:
        response = send(pending, traced)
    except Exception as error:
        sent = {name for values in pending.values() for name in values}
        is_rejected_value = is_conflict(error) or any(
            name in sent and omissible.includes(name, code)
            for name, code in refused_properties(body_of(error)).items()
        )
        if status_of(error) not in (400, 409) or not is_rejected_value:
            raise
        if len(pending) == 1:
            failure = classify_error(error)
            if failure is None or is_conflict(error):
                failure = PermanentError("HubSpot reports a conflicting record", code="CONFLICT")
            return {key: _Rejection(body_of(error), failure) for key in pending}
        if not traced:
            return _send(pending, send, omissible, key_of, traced=True)
        return {
            key: result
            for name, values in pending.items()
            for key, result in _send({name: values}, send, omissible, key_of).items()
        }
    unmentioned = _Rejection("", failure_in_batch(response))
    results: dict[str, str | _Rejection] = dict.fromkeys(pending, unmentioned)
    for item in getattr(response, "errors", None) or ():
        for key in (key for keys in (item.context or {}).values() for key in keys if key in results):
            results[key] = _Rejection(str(item.message), failure_of_batch_error(item))
    return results | _written(pending, list(response.results or ()), key_of)


def _written(pending: Mapping[str, Properties], items: list[Any], key_of: KeyOf | None) -> dict[str, str]:
    """Return the IDs of the written records: by the key or ID in the response, else by their addresses."""
    if len(pending) == 1 and len(items) == 1:
        return {next(iter(pending)): str(items[0].id)}
    by_address = {
        (name, address_key(values[name])): key
        for key, values in pending.items()
        for name in ("phone", "email")
        if values.get(name)
    }
    written: dict[str, str] = {}
    for item in items:
        keys = [item.object_write_trace_id, key_of(item) if key_of else None, str(item.id)]
        keys += [
            by_address.get((name, address_key(str((item.properties or {}).get(name)))))
            for name in ("email", "phone")
        ]
        key = next((key for key in keys if key in pending), None)
        if key is not None:
            written[key] = str(item.id)
    return written


def update_leniently(
    api: Any,
    kind: str,
    record_id: str,
    values: Properties,
    *,
    optional: Collection[str],
    of_rule: Collection[str],
) -> WriteOutcome:
    """Update one record through the SDK's `basic_api`, without the values that HubSpot refuses."""

    def send(pending: Mapping[str, Properties], _traced: bool) -> Any:
        return SimpleNamespace(results=[api.update(kind, record_id, {"properties": pending[record_id]})])

    outcomes = write_leniently(
        {record_id: values},
        send,
        is_sufficient=bool,
        stop_at_existing=False,
        optional=optional,
        of_rule=of_rule,
    )
    return outcomes[record_id]


def refused_values(refused: Mapping[str, str], of_rule: Collection[str]) -> list[str]:
    """Return a note for each property of a rule that HubSpot refused, with its error code."""
    return [
        f"without `{name}`, which HubSpot refused ({code})"
        for name, code in refused.items()
        if name in of_rule
    ]
