"""Hints for durations that a file writes in another form: `5 minutes`, a bare number, a template."""

from __future__ import annotations

import re
from typing import Any, Final

_SPOKEN = re.compile(r"(\d{1,6})\s*(s|sec|second|m|min|minute|h|hr|hour|d|day|w|wk|week)s?", re.IGNORECASE)
_GENERAL: Final = "write a number and a unit: 90s, 5m, 16h, 7d, or 1h30m"


def duration_hint(value: Any) -> str:
    """Return how to write a duration instead of `value`, which is none."""
    if isinstance(value, dict) or (isinstance(value, str) and "{{" in value):
        return "it cannot depend on the event: write one rule for each duration, with its own `where`"
    text = str(value).strip()
    spoken = _SPOKEN.fullmatch(text[:40])
    if spoken:
        return f"write `{spoken[1]}{spoken[2][0].lower()}`"
    if isinstance(value, str | int) and re.fullmatch(r"\d{1,6}", text):
        return f"add the unit: `{text}m` for minutes, `{text}h` for hours, `{text}d` for days"
    return _GENERAL
