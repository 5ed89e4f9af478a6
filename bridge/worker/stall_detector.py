"""Stall detection: notices that this process was suspended by SIGSTOP, by the machine or by an overloaded host.

If an attempt's deadline passes while the process is suspended, the attempt fails because of this process. Such a
failure does not count toward the provider's circuit breaker.
"""

from __future__ import annotations

import threading
from typing import Final

from bridge.clock import uptime

BEAT_INTERVAL: Final = 1.0
"""Seconds between two beats."""
MAX_GAP: Final = 3.0
"""Seconds between two beats from which on the process counts as having been stalled."""


class StallDetector:
    """Background thread that records a beat while the process runs. `was_stalled_since` is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_beat = uptime()
        self._resumed_at = 0.0
        self._stopped = threading.Event()
        self._stopped.set()

    def start(self) -> None:
        """Start the thread."""
        self._last_beat = uptime()
        self._stopped.clear()
        threading.Thread(target=self._run, name="bridge-stall-detector", daemon=True).start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()

    def was_stalled_since(self, start: float) -> bool:
        """Return True if the process was stalled at some time after `start` (an `uptime`)."""
        with self._lock:
            gap = uptime() - self._last_beat
            return self._resumed_at > start or (gap > MAX_GAP and not self._stopped.is_set())

    def running_since(self) -> float:
        """Return the `uptime` since which this process has not been stalled; 0 if it never was."""
        with self._lock:
            now = uptime()
            is_stalled = now - self._last_beat > MAX_GAP and not self._stopped.is_set()
            return now if is_stalled else self._resumed_at

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_INTERVAL):
            with self._lock:
                now = uptime()
                if now - self._last_beat > MAX_GAP:
                    self._resumed_at = now
                self._last_beat = now
