"""Exits of a server's worker process: when it exited, for the last times."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from bridge.clock import uptime

MAX_EXITS: Final = 20
"""Exits that are remembered."""


class WorkerExits:
    """The times of the last exits. Its methods are thread-safe."""

    def __init__(self) -> None:
        self._exits: deque[float] = deque(maxlen=MAX_EXITS)

    def note(self) -> None:
        """Record that the worker process exited now."""
        self._exits.append(uptime())

    def recent(self, now: datetime) -> Sequence[datetime]:
        """Return the times, by the clock that says `now`."""
        uptime_now = uptime()
        return [now - timedelta(seconds=uptime_now - at) for at in tuple(self._exits)]
