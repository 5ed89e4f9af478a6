"""Names of people and companies."""

from __future__ import annotations

import unicodedata

_MAX_NAME = 200


def clean_name(value: str | None) -> str | None:
    """Return the name on one line, cut at 200 characters. Control characters and whitespace runs become one space."""
    if not value:
        return None
    if value.isprintable():
        return " ".join(value[:1000].split())[:_MAX_NAME] or None
    printable = "".join(" " if unicodedata.category(char) in ("Cc", "Cf") else char for char in value[:1000])
    return " ".join(printable.split())[:_MAX_NAME] or None
