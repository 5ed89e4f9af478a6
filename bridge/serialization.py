"""Stored records as JSON: one way for the command line and the API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """What JSON has no word for, as JSON: instants in UTC, durations in seconds, bytes as text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def json_text(record: Mapping[str, Any], indent: int | None = 2) -> str:
    """One record as JSON text that every UTF-8 writer takes: half surrogates become question marks."""
    text = json.dumps(record, default=plain, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "replace").decode("utf-8")
