"""Template filters and tests: everything that `{{ value | filter }}` and `is test` can do.

Each filter maps plain JSON to plain JSON, with time and space bounded by its input. A value of an unsupported type
is an error with advice. No filter guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from bridge.clock import parse_timestamp
from bridge.connector.params import MarkupLanguage
from bridge.contacts.time_zone import normalize_time_zone
from bridge.errors import BridgeError
from bridge.json_values import describe_type

MAX_LENGTH = 1 << 20
"""Maximum characters of a rendered string, also of an intermediate one. It is the maximum size of an event."""

_ELLIPSIS = "..."
TOO_LONG = "the string becomes longer than 1 MiB"
_DIRECTIVES = re.compile(r"(?:[^%]|%[aAbBdHIjmMpSyYZ%])*", re.ASCII)


class RenderError(BridgeError):
    """A template or condition cannot be evaluated for this event. The message gives the reason, never a value."""


class MissingValue(RenderError):
    """A name has no value: the field is absent or null."""


def require_number(value: Any, label: str) -> int | float:
    """Return `value` if it is a number. `label` names the operator or filter for the error."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise RenderError(f"{label} takes a number, not {describe_type(value)}")


def require_string(value: Any, label: str) -> str:
    """Return `value` if it is a string. `label` names the filter for the error."""
    if isinstance(value, str):
        return limit_length(str(value))
    raise RenderError(f"{label} takes a string, not {describe_type(value)}")


def limit_length(text: str) -> str:
    """Return `text`. Raise RenderError if it is too long."""
    if len(text) > MAX_LENGTH:
        raise RenderError(TOO_LONG)
    return text


