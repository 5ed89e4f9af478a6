"""Time zones of contacts."""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import ZoneInfo


def normalize_time_zone(value: object) -> str | None:
    """Return the name of the IANA time zone, or None if it does not exist."""
    return _zone(value) if isinstance(value, str) and len(value) <= 64 else None


@lru_cache(maxsize=1024)
def _zone(name: str) -> str | None:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # an unknown zone; an invalid name; the name of a folder
        return None
