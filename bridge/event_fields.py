"""Documented fields of an event: reads each one as its documented type, or reports why it cannot be read.

Senders write one value in several ways: an ID as a number, a number as a string, an object as JSON text. `_READERS` has
one reader for each documented type, which accepts every form with only one meaning. Any other value stays as it is and
is reported, so that no rule or connector takes it for a missing field. An empty string where a string is not expected,
and an empty list for an object (PHP's empty object), are no value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from bridge.clock import parse_timestamp
from bridge.json_values import describe_type, parse_body, parse_list

_MAX_EXACT: Final = 2**53
"""Whole numbers from here on are not exact as floating-point numbers: two IDs could become one."""
_NUMBER: Final = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?", re.ASCII)
_TRUE: Final = frozenset(("true", "yes", "1"))
_FALSE: Final = frozenset(("false", "no", "0"))
_SEPARATORS: Final = re.compile(r"[-_.\s]")
_PLAIN_TIMESTAMP: Final = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{3})?Z", re.ASCII
)
"""Timestamps in Heppu's form. Every one of them is valid."""
_UNIX_UNITS: Final = ((1e8, 1e11, 1), (1e11, 1e14, 1e3), (1e14, 1e17, 1e6))
"""Unix time: from, to, and units per second. Seconds, milliseconds and microseconds since 1973 do not overlap."""


class FieldProblem(NamedTuple):
    """A documented field that has a value of another type, or one that cannot be read."""

    path: str
    """Where the value is, such as `metadata.contactPhone`."""
    problem: str
    """What is wrong with it, such as `is a list, not a string`. Contains no part of the value."""
    hint: str = ""
    """What to send instead."""


class _UnreadableValue(Exception):
    """A value cannot be read. The arguments are the problem and the hint."""


@dataclass(slots=True)
class FieldSpec:
    """How one documented field is read."""

    path: str
    types: tuple[type, ...]
    """The Python types of a value that needs no reading."""
    read: Callable[[Any], Any]
    """Return the value in the documented type, or None if it is empty. Raise _UnreadableValue."""
    values: frozenset[str] = frozenset()
    """The documented values, which need no reading, if the field has a fixed set of them."""
    fields: dict[str, FieldSpec] = field(default_factory=dict)
    """The documented fields of an object."""
    plain: dict[str, type] = field(default_factory=dict)
    """The fields that need no reading if they have this type: most fields of most events."""


def compile_specs(kinds: Mapping[str, str], values: Mapping[str, tuple[str, ...]]) -> FieldSpec:
    """Return the spec of a body.

    `kinds` has the documented type of each dotted path, `values` the documented values of those that have a fixed set.
    """
    root = FieldSpec("", (dict,), _object)
    for path in sorted(kinds):
        *parents, key = path.split(".")
        parent = root
        for name in parents:
            parent.plain.pop(name, None)  # an object whose fields have to be read
            parent = parent.fields[name]
        spec = parent.fields[key] = _spec(path, kinds[path], values.get(path, ()))
        if spec.types and not spec.values:
            parent.plain[key] = spec.types[0]
    return root


def read_fields(body: Mapping[str, Any], spec: FieldSpec) -> tuple[dict[str, Any], tuple[FieldProblem, ...]]:
    """Return the body with every documented field in its documented type, and the fields that cannot be read.

    The body is not changed; it is returned itself if every field already has its type.
    """
    problems: list[FieldProblem] = []
    return _read_object(body if isinstance(body, dict) else dict(body), spec, problems), tuple(problems)


def read_string(value: object) -> str | None:
    """Return the text of a string or number, stripped; None for an empty string or a value that has no text."""
    try:
        return str(_string(value)).strip() or None if value is not None else None
    except _UnreadableValue:
        return None


