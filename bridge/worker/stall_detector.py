"""Whether this process was stopped for a while: by SIGSTOP, a suspended machine, a host that gave it no time.

An attempt that meets such a gap fails by our own doing: its deadline passed while nobody looked. That says nothing of
the partner, and must not open its circuit.
"""

from __future__ import annotations

import threading
from typing import Final

from bridge.clock import uptime

BEAT: Final = 0.5
LONGEST_GAP: Final = 3.0
"""Seconds between two beats from which on the process counts as having been stopped."""


class Pulse:
    """A thread that beats as long as the process gets time; `stopped_since` may be asked by any thread."""

    def __init__(self) -> None:
        self._last = uptime()
        self._woke_at = 0.0
        self._ended = threading.Event()
        self._ended.set()

    def start(self) -> None:
        """Begin to beat."""
        self._last = uptime()
        self._ended.clear()
        threading.Thread(target=self._beat, name="bridge-pulse", daemon=True).start()

    def stop(self) -> None:
        """Beat no more."""
        self._ended.set()

    def stopped_since(self, begun: float) -> bool:
        """Whether the process was stopped at some time after `begun` (an `uptime`)."""
        now, last = uptime(), self._last
        return self._woke_at > begun or (now - last > LONGEST_GAP and not self._ended.is_set())

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            now = uptime()
            if now - self._last > LONGEST_GAP:
                self._woke_at = now
            self._last = now
