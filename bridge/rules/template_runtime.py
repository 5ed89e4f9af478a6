"""Template runtime: the functions that compiled templates call when they are rendered."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from bridge.connector.params import MarkupLanguage
from bridge.json_values import describe_type, replace_unstorable
from bridge.rules import operators
from bridge.rules.lookup import TemplateContext, describe_absence, look_up
from bridge.rules.operators import EXPRESSION_OPERATORS
from bridge.rules.template_filters import (
    ESCAPES,
    MAX_LENGTH,
    TOO_LONG,
    MissingValue,
    RenderError,
    limit_length,
    require_number,
    to_text,
)

Evaluator = Callable[[TemplateContext], Any]
"""A compiled template or part of one: context -> value."""

TIME_ZONE = "time zone"
"""Context key of the contact's time zone. No template can name it, because it contains a space."""

TABLES = "tables of the file"
"""Context key of `tables:`. No template can name it, because it contains a space."""

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
        value = look_up(context, path)[0]
        if value is None:
            raise MissingValue(describe_absence(context, path, "missing"))
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


def is_filled(value: Evaluator, context: TemplateContext) -> bool:
    """Return whether an expression has a value that is not empty."""
    try:
        return operators.is_filled(value(context))
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


def look_up_in_table(value: Evaluator, table: str, fallback: Evaluator | None = None) -> Evaluator:
    """Return an evaluator of `table(name)`: the entry for a value in a table of the file, else the fallback."""

    def run(context: TemplateContext) -> Any:
        try:
            entry = context.get(TABLES, {}).get(table, {}).get(to_text(value(context)))
        except MissingValue:
            entry = None
        if entry is not None:
            return entry
        if fallback is None:
            raise MissingValue(f"the table {table} has no entry for this value")
        return fallback(context)

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


def passthrough(value: Evaluator, markup: MarkupLanguage | None) -> Evaluator:
    """Return an evaluator that keeps the JSON type of a value; with `markup`, it returns an escaped string."""

    def run(context: TemplateContext) -> Any:
        result = value(context)
        return to_storable_json(ESCAPES[markup](result) if markup and result is not None else result)

    return run


def to_storable_json(value: Any, depth: int = 0) -> Any:
    """Replace NUL and lone surrogates, which databases and providers reject. Raise RenderError for infinities."""
    if isinstance(value, str):
        return replace_unstorable(limit_length(str(value)))
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


def comparison(name: str) -> Callable[[Any, Any], bool]:
    """Return an operator, by Jinja's name. It raises RenderError if it does not apply to the values."""
    compare = EXPRESSION_OPERATORS[name]

    def run(left: Any, right: Any) -> bool:
        result = compare(left, right)
        if result is None:
            verb, word = ("look for", "in") if name in ("in", "notin") else ("compare", "with")
            raise RenderError(f"cannot {verb} {describe_type(left)} {word} {describe_type(right)}")
        return result

    return run
