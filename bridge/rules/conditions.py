"""Conditions: evaluates `where` and `if` for one event as true, false or unknown.

A field that is missing, null or of another type makes its condition unknown for every operator: `ne` and `not` do
not match a missing field. Groups follow Kleene's three-valued logic: `all` is false if any part is false, `any` is
true if any part is true, and otherwise an unknown part makes the group unknown. A rule fires only on true.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bridge.rules.fields import describe_type
from bridge.rules.model import Check, Truth
from bridge.rules.template_filters import RenderError
from bridge.rules.template_runtime import FIELD_CACHE, TemplateContext, to_storable_json
from bridge.rules.templates import Template

_MAX_SHOWN = 80
"""Characters of a value that a trace shows."""
_JSON = json.JSONEncoder(ensure_ascii=False)


def format_value(value: Any) -> str:
    """Return a JSON value as a trace shows it: short and on one line."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"an object with {len(value)} field{'' if len(value) == 1 else 's'}"
    if isinstance(value, list):
        return f"a list of {len(value)} item{'' if len(value) == 1 else 's'}"
    if isinstance(value, str):
        start = value[:_MAX_SHOWN]
        return _JSON.encode(to_storable_json(start)) + ("…" if len(value) > len(start) else "")
    return str(value) if isinstance(value, float) else json.dumps(value)[:_MAX_SHOWN]


def _same_type(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def run(actual: Any, expected: Any) -> bool | None:
        return compare(actual, expected) if describe_type(actual) == describe_type(expected) else None

    return run


def _numeric(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def run(actual: Any, expected: Any) -> bool | None:
        return compare(actual, expected) if describe_type(actual) == "a number" else None

    return run


def _in(actual: Any, expected: list[Any]) -> bool | None:
    comparable = [item for item in expected if describe_type(item) == describe_type(actual)]
    return actual in comparable if comparable else None


def _not_in(actual: Any, expected: list[Any]) -> bool | None:
    contained = _in(actual, expected)
    return None if contained is None else not contained


def _contains(actual: Any, expected: Any) -> bool | None:
    if isinstance(actual, list):
        return any(describe_type(item) == describe_type(expected) and item == expected for item in actual)
    return expected in actual if isinstance(actual, str) and isinstance(expected, str) else None


OPERATORS: dict[str, Callable[[Any, Any], bool | None]] = {
    "eq": _same_type(lambda actual, expected: bool(actual == expected)),
    "ne": _same_type(lambda actual, expected: bool(actual != expected)),
    "in": _in,
    "not_in": _not_in,
    "gt": _numeric(lambda actual, expected: bool(actual > expected)),
    "gte": _numeric(lambda actual, expected: bool(actual >= expected)),
    "lt": _numeric(lambda actual, expected: bool(actual < expected)),
    "lte": _numeric(lambda actual, expected: bool(actual <= expected)),
    "contains": _contains,
    "starts_with": _same_type(lambda actual, expected: str(actual).startswith(expected)),
    "ends_with": _same_type(lambda actual, expected: str(actual).endswith(expected)),
}
"""Operator -> function of (actual, expected). It returns None if the two values cannot be compared."""


_NEGATION: dict[Truth, Truth] = {"true": "false", "false": "true", "unknown": "unknown"}


def combine(kind: str, results: list[Truth]) -> Truth:
    """Return the result of a group (`all`, `any`, `not`) from the results of its parts."""
    if kind == "not":
        return _NEGATION[combine("all", results)]
    decisive: Truth = "true" if kind == "any" else "false"
    if decisive in results:
        return decisive
    if "unknown" in results:
        return "unknown"
    return "false" if kind == "any" else "true"


@dataclass(frozen=True)
class Condition:
    """A field, an operator and a value: `event.direction` `eq` `outbound`."""

    path: tuple[str, ...]
    operator: str
    expected: Any
    text: str
    """The condition as the trace shows it."""

    def check(self, context: TemplateContext, checks: list[Check], depth: int = 0) -> Truth:
        """Evaluate the condition and append its row of the trace."""
        value, actual = self._actual(context)
        result: Truth = "unknown"
        reason = ""
        if self.operator == "exists":
            result = "true" if (value is not None) is self.expected else "false"
        elif value is None:
            reason = f"{'.'.join(self.path)} is {actual}"
        else:
            matches = OPERATORS[self.operator](value, self.expected)
            if matches is None:
                reason = f"{self.operator} does not apply to {describe_type(value)}"
            else:
                result = "true" if matches else "false"
        checks.append(Check(self.text, actual, result, reason, depth))
        return result

    def _actual(self, context: TemplateContext) -> tuple[Any, str]:
        """Return the field's value and its form in the trace."""
        cache = context[FIELD_CACHE]
        entry = cache.get(self.path)
        if entry is None:
            value, absence = _look_up(context, self.path)
            entry = cache[self.path] = (value, absence or format_value(value))
        return entry  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Group:
    """A group of conditions: all of them, any of them, or not all of them."""

    kind: Literal["all", "any", "not"]
    parts: tuple[Condition | Group, ...]

    def check(self, context: TemplateContext, checks: list[Check], depth: int = 0) -> Truth:
        """Evaluate every part, so that the trace is complete, and then the group."""
        index = len(checks)
        result = combine(self.kind, [part.check(context, checks, depth + 1) for part in self.parts])
        checks.insert(index, Check(f"{self.kind} of {len(self.parts)}", "", result, "", depth))
        return result


@dataclass(frozen=True)
class Where:
    """A whole `where`: all of its entries must be true."""

    parts: tuple[Condition | Group, ...]

    def check(self, context: TemplateContext, checks: list[Check]) -> Truth:
        """Evaluate every entry and append its rows of the trace."""
        return combine("all", [part.check(context, checks) for part in self.parts])


def check_condition(condition: Template, context: TemplateContext, label: str = "if") -> Check:
    """Evaluate an `if` (or `messaging.consent`) to one row of a trace. Evaluation errors make it unknown."""
    text = f"{label} {condition.source}"
    try:
        result: Truth = "true" if condition(context) else "false"
    except RenderError as error:
        return Check(text, "", "unknown", str(error))
    return Check(text, result, result)


def _look_up(context: TemplateContext, path: tuple[str, ...]) -> tuple[Any, str]:
    """Return the value at a path, or None and its absence: `missing` or `null`."""
    value: Any = context
    for depth, key in enumerate(path, start=1):
        if not isinstance(value, dict):
            return None, f"missing ({describe_type(value)} has no fields)"
        if key not in value:
            return None, _missing(key, value)
        value = value[key]
        if value is None:
            return None, "null" if depth == len(path) and path[0] == "event" else "missing"
    return value, ""


def _missing(key: str, fields: Any) -> str:
    """Return `missing`, with the name of a field that differs only in case, `_` and `-`, if any."""
    plain = key.lower().replace("_", "").replace("-", "")
    if len(fields) <= 100:
        for other in fields:
            if len(other) < 60 and other.lower().replace("_", "").replace("-", "") == plain:
                return f"missing (there is `{other}`)"
    return "missing"
