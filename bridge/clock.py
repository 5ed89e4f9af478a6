"""Time: one clock that the whole bridge reads, so that a test can move it.

Instants are aware datetimes in UTC. The store adds `shift` to the database's own clock on PostgreSQL, so
leases of several hosts are measured by one clock and a test can still move it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class Clock:
    """The system's clock, plus a shift that only tests set."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def now(self) -> datetime:
        """The present instant, UTC."""
        return datetime.now(UTC) + self.shift

    def set(self, instant: datetime) -> None:
        """From now on, start from `instant`."""
        self.shift = instant - datetime.now(UTC)

    def advance(self, **duration: float) -> None:
        """Move forward, in the words of `timedelta`: `clock.advance(hours=3)`."""
        self.shift += timedelta(**duration)


def uptime() -> float:
    """Seconds that never run backwards and go on while the process or the machine is frozen.

    Deadlines are measured by it: a process that slept past its lease must notice. Linux counts a suspended
    machine's time only in CLOCK_BOOTTIME; elsewhere the monotonic clock is the best there is.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
