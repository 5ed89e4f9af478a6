"""Events of calendars: what Salesforce requires of their times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from bridge.sandbox.salesforce.errors import RecordError

MAX_DURATION = timedelta(days=14)


def check_times(fields: Mapping[str, Any]) -> None:
    """Raise RecordError unless the event has a start, an end or a duration, and lasts at most 14 days."""
    start, end, minutes = (fields.get(name) for name in ("StartDateTime", "EndDateTime", "DurationInMinutes"))
    if start is None or (end is None and minutes is None):
        missing = "StartDateTime" if start is None else "DurationInMinutes"
        raise RecordError("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{missing}]", [missing])
    duration = timedelta(minutes=minutes or 0) if end is None else _time(end) - _time(start)
    if duration < timedelta(0):
        raise RecordError("FIELD_INTEGRITY_EXCEPTION", "Event duration can not be negative", ["EndDateTime"])
    if duration > MAX_DURATION:
        raise RecordError(
            "FIELD_INTEGRITY_EXCEPTION", "Event duration can not be longer than 14 days", ["EndDateTime"]
        )
    if end is not None and minutes is not None and duration != timedelta(minutes=minutes):
        raise RecordError(
            "FIELD_INTEGRITY_EXCEPTION", "EndDateTime and DurationInMinutes differ", ["DurationInMinutes"]
        )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