def _read_object(value: dict[str, Any], spec: FieldSpec, problems: list[FieldProblem]) -> dict[str, Any]:
    plain, fields = spec.plain, spec.fields
    changes: dict[str, Any] | None = None
    for key, item in value.items():
        kind = type(item)
        if plain.get(key) is kind:
            continue
        field_spec = fields.get(key)
        if field_spec is None or item is None or (kind is str and item in field_spec.values):
            continue
        read = item
        if field_spec.values or kind not in field_spec.types:
            try:
                read = field_spec.read(item)
            except _UnreadableValue as error:
                problems.append(FieldProblem(field_spec.path, *error.args))
                continue
        if field_spec.fields and read:
            read = _read_object(read, field_spec, problems)
        if read is not item:
            changes = changes or {}
            changes[key] = read
    return {**value, **changes} if changes else value


# ---------------------------------------------------------------- readers


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and (value == 0 or 1e-4 <= abs(value) < _MAX_EXACT):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, float):
        raise _UnreadableValue("is a number that is not exact", "send it as a string")
    raise _UnreadableValue(f"is {describe_type(value)}, not a string")


def _number(value: object) -> float | None:
    if not isinstance(value, str):
        raise _UnreadableValue(f"is {describe_type(value)}, not a number")
    text = value.strip()
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise _UnreadableValue("is a string that is not a number", "send digits only, such as 125")
    return float(text) if "." in text else int(text)


def _boolean(value: object) -> bool | None:
    text = str(value).strip().lower() if isinstance(value, str | int | float) else None
    if text == "":
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise _UnreadableValue(f"is {describe_type(value)}, not a boolean", "send true or false")


def _object(value: object) -> dict[str, Any] | None:
    if value == []:
        return None
    if not isinstance(value, str):
        raise _UnreadableValue(f"is {describe_type(value)}, not an object")
    if not value.strip():
        return None
    try:
        return parse_body(value.encode())
    except ValueError:
        raise _UnreadableValue("is a string that is not a JSON object") from None


def _array(value: object) -> list[Any] | None:
    if not isinstance(value, str):
        raise _UnreadableValue(f"is {describe_type(value)}, not a list")
    if not value.strip():
        return None
    try:
        return parse_list(value.encode())
    except ValueError:
        raise _UnreadableValue("is a string that is not a JSON list") from None


def _timestamp(value: object) -> str | None:
    if isinstance(value, str) and _PLAIN_TIMESTAMP.fullmatch(value):
        return value
    text = value.strip() if isinstance(value, str) else None
    if text == "":
        return None
    if isinstance(value, str) and parse_timestamp(value) is not None:
        return value
    number = float(text) if text is not None and _NUMBER.fullmatch(text) else value
    if isinstance(number, int | float) and not isinstance(number, bool):
        for start, end, units in _UNIX_UNITS:
            if start <= number < end:
                instant = datetime.fromtimestamp(number / units, UTC)
                return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise _UnreadableValue(f"is {describe_type(value)}, not a timestamp")
    raise _UnreadableValue("is not a timestamp", "send ISO 8601, such as 2026-03-02T18:00:00Z")


def _one_of(values: tuple[str, ...]) -> Callable[[object], str]:
    """Return the reader of a string with documented values, which senders spell differently: `No-Answer`.

    Any other string is valid, because Heppu may document further values.
    """
    by_letters = {_SEPARATORS.sub("", value): value for value in values}

    def read(value: object) -> str:
        text = _string(value)
        return text if text in values else by_letters.get(_SEPARATORS.sub("", text.lower()), text)

    return read


_READERS: Final[Mapping[str, tuple[tuple[type, ...], Callable[[Any], Any]]]] = {
    "string": ((str,), _string),
    "number": ((int, float), _number),
    "boolean": ((bool,), _boolean),
    "object": ((dict,), _object),
    "array": ((list,), _array),
    "timestamp": ((), _timestamp),
}
"""Documented type -> the Python types that need no reading, and the reader of all others."""


def _spec(path: str, kind: str, values: tuple[str, ...]) -> FieldSpec:
    types, read = _READERS[kind]
    if values:
        return FieldSpec(path, types, _one_of(values), frozenset(values))
    return FieldSpec(path, types, read)
