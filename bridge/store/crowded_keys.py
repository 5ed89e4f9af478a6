"""Crowded keys: concurrency keys that so many due deliveries share that each claim would read them all in vain.

One delivery of a key runs at a time. If five thousand about one contact are due, a claim would have to skip them on its
way to all others. So a process remembers for a moment up to which instant only deliveries of a few such keys are due:
of these, it looks for the oldest of each key that is free, and for all others only after that instant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from bridge.clock import uptime

MAX_KEYS: Final = 16
"""Keys that are remembered: with more of them, there are enough deliveries to claim."""
_KEPT_FOR: Final = 1.0
"""Seconds. A delivery that becomes due at an earlier instant meanwhile, by a clock that differs, waits as long."""


@dataclass(frozen=True)
class CrowdedKeys:
    """What a claim has found out about the due deliveries of one connection."""

    until: datetime
    """Before it, only deliveries with these keys are due."""
    keys: frozenset[str]
    forget_at: float
    """By `uptime`."""


class CrowdedKeysCache:
    """The crowded keys by connection. Claims of one connection in one process follow each other."""

    def __init__(self) -> None:
        self._by_connection: dict[str, CrowdedKeys] = {}

    def find(self, connection: str) -> CrowdedKeys | None:
        """Return what is known now."""
        known = self._by_connection.get(connection)
        return known if known is not None and uptime() < known.forget_at else None

    def save(
        self, connection: str, known: CrowdedKeys | None, until: datetime, keys: Collection[str]
    ) -> None:
        """Remember the keys; if there are too many or none, forget them. What was known is not known for longer."""
        if not 0 < len(keys) <= MAX_KEYS:
            self._by_connection.pop(connection, None)
        elif known is not None:
            self._by_connection[connection] = replace(known, until=until, keys=frozenset(keys))
        else:
            self._by_connection[connection] = CrowdedKeys(until, frozenset(keys), uptime() + _KEPT_FOR)
