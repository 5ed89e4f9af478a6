"""Values of rules in the form of a request: standard fields at its top, custom fields under `custom_fields`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.connector import FieldValue, Property
from bridge.errors import PermanentError

from .account import Account, Record
from .fields import Field, WrongValue
from .owners import find_owner


def to_request(account: Account, kind: str, values: Mapping[str, FieldValue]) -> tuple[Record, list[str]]:
    """Return the part of a request that sets these fields, and notes on values that were left out.

    Fields are named by key or name. Raise PermanentError for a field that the account does not have. A value that a
    field does not take is left out, because it usually comes from an event.
    """
    body: Record = {}
    custom: Record = {}
    notes: list[str] = []
    for name, value in values.items():
        field = require_field(account, kind, name)
        try:
            converted = _convert(account, field, value)
        except WrongValue as error:
            notes.append(f"without `{name}`, which {error}")
            continue
        (custom if field.is_custom else body)[field.code] = converted
    return body | ({"custom_fields": custom} if custom else {}), notes


def require_field(account: Account, kind: str, name: str) -> Field:
    """Return the field with this key or name. Raise PermanentError if the account has none that can be set."""
    fields = account.fields(kind)
    if found := fields.problem(kind, name):
        raise PermanentError("; ".join(part for part in found if part), code="field")
    field = fields.find(name)
    assert field is not None  # noqa: S101 - it has no problem
    return field


def to_fill(
    account: Account, kind: str, properties: Mapping[str, Property], current: Record | None
) -> dict[str, FieldValue]:
    """Return the values to write: those with `mode: fill` only to fields that are empty in the current record."""
    written = {}
    for name, item in properties.items():
        if item.value in (None, "", []):
            continue
        if item.mode == "fill" and current is not None:
            field = require_field(account, kind, name)
            source = current.get("custom_fields") or {} if field.is_custom else current
            if source.get(field.code) not in (None, "", []):
                continue
        written[name] = item.value
    return written


def _convert(account: Account, field: Field, value: FieldValue) -> Any:
    if field.code == "owner_id" or field.type == "user":
        owner = find_owner(account, str(value))
        if owner.id is None:
            raise WrongValue(f"has an unknown user: {owner.problem}")
        return owner.id
    currency = str(account.own_user().get("default_currency")) if field.type == "monetary" else ""
    return field.convert(value, currency)
