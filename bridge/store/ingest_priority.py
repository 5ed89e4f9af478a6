"""Ingest priority: routing pauses while events arrive in bursts at this process.

Heppu sends an event again if the response is late; an event that is routed a moment later does no harm.
"""

from __future__ import annotations

import threading
from typing import Final

from bridge.clock import uptime

BURST_SIZE: Final = 16
"""Events stored in one transaction from which on they count as a burst."""
BURST_SECONDS: Final = 0.05
"""How long more events are expected after a burst."""
PAUSE_SECONDS: Final = 0.25
"""How long a pause lasts."""


class IngestPriority:
    """Knows whether events arrive in bursts. Its methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy_until = 0.0

    def note_ingest(self, events: int) -> None:
        """Record that one transaction stored this number of events."""
        if events >= BURST_SIZE:
            with self._lock:
                self._busy_until = uptime() + BURST_SECONDS

    def pause_if_busy(self, stopping: threading.Event) -> None:
        """Pause once if events arrive in bursts, unless `stopping` is set."""
        with self._lock:
            busy = uptime() < self._busy_until
        if busy:
            stopping.wait(PAUSE_SECONDS)
