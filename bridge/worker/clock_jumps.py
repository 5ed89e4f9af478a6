"""Clock-jump detection: compares the database's clock with the uptime of this process.

Leases and wait times are measured by the database's clock, because all workers share it. The deadline of an attempt is
measured by the uptime of its own process. As long as both run at the same speed, an expired lease means that its
attempt is over. If the clock is set forward, leases expire early, while their attempts may still send.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from bridge.clock import uptime
from bridge.telemetry import log

TOLERANCE = timedelta(seconds=5)
"""A lease (30 s) outlasts an attempt (20 s, unless its connector sets a timeout) by more than this and the next."""
MAX_READ_SECONDS = 1.0
"""Seconds that reading the clock may take. After a slower read, the time of the reading is too uncertain to use."""


class ClockJumpDetector:
    """Compares readings of the database's clock with `uptime`. Its methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset: datetime | None = None
        """The time of the database's clock at uptime 0."""
        self._steady_since = uptime()
        self._jumped_at: float | None = None

    def observe(self, now: datetime, read_started: float) -> float:
        """Record that the clock showed `now` just after `read_started` (an `uptime`).

        Return the seconds for which the clock has run evenly: since the last jump, or since this process started to
        observe it. Return 0 if the reading took too long to be usable.
        """
        at = uptime()
        if at - read_started > MAX_READ_SECONDS:
            return 0.0
        with self._lock:
            offset = now - timedelta(seconds=at)
            jump = offset - self._offset if self._offset is not None else timedelta(0)
            if abs(jump) > TOLERANCE:
                log.warning("database clock jumped", seconds=round(jump.total_seconds()))
                self._steady_since = self._jumped_at = at
            if self._offset is None or abs(jump) > TOLERANCE:
                self._offset = offset
            return at - self._steady_since

    def jumped_within(self, duration: timedelta) -> bool:
        """Return True if the clock jumped less than `duration` ago."""
        with self._lock:
            return self._jumped_at is not None and uptime() - self._jumped_at < duration.total_seconds()
