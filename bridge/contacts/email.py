"""Email addresses: one canonical form, which is the identity of an address everywhere."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"[^\s@,;:<>\"()\[\]\\]+@[^\s@,;:<>\"()\[\]\\]+\.[^\s@,;:<>\"()\[\]\\.]+")


def normalize_email(value: object) -> str | None:
    """Return one address with a lowercase domain, or None. Lists, names and line breaks are invalid."""
    if not isinstance(value, str) or len(value) > 254 or not _ADDRESS.fullmatch(value.strip()):
        return None
    local, _, domain = value.strip().rpartition("@")
    return f"{local}@{domain.lower()}" if len(local) <= 64 else None
