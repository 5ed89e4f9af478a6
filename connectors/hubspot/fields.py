"""Values in the form that HubSpot expects."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.connector import param

MAX_BODY_LENGTH = 65_536
"""HubSpot's limit for a call body or a note body, in characters."""
OWNER = param(
    None,
    "HubSpot user ID of the owner.",
    example="41629779",
    pattern=r"^\d+$",
    must_be="a HubSpot owner ID (digits only)",
)


def to_milliseconds(instant: datetime) -> int:
    """Return the Unix time in milliseconds."""
    return int(instant.timestamp() * 1000)


def to_strings(values: Mapping[str, Any]) -> dict[str, str]:
    """Convert values to strings, the only type HubSpot accepts. None is omitted, so that it clears no field."""
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


def to_html(text: str) -> str:
    """Return the text as HTML, which HubSpot expects in bodies. Escaped, as a summary may look like a tag."""
    escaped = html.escape(text).replace("\n", "<br>")
    return re.sub(r"(&[^;]{0,6}|<[^>]{0,3})$", "", escaped[:MAX_BODY_LENGTH])
