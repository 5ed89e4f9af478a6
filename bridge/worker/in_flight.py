"""In-flight deliveries: the ones this process has claimed and not recorded yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from bridge.clock import uptime
from bridge.store.claim import ClaimedDelivery

_Key = tuple[str, int]


class InFlight:
    """The claims of this process, from the claim until the result is recorded. Its methods are thread-safe."""

    def __init__(self) -> None:
        self._claimed_at: dict[_Key, float] = {}
        """When each claim was made (an `uptime`)."""
        self._started: set[_Key] = set()
        """Claims whose attempt has started; the others wait for a thread."""
        self._finished: set[_Key] = set()
        """Claims whose result waits for the result writer."""

    def add(self, deliveries: Iterable[ClaimedDelivery], claimed_at: float) -> None:
        """Record claims that were made at `claimed_at` (an `uptime`)."""
        self._claimed_at |= {_key(delivery): claimed_at for delivery in deliveries}

    def start(self, deliveries: Iterable[ClaimedDelivery]) -> None:
        """Record that the attempts of these claims have started."""
        self._started.update(map(_key, deliveries))

    def finish(self, deliveries: Iterable[ClaimedDelivery]) -> None:
        """Record that the results of these claims are known."""
        self._finished.update(map(_key, deliveries))

    def remove(self, deliveries: Iterable[ClaimedDelivery]) -> None:
        """Forget these claims, because their results are recorded."""
        for key in map(_key, deliveries):
            self._claimed_at.pop(key, None)
            self._started.discard(key)
            self._finished.discard(key)

    def waits_for_thread(self, delivery: ClaimedDelivery) -> bool:
        """Return True if this process claimed the delivery and its attempt has not started."""
        key = _key(delivery)
        return key in self._claimed_at and key not in self._started

    def holds(self, delivery: ClaimedDelivery, lease: timedelta) -> bool:
        """Return True if this process claimed the delivery less than `lease` ago, or its result is known.

        The age is measured by `uptime`, so a jump of the database's clock does not matter.
        """
        key = _key(delivery)
        claimed_at = self._claimed_at.get(key)
        return key in self._finished or (
            claimed_at is not None and uptime() - claimed_at < lease.total_seconds()
        )


def _key(delivery: ClaimedDelivery) -> _Key:
    return delivery.id, delivery.fencing_token
