"""Operators of `where`, `if` and templates: one table of comparisons in three-valued logic.

Each operator is a function of (actual, expected) and returns None if it does not apply to the two values: nothing is
converted, so a string never equals a number. `where` shows None as unknown; an expression raises RenderError, which
makes an `if` unknown and a template fail.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from bridge.json_values import describe_type

Operator = Callable[[Any, Any], bool | None]


def _for_types(compare: Callable[[Any, Any], bool], *types: str) -> Operator:
    """Return an operator for two values of the same type, which must be one of `types`."""
    comparable = frozenset(kind for kind in (str, int, float, bool) if describe_type(kind()) in types)

    def run(actual: Any, expected: Any) -> bool | None:
        if type(actual) is type(expected) and type(actual) in comparable:  # nearly always
            return compare(actual, expected)
        kind = describe_type(actual)
        return compare(actual, expected) if kind in types and kind == describe_type(expected) else None

    return run


def _negation(of: Operator) -> Operator:
    def run(actual: Any, expected: Any) -> bool | None:
        result = of(actual, expected)
        return None if result is None else not result

    return run


def _in(actual: Any, expected: list[Any]) -> bool | None:
    comparable = [item for item in expected if describe_type(item) == describe_type(actual)]
    return actual in comparable if comparable else None


def _contains(actual: Any, expected: Any) -> bool | None:
    if isinstance(actual, list):
        return any(describe_type(item) == describe_type(expected) and item == expected for item in actual)
    return expected in actual if isinstance(actual, str) and isinstance(expected, str) else None


def is_filled(value: Any) -> bool:
    """Return whether a value is there and not empty: no null, blank string, empty list or empty object."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value not in ([], {})


def _any_affix(matches: Callable[[str, tuple[str, ...]], bool]) -> Operator:
    """Return an operator that compares the start or the end of a string with one string or a list of them."""

    def run(actual: Any, expected: Any) -> bool | None:
        affixes = tuple(expected) if isinstance(expected, list) else (expected,)
        return matches(actual, affixes) if isinstance(actual, str) else None

    return run


def _is_part_of(actual: Any, container: Any) -> bool | None:
    """`in` of an expression, where the container is a field: a list, a string, or an object with that key."""
    if isinstance(container, dict):
        return actual in container if isinstance(actual, str) else None
    return _contains(container, actual)


_ORDERED = ("a number", "a string")
_EQUAL = _for_types(operator.eq, *_ORDERED, "a boolean")

OPERATORS: dict[str, Operator] = {
    "eq": _EQUAL,
    "ne": _negation(_EQUAL),
    "in": _in,
    "not_in": _negation(_in),
    "gt": _for_types(operator.gt, *_ORDERED),
    "gte": _for_types(operator.ge, *_ORDERED),
    "lt": _for_types(operator.lt, *_ORDERED),
    "lte": _for_types(operator.le, *_ORDERED),
    "contains": _contains,
    "starts_with": _any_affix(str.startswith),
    "ends_with": _any_affix(str.endswith),
}
"""Name in `where` -> operator. The loader checks the expected values."""

PRESENCE_OPERATORS = ("exists", "filled")
"""Operators that ask whether a field has a value, so that a missing field makes them true or false, never unknown."""

EXPRESSION_OPERATORS: dict[str, Operator] = {
    **{name: OPERATORS[name] for name in ("eq", "ne", "gt", "lt")},
    "gteq": OPERATORS["gte"],
    "lteq": OPERATORS["lte"],
    "in": _is_part_of,
    "notin": _negation(_is_part_of),
}
"""Jinja's name of an operator -> operator."""
