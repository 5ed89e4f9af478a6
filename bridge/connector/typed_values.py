"""Values in the types of a CRM's fields, for what an event contains and for what a rule writes.

Structured results of a call (`event.callMetadata.custom`) are JSON that a language model has filled in: a number may
arrive as a text, an option as its label, a list where a field takes one value. These functions accept every spelling
that has one meaning, and return None for the rest; a connector then leaves the value out and says so. A text such as
`5,000` has two meanings and is not taken for a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
_MAX_NUMBER = 10**18
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?( ?Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.IGNORECASE,
)
_MILLISECONDS = re.compile(r"[0-9]{12,14}")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NOON = time(12, tzinfo=UTC)


def to_number(value: Any) -> int | float | None:
    """Return a finite number below 10**18, or a text that contains one: `5`, `-2.5`, `" 5.0 "`."""
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            return None
        value = Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if not -_MAX_NUMBER < value < _MAX_NUMBER:  # false for nan
        return None
    return int(value) if value == int(value) else float(value)


def number_text(number: float) -> str:
    """Return a number as a text without an exponent, with at most 12 decimals, whole numbers without `.0`."""
    rounded = round(number, 12)
    return format(Decimal(repr(int(rounded) if rounded == int(rounded) else rounded)), "f")


def to_boolean(value: Any) -> bool | None:
    """Return true or false: as such, as 1 or 0, or as a text such as `Yes`."""
    return _BOOLEANS.get(to_text(value).strip().lower())


def to_day(value: Any) -> date | None:
    """Return the day of a date (`2026-03-02`), of a time in its own time zone, or of Unix milliseconds in UTC."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    text = to_text(value).strip()
    try:
        if _MILLISECONDS.fullmatch(text):
            return datetime.fromtimestamp(int(text) / 1000, UTC).date()
        return date.fromisoformat(text[:10]) if _DAY.fullmatch(text) or _TIME.fullmatch(text) else None
    except (ValueError, OverflowError, OSError):
        return None


def to_instant(value: Any, zone: tzinfo | None = None) -> datetime | None:
    """Return a time with its time zone: `2026-03-02T15:00:00Z`, or Unix milliseconds.

    A time without time zone is one in `zone`; without it, it means nothing. A day becomes its noon in UTC: then it is
    the same day everywhere from 12 hours behind UTC to 11 ahead.
    """
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    text = value.isoformat() if isinstance(value, datetime) else to_text(value).strip()
    try:
        if _MILLISECONDS.fullmatch(text):
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        if _DAY.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), _NOON)
        if not _TIME.fullmatch(text):
            return None
        instant = datetime.fromisoformat(text.upper().replace(" Z", "Z").replace(",", "."))
        if instant.tzinfo is None and zone is None:
            return None
        instant = instant if instant.tzinfo else instant.replace(tzinfo=zone)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def to_text(value: Any, separator: str = ", ") -> str:
    """Return any value as a text: `true`, `5` and not `5.0`, a list with a separator between its items."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        number = to_number(value)
        return str(value) if number is None else number_text(number)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return separator.join(to_text(item, separator) for item in value if item is not None)
    return str(value)


def to_items(value: Any, options: Mapping[str, str]) -> list[Any]:
    """Return the options that a value chooses: the items of a list, or of a text with `;` or `,` between them."""
    if isinstance(value, list | tuple):
        return [item for item in value if item is not None]
    if not isinstance(value, str) or find_option(value, options) is not None:
        return [value]
    return [item.strip() for item in re.split("[;,]", value) if item.strip()]


def find_option(value: Any, options: Mapping[str, str]) -> str | None:
    """Return the option that a value means, from option -> label: by its internal value, its label, or in any case.

    `Very high` means the option `very_high`. None: no option, or more than one that it may be.
    """
    if isinstance(value, list | tuple):
        return find_option(value[0], options) if len(value) == 1 else None
    text = to_text(value).strip()
    if text in options:
        return text
    for key in (str.casefold, _plain):
        for names in (lambda option: options[option], lambda option: option):
            found = [option for option in options if key(names(option).strip()) == key(text)]
            if len(found) == 1:
                return found[0]
    return None


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text).strip().casefold()
