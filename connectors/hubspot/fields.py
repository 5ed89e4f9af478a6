"""Values in the form that HubSpot expects."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from bridge.connector import owner_param, split_text, to_text

MAX_BODY_LENGTH = 65_536
"""HubSpot's limit for a call body or a note body, in characters."""
_MIN_LENGTH = 1_000
"""A text of this length always fits, however many of its characters are escaped."""
OWNER = owner_param(r"\d+", "41629779 (in HubSpot: Settings > Users; not the user ID)")


def to_milliseconds(instant: datetime) -> int:
    """Return the Unix time in milliseconds."""
    return int(instant.timestamp() * 1000)


def to_strings(values: Mapping[str, Any]) -> dict[str, str]:
    """Convert values to strings, the only type HubSpot accepts. None is omitted, so that it clears no field."""
    return {name: to_text(value) for name, value in values.items() if value is not None}


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
