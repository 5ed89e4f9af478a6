"""Whether the database's clock goes evenly, as far as one process can tell by its own uptime.

Leases and waits are measured by the database's clock, because all replicas share it; what an attempt may do is measured
by the uptime of its own process. As long as both go alike, a lease that ran out means that its attempt is over. A clock
that was put forward lets leases run out early, while their attempts may still send.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from bridge.clock import uptime
from bridge.telemetry import log

TOLERANCE = timedelta(seconds=5)
"""A lease (30 s) outlasts an attempt (20 s, unless its connector says otherwise) by more than this and the next."""
LONGEST_READING = 1.0
"""Seconds that reading the clock may take; a reading that took longer does not tell when it was."""


class Evenness:
    """Compares readings of the database's clock with `uptime`; its methods may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._zero: datetime | None = None
        """What the database's clock said, or would have said, at uptime 0."""
        self._since = uptime()
        self._jumped_at: float | None = None

    def read(self, now: datetime, begun: float) -> float:
        """Note that the clock said `now` just after `begun` (an `uptime`); returns for how many seconds it went evenly.

        That is since the last jump, or since this process began to watch; 0 while a reading tells nothing.
        """
        at = uptime()
        if at - begun > LONGEST_READING:
            return 0.0
        with self._lock:
            zero = now - timedelta(seconds=at)
            jump = zero - self._zero if self._zero is not None else timedelta(0)
            if abs(jump) > TOLERANCE:
                log.warning("the database's clock jumped", seconds=round(jump.total_seconds()))
                self._since = self._jumped_at = at
            if self._zero is None or abs(jump) > TOLERANCE:
                self._zero = zero
            return at - self._since

    def jumped_within(self, duration: timedelta) -> bool:
        """Whether the clock jumped less than `duration` ago."""
        jumped_at = self._jumped_at
        return jumped_at is not None and uptime() - jumped_at < duration.total_seconds()
