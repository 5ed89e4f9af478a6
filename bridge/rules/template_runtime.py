"""What the functions of a compiled template do when they run."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bridge.rules.fields import kind_of
from bridge.rules.template_filters import MAX_TEXT, Missing, RenderError, bounded, escaped, number_of

Names = Mapping[str, Any]
Step = Callable[[Names], Any]

ZONE = "time zone"
"""The key under which the names hold the person's zone; with a space in it, no template can name it."""

SEEN = "fields seen"
"""The key of what `where` has looked up already, so that a thousand rules look at a field once."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_DEEPEST = 50


def nothing(_names: Names) -> Any:
    """Stands where a mistake was; never called."""
    raise RenderError("a template with mistakes is never run")


def constant(value: Any) -> Step:
    """Always `value`."""
    return lambda _names: value


def looked_up(path: tuple[str, ...]) -> Step:
    """The field at a dotted name."""

    def run(names: Names) -> Any:
        value: Any = names
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
            if value is None:
                raise Missing(f"{'.'.join(path)} is missing")
        return value

    return run


def keys_of(inner: Step, keys: tuple[str, ...]) -> Step:
    """A field of what another function gives."""

    def run(names: Names) -> Any:
        value = inner(names)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
            if value is None:
                raise Missing(f"the field {key} is missing")
        return value

    return run


def is_there(value: Step, names: Names) -> bool:
    """Whether a name stands for something."""
    try:
        return value(names) is not None
    except Missing:
        return False


def with_default(value: Step, arguments: list[Step]) -> Step:
    """`default(x)` stands in for what is missing, `default(x, true)` also for an empty text."""
    instead = arguments[0]
    also_empty = arguments[1] if len(arguments) > 1 else constant(False)

    def run(names: Names) -> Any:
        try:
            found = value(names)
        except Missing:
            found = None
        if found is None or (found == "" and also_empty(names) is True):
            return instead(names)
        return found

    return run


def text(parts: Sequence[Step]) -> Step:
    """The parts in a row, bounded while it grows."""

    def run(names: Names) -> str:
        texts, size = [], 0
        for part in parts:
            piece = part(names)
            size += len(piece)
            if size > MAX_TEXT:
                raise RenderError("the text becomes longer than 1 MiB")
            texts.append(piece)
        return str(storable("".join(texts)))

    return run


def as_it_is(value: Step, html: bool) -> Step:
    """One value with its JSON type; inside HTML an escaped text."""

    def run(names: Names) -> Any:
        found = value(names)
        return storable(escaped(found) if html and found is not None else found)

    return run


def storable(value: Any, depth: int = 0) -> Any:
    """The JSON value without what no database and no partner takes: NUL, half characters, infinities."""
    if isinstance(value, str):
        plain = bounded(str(value))
        return plain if plain.isascii() and "\x00" not in plain else _UNSTORABLE.sub("\ufffd", plain)
    if isinstance(value, float) and not math.isfinite(value):
        raise RenderError("the number is not finite")
    if depth > _DEEPEST:
        raise RenderError("the value is nested too deeply")
    if isinstance(value, list):
        return [storable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item, depth + 1) for key, item in value.items()}
    return value


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_LARGEST = 10**18


def reckoned(run: Callable[[Any, Any], Any], sign: str, left: Any, right: Any) -> int | float:
    """Arithmetic on numbers of a sensible size; raises RenderError for anything else."""
    left, right = number_of(left, f"`{sign}`"), number_of(right, f"`{sign}`")
    if abs(left) > _LARGEST or abs(right) > _LARGEST:
        raise RenderError(f"`{sign}` takes numbers up to 10 to the 18th")
    try:
        result: int | float = run(left, right)
    except ZeroDivisionError:
        raise RenderError(f"`{sign}` divides by zero") from None
    if not abs(result) <= _LARGEST:
        raise RenderError(f"`{sign}` gives a number above 10 to the 18th")
    return result


def same(left: Any, right: Any) -> bool:
    """Equality without coercion; raises RenderError for values of different types."""
    if kind_of(left) != kind_of(right) or isinstance(left, list | dict):
        raise RenderError(f"compares {kind_of(left)} with {kind_of(right)}")
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(left: Any, right: Any) -> bool:
        if (
            kind_of(left) != kind_of(right)
            or not isinstance(left, int | float | str)
            or isinstance(left, bool)
        ):
            raise RenderError(f"compares {kind_of(left)} with {kind_of(right)}")
        return compare(left, right)

    return run


def _contained(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return any(kind_of(item) == kind_of(left) and item == left for item in right)
    if isinstance(right, str | dict) and isinstance(left, str):
        return left in right
    raise RenderError(f"looks for {kind_of(left)} in {kind_of(right)}")


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": same,
    "ne": lambda left, right: not same(left, right),
    "gt": _ordered(operator.gt),
    "gteq": _ordered(operator.ge),
    "lt": _ordered(operator.lt),
    "lteq": _ordered(operator.le),
    "in": _contained,
    "notin": lambda left, right: not _contained(left, right),
}
