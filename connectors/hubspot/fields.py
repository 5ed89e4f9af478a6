"""Values in the form that HubSpot expects."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from bridge.connector import owner_param, split_text

from .account import Account
from .records import OWNER_PROPERTY

MAX_BODY_LENGTH = 65_536
"""HubSpot's limit for a call body or a note body, in characters."""
_MIN_LENGTH = 1_000
"""A text of this length always fits, however many of its characters are escaped."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{5,15}(Z|[+-]\d\d:?\d\d)?")
OWNER = owner_param(r"\d+", "41629779 (in HubSpot: Settings > Users; not the user ID)")


def to_milliseconds(instant: datetime) -> int:
    """Return the Unix time in milliseconds."""
    return int(instant.timestamp() * 1000)


def to_strings(values: Mapping[str, Any]) -> dict[str, str]:
    """Convert values to strings, the only type HubSpot accepts. None is omitted, so that it clears no field."""
    return {name: _to_string(value, ", ") for name, value in values.items() if value is not None}


def to_properties(account: Account, kind: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Convert values as `to_strings` does, and lists, times and owners to what the account's properties take.

    A list becomes the options of a property that takes several, and a time the day of a property without time. Only
    then are the definitions of the properties needed. The email address of an owner becomes the owner's ID; HubSpot
    refuses one that it does not know.
    """
    owner = values.get(OWNER_PROPERTY)
    if isinstance(owner, str) and "@" in owner:
        values = {**values, OWNER_PROPERTY: account.owners.resolve(owner).id or owner}
    is_needed = any(isinstance(value, list) or _is_time(value) for value in values.values())
    definitions = account.property_definitions(kind) if is_needed else {}
    return {
        name: _for_property(value, definitions.get(name))
        for name, value in values.items()
        if value is not None
    }


def _for_property(value: Any, definition: Any | None) -> str:
    takes_several = definition is not None and definition.field_type == "checkbox"
    text = _to_string(value, ";" if takes_several else ", ")
    return text[:10] if definition is not None and definition.type == "date" and _is_time(text) else text


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def _to_string(value: Any, separator: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # HubSpot refuses 5.0 for a whole number
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return separator.join(_to_string(item, separator) for item in value if item is not None)
    return str(value)


def to_html(text: str) -> str:
    """Return the text as HTML, which HubSpot expects in bodies. Escaped, as a summary may look like a tag."""
    return re.sub(r"(&[^;]{0,6}|<[^>]{0,3})$", "", _escaped(text)[:MAX_BODY_LENGTH])


def to_fitting_html(build: Callable[[int], str]) -> str:
    """Return a text as HTML that fits into a body. `build` makes the text for a maximum length before escaping."""
    size = MAX_BODY_LENGTH
    text = build(size)
    while (length := len(_escaped(text))) > MAX_BODY_LENGTH and size > _MIN_LENGTH:
        size = size * MAX_BODY_LENGTH // length
        text = build(size)
    return to_html(text)


def fits(text: str) -> bool:
    """Return whether `to_html` keeps the whole text."""
    return len(_escaped(text)) <= MAX_BODY_LENGTH


def split_to_fit(text: str, reserved: int) -> list[str]:
    """Return the text in parts that each fit into a body with `reserved` characters to spare, without losing any."""
    size = MAX_BODY_LENGTH - reserved
    while True:
        parts = split_text(text, size)
        longest = max((len(_escaped(part)) for part in parts), default=0)
        if longest <= MAX_BODY_LENGTH - reserved:
            return parts
        size = size * (MAX_BODY_LENGTH - reserved) // longest


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
