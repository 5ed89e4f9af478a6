"""In-flight claims: the ones that this process has made and whose result is not recorded yet."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from bridge.clock import uptime
from bridge.store.claimed_delivery import ClaimedDelivery


class ClaimState(Enum):
    """The progress of a claim."""

    CLAIMED = auto()
    """The call waits for a thread."""
    RUNNING = auto()
    """The attempt has started: the provider may have been contacted."""
    RESULT_KNOWN = auto()
    """The result waits for the result writer."""


@dataclass(slots=True)
class _Entry:
    state: ClaimState
    claimed_at: float


class InFlight:
    """The claims of this process, from the claim until the result is recorded. Its methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._entries: dict[tuple[str, int], _Entry] = {}
        """By delivery ID and fencing token, because another claim of the delivery is another entry."""

    def claimed(self, deliveries: Iterable[ClaimedDelivery], at: float) -> None:
        """Add claims that were made at `at` (an `uptime`)."""
        with self._lock:
            for delivery in deliveries:
                self._entries[_key(delivery)] = _Entry(ClaimState.CLAIMED, at)

    def started(self, deliveries: Iterable[ClaimedDelivery]) -> None:
        """Record that the attempts of these claims have started."""
        self._advance(deliveries, ClaimState.RUNNING)

    def result_known(self, deliveries: Iterable[ClaimedDelivery]) -> None:
        """Record that the results of these claims are known."""
        self._advance(deliveries, ClaimState.RESULT_KNOWN)

    def recorded(self, deliveries: Iterable[ClaimedDelivery]) -> None:
        """Remove these claims, because their results are recorded."""
        with self._lock:
            for delivery in deliveries:
                del self._entries[_key(delivery)]
            if not self._entries:
                self._idle.notify_all()

    def is_alive(self, delivery: ClaimedDelivery, lease: timedelta) -> bool:
        """Return True if this process made the claim less than `lease` ago, or knows its result.

        The age is measured by `uptime`, so a jump of the database's clock does not matter.
        """
        with self._lock:
            entry = self._entries.get(_key(delivery))
            return entry is not None and (
                entry.state is ClaimState.RESULT_KNOWN or uptime() - entry.claimed_at < lease.total_seconds()
            )

    def waits_for_thread(self, delivery: ClaimedDelivery) -> bool:
        """Return True if this process made the claim and its attempt has not started."""
        with self._lock:
            entry = self._entries.get(_key(delivery))
            return entry is not None and entry.state is ClaimState.CLAIMED

    def running_since(self, delivery: ClaimedDelivery) -> float | None:
        """Return when this process made the claim (an `uptime`) if its attempt is still running."""
        with self._lock:
            entry = self._entries.get(_key(delivery))
            return entry.claimed_at if entry is not None and entry.state is ClaimState.RUNNING else None

    def wait_idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until there are no claims; return True if there are none."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._entries, timeout)

    def _advance(self, deliveries: Iterable[ClaimedDelivery], state: ClaimState) -> None:
        with self._lock:
            for delivery in deliveries:
                self._entries[_key(delivery)].state = state


def _key(claimed: ClaimedDelivery) -> tuple[str, int]:
    return claimed.delivery.id, claimed.fencing_token
