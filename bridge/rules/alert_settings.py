"""Settings of `alerts`: when a problem of the service itself is alerted. `bridge.rules.parse_alerts` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

NEVER: Final = timedelta.max
"""The value of a setting of alerts that is `never`."""


@dataclass(frozen=True)
class AlertSettings:
    """The value of each key, and its default."""

    backlog_after: timedelta = timedelta(minutes=15)
    circuit_open_after: timedelta = timedelta(minutes=15)
    review_after: timedelta = timedelta(hours=24)
    no_events_after: timedelta = timedelta(hours=3)
    disk_free_below: int = 10**9
    """Bytes; 0: never."""
