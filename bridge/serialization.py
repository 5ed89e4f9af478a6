"""JSON serialization of stored records, shared by the command line and the API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


def json_default(value: Any) -> Any:
    """Convert types that JSON lacks: timestamps to ISO 8601 in UTC, durations to seconds, bytes to a string."""
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
    raise TypeError(f"cannot serialize {type(value).__name__} as JSON")


def to_json(record: Mapping[str, Any], indent: int | None = 2) -> str:
    """Return the record as JSON that can be encoded as UTF-8: lone surrogates become question marks."""
    text = json.dumps(record, default=json_default, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "replace").decode("utf-8")
