"""The filters and tests of templates: everything that `{{ value | filter }}` and `is test` can do.

Each takes plain JSON and gives plain JSON, in time and space that its input bounds. A value of a type that a
filter is not for is an error with advice, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from bridge.errors import BridgeError
from bridge.events import known_zone, parse_instant
from bridge.rules.fields import kind_of

MAX_TEXT = 1 << 20
"""Characters that any rendered text, finished or not, may have: what an event itself may have."""

_CUT = "..."
_DIRECTIVES = re.compile(r"(?:[^%]|%[aAbBdHIjmMpSyYZ%])*", re.ASCII)


class RenderError(BridgeError):
    """A template or condition cannot be worked out for this event; the text says why, without any value."""


class Missing(RenderError):
    """A name stands for nothing: the field is absent or null."""


def number_of(value: Any, what: str) -> int | float:
    """`value` when it is a number; `what` wants one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise RenderError(f"{what} takes a number, not {kind_of(value)}")


def text_of(value: Any, what: str) -> str:
    """`value` when it is a text; `what` wants one."""
    if isinstance(value, str):
        return bounded(str(value))
    raise RenderError(f"{what} takes a text, not {kind_of(value)}")


def bounded(text: str) -> str:
    """`text`, unless it is too long for anything."""
    if len(text) > MAX_TEXT:
        raise RenderError("the text becomes longer than 1 MiB")
    return text


def written(value: Any) -> str:
    """A scalar as it appears inside a text."""
    if isinstance(value, str):
        return bounded(str(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    if value is None:
        raise Missing("a part of the text is null")
    if isinstance(value, list):
        raise RenderError("a list cannot stand in a text: write `| join(', ')` after it")
    raise RenderError("an object cannot stand in a text: name one of its fields")


def _replace(value: Any, old: Any, new: Any) -> str:
    text, old, new = (text_of(part, "`replace`") for part in (value, old, new))
    if not old:
        raise RenderError("`replace` needs a text to look for")
    if len(text) + text.count(old) * (len(new) - len(old)) > MAX_TEXT:
        raise RenderError("the text becomes longer than 1 MiB")
    return text.replace(old, new)


def _truncate(value: Any, length: int) -> str:
    text = text_of(value, "`truncate`")
    if len(text) <= length:
        return text
    return text[: max(length - len(_CUT), 0)].rstrip() + _CUT[:length]


def _round(value: Any, digits: int = 0) -> int | float:
    number = number_of(value, "`round`")
    try:
        return round(number, digits) if digits else round(number)
    except (OverflowError, ValueError):
        raise RenderError("`round` takes a finite number") from None


def _int(value: Any) -> int:
    try:
        if isinstance(value, str):
            return int(value.strip()) if len(value) <= 40 else int("too long")
        return int(number_of(value, "`int`"))
    except (ValueError, OverflowError):
        raise RenderError("`int` finds no whole number there") from None


def _float(value: Any) -> float:
    try:
        if isinstance(value, str):
            return float(value.strip()) if len(value) <= 40 else float("too long")
        return float(number_of(value, "`float`"))
    except (ValueError, OverflowError):
        raise RenderError("`float` finds no number there") from None


def _join(value: Any, separator: Any = ", ") -> str:
    if not isinstance(value, list):
        raise RenderError(f"`join` takes a list, not {kind_of(value)}")
    between = text_of(separator, "`join`")
    parts = [written(item) for item in value]
    if sum(map(len, parts)) + len(between) * len(parts) > MAX_TEXT:
        raise RenderError("the text becomes longer than 1 MiB")
    return between.join(parts)


def _length(value: Any) -> int:
    if isinstance(value, str | list | dict):
        return len(value)
    raise RenderError(f"`length` takes a text, a list or an object, not {kind_of(value)}")


def _end_of_list(name: str, index: int) -> Callable[[Any], Any]:
    def take(value: Any) -> Any:
        if not isinstance(value, list):
            raise RenderError(f"`{name}` takes a list, not {kind_of(value)}")
        if not value or value[index] is None:
            raise Missing("the list is empty")
        return value[index]

    return take


def _urlencode(value: Any) -> str:
    return quote(written(value).encode("utf-8", "replace"), safe="")


def local(value: Any, default_zone: str, pattern: str = "%Y-%m-%d %H:%M", zone: str | None = None) -> str:
    """An ISO 8601 instant on the wall clock of `zone` (default: the person's), by a strftime pattern."""
    instant = value if isinstance(value, datetime) else parse_instant(value)
    if instant is None:
        raise RenderError("`local` takes a time such as `now` or `event.timestamp`")
    try:
        return instant.astimezone(ZoneInfo(zone or default_zone)).strftime(pattern)
    except (ValueError, OverflowError):
        raise RenderError("`local` takes a time between the years 1 and 9999") from None


def _text_filter(name: str, change: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: bounded(change(text_of(value, f"`{name}`")))


def _constant_length(value: object) -> str | None:
    return (
        None if isinstance(value, int) and not isinstance(value, bool) and value >= 4 else "a length from 4"
    )


def _constant_digits(value: object) -> str | None:
    fine = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10
    return None if fine else "a number of digits from 0 to 10"


def _constant_pattern(value: object) -> str | None:
    if isinstance(value, str) and len(value) <= 60 and _DIRECTIVES.fullmatch(value):
        return None
    return "a pattern in quotes of %Y %m %d %H %M %B %b %A %a %I %p %Z and the like"


def _constant_zone(value: object) -> str | None:
    return None if known_zone(value) else "a time zone in quotes, such as 'Europe/Berlin'"


Constant = Callable[[object], str | None]
"""Says what a constant argument must be, when it is not."""


@dataclass(frozen=True)
class Filter:
    """One filter: its function, how many arguments it takes, and those that must be written out."""

    run: Callable[..., Any]
    least: int = 0
    most: int = 0
    constants: tuple[Constant, ...] = ()
    """For the arguments from the first on: they must be constants, checked when the rules are loaded."""


FILTERS: dict[str, Filter] = {
    "capitalize": Filter(_text_filter("capitalize", str.capitalize)),
    "escape": Filter(lambda value: escape(written(value))),
    "first": Filter(_end_of_list("first", 0)),
    "float": Filter(_float),
    "int": Filter(_int),
    "join": Filter(_join, most=1),
    "last": Filter(_end_of_list("last", -1)),
    "length": Filter(_length),
    "lower": Filter(_text_filter("lower", str.lower)),
    "replace": Filter(_replace, least=2, most=2),
    "round": Filter(_round, most=1, constants=(_constant_digits,)),
    "string": Filter(written),
    "title": Filter(_text_filter("title", str.title)),
    "trim": Filter(_text_filter("trim", str.strip)),
    "truncate": Filter(_truncate, least=1, most=1, constants=(_constant_length,)),
    "upper": Filter(_text_filter("upper", str.upper)),
    "urlencode": Filter(_urlencode),
}
FILTERS["e"] = FILTERS["escape"]

LOCAL = Filter(local, most=2, constants=(_constant_pattern, _constant_zone))
"""`local` stands apart because it needs the person's time zone."""
DEFAULT = Filter(lambda: None, least=1, most=2, constants=())
"""`default` stands apart because it is what a missing value is for."""

FILTER_NAMES = tuple(sorted([*FILTERS, "default", "local"]))

TESTS: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "mapping": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "sequence": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
}
TEST_NAMES = tuple(sorted([*TESTS, "defined", "undefined", "none"]))


def escaped(value: Any) -> str:
    """A scalar as it appears inside HTML; what `escape` already did is left alone."""
    return str(value) if isinstance(value, Markup) else str(escape(written(value)))