def to_text(value: Any) -> str:
    """Return a scalar as it appears inside a string."""
    if isinstance(value, str):
        return limit_length(str(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    if value is None:
        raise MissingValue("a part of the string is null")
    if isinstance(value, list):
        raise RenderError("a list cannot be inserted into a string: add `| join(', ')`")
    raise RenderError("an object cannot be inserted into a string: name one of its fields")


def _replace(value: Any, old: Any, new: Any) -> str:
    text, old, new = (require_string(part, "`replace`") for part in (value, old, new))
    if not old:
        raise RenderError("`replace` cannot search for an empty string")
    if len(text) + text.count(old) * (len(new) - len(old)) > MAX_LENGTH:
        raise RenderError(TOO_LONG)
    return text.replace(old, new)


def _truncate(value: Any, length: int) -> str:
    text = require_string(value, "`truncate`")
    if len(text) <= length:
        return text
    return text[: max(length - len(_ELLIPSIS), 0)].rstrip() + _ELLIPSIS[:length]


def _prefix(value: Any, length: int) -> str:
    return require_string(value, "`prefix`")[:length]


def _round(value: Any, digits: int = 0) -> int | float:
    number = require_number(value, "`round`")
    try:
        return round(number, digits) if digits else round(number)
    except (OverflowError, ValueError):
        raise RenderError("`round` takes a finite number") from None


def _int(value: Any) -> int:
    try:
        if isinstance(value, str):
            return int(value.strip()) if len(value) <= 40 else int("too long")
        return int(require_number(value, "`int`"))
    except (ValueError, OverflowError):
        raise RenderError("`int` takes a whole number") from None


def _float(value: Any) -> float:
    try:
        if isinstance(value, str):
            return float(value.strip()) if len(value) <= 40 else float("too long")
        return float(require_number(value, "`float`"))
    except (ValueError, OverflowError):
        raise RenderError("`float` takes a number") from None


def _join(value: Any, separator: Any = ", ") -> str:
    if not isinstance(value, list):
        raise RenderError(f"`join` takes a list, not {describe_type(value)}")
    between = require_string(separator, "`join`")
    parts = [to_text(item) for item in value]
    if sum(map(len, parts)) + len(between) * len(parts) > MAX_LENGTH:
        raise RenderError(TOO_LONG)
    return between.join(parts)


def _length(value: Any) -> int:
    if isinstance(value, str | list | dict):
        return len(value)
    raise RenderError(f"`length` takes a string, a list or an object, not {describe_type(value)}")


def _list_item(name: str, index: int) -> Callable[[Any], Any]:
    def take(value: Any) -> Any:
        if not isinstance(value, list):
            raise RenderError(f"`{name}` takes a list, not {describe_type(value)}")
        if not value or value[index] is None:
            raise MissingValue("the list is empty")
        return value[index]

    return take


def _urlencode(value: Any) -> str:
    return quote(to_text(value).encode("utf-8", "replace"), safe="")


def local(value: Any, default_zone: str, pattern: str = "%Y-%m-%d %H:%M", zone: str | None = None) -> str:
    """Format an ISO 8601 timestamp in the time zone `zone` (default: the contact's) with a strftime pattern."""
    timestamp = value if isinstance(value, datetime) else parse_timestamp(value)
    if timestamp is None:
        raise RenderError("`local` takes a timestamp such as `now` or `event.timestamp`")
    try:
        return timestamp.astimezone(ZoneInfo(zone or default_zone)).strftime(pattern)
    except (ValueError, OverflowError):
        raise RenderError("`local` takes a timestamp between the years 1 and 9999") from None


def _string_filter(name: str, change: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: limit_length(change(require_string(value, f"`{name}`")))


def _constant_length(value: object) -> str | None:
    return (
        None
        if isinstance(value, int) and not isinstance(value, bool) and value >= 4
        else "a length of at least 4; the first two characters are `prefix(2)`"
    )


def _constant_prefix_length(value: object) -> str | None:
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return None if valid else "a number of characters from 1"


def _constant_digits(value: object) -> str | None:
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10
    return None if valid else "a number of digits from 0 to 10"


def _constant_table(value: object) -> str | None:
    return None if isinstance(value, str) else "the quoted name of a table, such as 'greetings'"


def _constant_pattern(value: object) -> str | None:
    if isinstance(value, str) and len(value) <= 60 and _DIRECTIVES.fullmatch(value):
        return None
    unknown = re.search(r"%[^aAbBdHIjmMpSyYZ%]", value) if isinstance(value, str) else None
    kind = f"a pattern without `{unknown[0]}`, made" if unknown else "a quoted pattern"
    return f"{kind} of %Y %m %d %H %M %S %B %b %A %a %I %p %j %y %Z"


def _constant_zone(value: object) -> str | None:
    return None if normalize_time_zone(value) else "a quoted time zone, such as 'Europe/Berlin'"


ConstantCheck = Callable[[object], str | None]
"""Returns a description of the expected constant if the argument does not fit, otherwise None."""


@dataclass(frozen=True)
class Filter:
    """A filter: its function, its number of arguments, and the checks of constant arguments."""

    run: Callable[..., Any]
    min_args: int = 0
    max_args: int = 0
    constants: tuple[ConstantCheck, ...] = ()
    """Checks for the first arguments, which must then be constants. They run when the rules are loaded."""


FILTERS: dict[str, Filter] = {
    "capitalize": Filter(_string_filter("capitalize", str.capitalize)),
    "escape": Filter(lambda value: escape(to_text(value))),
    "first": Filter(_list_item("first", 0)),
    "float": Filter(_float),
    "int": Filter(_int),
    "join": Filter(_join, max_args=1),
    "last": Filter(_list_item("last", -1)),
    "length": Filter(_length),
    "lower": Filter(_string_filter("lower", str.lower)),
    "prefix": Filter(_prefix, min_args=1, max_args=1, constants=(_constant_prefix_length,)),
    "replace": Filter(_replace, min_args=2, max_args=2),
    "round": Filter(_round, max_args=1, constants=(_constant_digits,)),
    "string": Filter(to_text),
    "title": Filter(_string_filter("title", str.title)),
    "trim": Filter(_string_filter("trim", str.strip)),
    "truncate": Filter(_truncate, min_args=1, max_args=1, constants=(_constant_length,)),
    "upper": Filter(_string_filter("upper", str.upper)),
    "urlencode": Filter(_urlencode),
}
FILTERS["e"] = FILTERS["escape"]

LOCAL_FILTER = Filter(local, max_args=2, constants=(_constant_pattern, _constant_zone))
"""`local` is separate because it needs the contact's time zone."""
TABLE_FILTER = Filter(lambda: None, min_args=1, max_args=2, constants=(_constant_table,))
"""`table` is separate because it needs the tables of the file."""
DEFAULT_FILTER = Filter(lambda: None, min_args=1, max_args=2, constants=())
"""`default` is separate because it handles missing values."""

FILTER_NAMES = tuple(sorted([*FILTERS, "default", "local", "table"]))

TESTS: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "mapping": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "sequence": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
}
TEST_NAMES = tuple(sorted([*TESTS, "defined", "filled", "undefined", "none"]))


def to_html(value: Any) -> str:
    """Return a scalar as it appears inside HTML. Output of `escape` is not escaped again."""
    return str(value) if isinstance(value, Markup) else str(escape(to_text(value)))


def to_slack(value: Any) -> str:
    """Return a scalar as it appears in a message of Slack, where only three characters have a meaning."""
    text = value.unescape() if isinstance(value, Markup) else to_text(value)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_MARKDOWN_CHARACTERS: Final = re.compile(r"[\\`*_~{}\[\]()<>&|]")
_MARKDOWN_LINES: Final = (
    (re.compile(r"\r\n?"), "\n"),
    (re.compile(r"(?m)^[ \t]+"), ""),
    (re.compile(r"(?m)^(?:#{1,6}(?=\s|$)|[-+](?=\s|$)|[-=]+[ \t]*$)"), r"\\\g<0>"),
    (re.compile(r"(?m)^\d{1,9}(?=\.(?:\s|$))"), r"\g<0>\\"),
)
"""What is markup at the start of a line: a code block, a heading, a list, a rule."""


def to_markdown(value: Any) -> str:
    """Return a scalar as it appears in Markdown: nothing in it is a link, a mention or any other markup."""
    text = value.unescape() if isinstance(value, Markup) else to_text(value)
    text = _MARKDOWN_CHARACTERS.sub(r"\\\g<0>", text)
    for pattern, replacement in _MARKDOWN_LINES:
        text = pattern.sub(replacement, text)
    return text


_MENTIONS_AND_LINKS: Final = re.compile(
    r"<(?=[!@#/A-Za-z])|\](?=[(\[:])|@(?=everyone|here|channel|all)|(?<!\w)@(?=\w)"
)


def to_plain(value: Any) -> str:
    """Return a scalar with an invisible space in what Discord, Slack, Teams or Markdown read as a mention or a link.

    Email addresses and other text stay as they are.
    """
    text = value.unescape() if isinstance(value, Markup) else to_text(value)
    return _MENTIONS_AND_LINKS.sub("\\g<0>\u200b", text)


ESCAPES: Final[Mapping[MarkupLanguage | None, Callable[[Any], str]]] = {
    None: to_text,
    "html": to_html,
    "slack": to_slack,
    "markdown": to_markdown,
    "plain": to_plain,
}
"""How a value is written in each markup language; None: plain text."""
