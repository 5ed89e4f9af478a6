"""Template runtime: the functions that compiled templates call when they are rendered."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bridge.events import replace_unstorable
from bridge.rules.fields import describe_type
from bridge.rules.template_filters import (
    MAX_LENGTH,
    TOO_LONG,
    MissingValue,
    RenderError,
    limit_length,
    require_number,
    to_html,
)

TemplateContext = Mapping[str, Any]
"""The names that a template can use: `event`, `contact`, `now`, `delivery`."""

Evaluator = Callable[[TemplateContext], Any]
"""A compiled template or part of one: context -> value."""

TIME_ZONE = "time zone"
"""Context key of the contact's time zone. No template can name it, because it contains a space."""

FIELD_CACHE = "field cache"
"""Context key of the fields that `where` has already looked up, so that a thousand rules look up a field once."""

_MAX_DEPTH = 50


def unusable(_context: TemplateContext) -> Any:
    """Take the place of an evaluator that could not be compiled. It is never called."""
    raise RenderError("a template with errors cannot be rendered")


def constant(value: Any) -> Evaluator:
    """Return an evaluator that always returns `value`."""
    return lambda _context: value


def lookup_path(path: tuple[str, ...]) -> Evaluator:
    """Return an evaluator of the field with a dotted name."""

    def run(context: TemplateContext) -> Any:
        value: Any = context
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
            if value is None:
                raise MissingValue(f"{'.'.join(path)} is missing")
        return value

    return run


def lookup_keys(inner: Evaluator, keys: tuple[str, ...]) -> Evaluator:
    """Return an evaluator of a nested field in the value of another evaluator."""

    def run(context: TemplateContext) -> Any:
        value = inner(context)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
            if value is None:
                raise MissingValue(f"the field {key} is missing")
        return value

    return run


def is_defined(value: Evaluator, context: TemplateContext) -> bool:
    """Return whether an expression has a value."""
    try:
        return value(context) is not None
    except MissingValue:
        return False


def with_default(value: Evaluator, arguments: list[Evaluator]) -> Evaluator:
    """Return an evaluator of `default(x)`, which replaces a missing value; `default(x, true)` also an empty string."""
    fallback = arguments[0]
    replace_empty = arguments[1] if len(arguments) > 1 else constant(False)

    def run(context: TemplateContext) -> Any:
        try:
            result = value(context)
        except MissingValue:
            result = None
        if result is None or (result == "" and replace_empty(context) is True):
            return fallback(context)
        return result

    return run


def concatenate(parts: Sequence[Evaluator]) -> Evaluator:
    """Return an evaluator that joins its parts. It stops as soon as the result is too long."""

    def run(context: TemplateContext) -> str:
        strings, size = [], 0
        for part in parts:
            string = part(context)
            size += len(string)
            if size > MAX_LENGTH:
                raise RenderError(TOO_LONG)
            strings.append(string)
        return str(to_storable_json("".join(strings)))

    return run


def passthrough(value: Evaluator, html: bool) -> Evaluator:
    """Return an evaluator that keeps the JSON type of a value; with `html`, it returns an escaped string."""

    def run(context: TemplateContext) -> Any:
        result = value(context)
        return to_storable_json(to_html(result) if html and result is not None else result)

    return run


def to_storable_json(value: Any, depth: int = 0) -> Any:
    """Replace NUL and lone surrogates, which databases and providers reject. Raise RenderError for infinities."""
    if isinstance(value, str):
        plain = limit_length(str(value))
        return plain if plain.isascii() and "\x00" not in plain else replace_unstorable(plain)
    if isinstance(value, float) and not math.isfinite(value):
        raise RenderError("the number is not finite")
    if depth > _MAX_DEPTH:
        raise RenderError("the value is nested too deeply")
    if isinstance(value, list):
        return [to_storable_json(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {to_storable_json(key): to_storable_json(item, depth + 1) for key, item in value.items()}
    return value


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_MAX_NUMBER = 10**18


def arithmetic(run: Callable[[Any, Any], Any], sign: str, left: Any, right: Any) -> int | float:
    """Return the result of an arithmetic operation. Raise RenderError for other types and for huge numbers."""
    left, right = require_number(left, f"`{sign}`"), require_number(right, f"`{sign}`")
    if abs(left) > _MAX_NUMBER or abs(right) > _MAX_NUMBER:
        raise RenderError(f"`{sign}` takes numbers up to 10**18")
    try:
        result: int | float = run(left, right)
    except ZeroDivisionError:
        raise RenderError(f"`{sign}` divides by zero") from None
    if not abs(result) <= _MAX_NUMBER:
        raise RenderError(f"the result of `{sign}` is above 10**18")
    return result


def values_equal(left: Any, right: Any) -> bool:
    """Return whether two values are equal, without coercion. Raise RenderError for values of different types."""
    if describe_type(left) != describe_type(right) or isinstance(left, list | dict):
        raise _not_comparable(left, right)
    return bool(left == right)


def _not_comparable(left: Any, right: Any) -> RenderError:
    return RenderError(f"cannot compare {describe_type(left)} with {describe_type(right)}")


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(left: Any, right: Any) -> bool:
        if (
            describe_type(left) != describe_type(right)
            or not isinstance(left, int | float | str)
            or isinstance(left, bool)
        ):
            raise _not_comparable(left, right)
        return compare(left, right)

    return run


def _contained(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return any(describe_type(item) == describe_type(left) and item == left for item in right)
    if isinstance(right, str | dict) and isinstance(left, str):
        return left in right
    raise RenderError(f"cannot look for {describe_type(left)} in {describe_type(right)}")


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": values_equal,
    "ne": lambda left, right: not values_equal(left, right),
    "gt": _ordered(operator.gt),
    "gteq": _ordered(operator.ge),
    "lt": _ordered(operator.lt),
    "lteq": _ordered(operator.le),
    "in": _contained,
    "notin": lambda left, right: not _contained(left, right),
}
