"""Local time: an instant on the clock of a recipient, whose time zone may not be certain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo


def local_time(instant: datetime, zones: Sequence[str]) -> str:
    """Return an instant on the clocks of the zones where a recipient may be (`zones_of`).

    `2026-03-02 16:30 America/New_York`, or the earliest and the latest clock if they differ.
    """
    clocks = {f"{instant.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}": zone for zone in reversed(zones)}
    earliest, latest = min(clocks), max(clocks)
    if earliest == latest:
        return f"{earliest} {clocks[earliest]}"
    return f"{earliest} {clocks[earliest]} to {latest} {clocks[latest]}"
