"""A claimed delivery: what the worker gets for one attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bridge.events import Event
from bridge.store.deliveries import Delivery

DELIVERIES_PER_TRANSACTION: Final = 128
"""Maximum number of calls that a transaction claims, or of results that it records. A larger batch shares the fixed
cost of a transaction; on SQLite, it also makes every other writer wait longer."""


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery that this worker has claimed for one attempt."""

    delivery: Delivery
    """The delivery as it was before the claim."""
    event: Event
    fencing_token: int
    """The number of this claim; a result with an older number is not recorded."""
    started_at: datetime
    first_attempt_at: datetime
    outcome_unknown_since: datetime | None
    existing_id: str | None = None
    """The external ID of the record that the idempotency key already created."""
    quiet_hours_start: datetime | None = None
    """For a message: when the recipient's quiet hours start."""
    has_steps: bool = False
    """True for a running delivery whose action has recorded a step (`Context.step`)."""
    probe: bool = False
    """True for the probe of an open circuit breaker; a failed probe uses up no attempt."""

    @classmethod
    def next_claim(
        cls,
        delivery: Delivery,
        event: Event,
        now: datetime,
        *,
        existing_id: str | None,
        quiet_hours_start: datetime | None,
        probe: bool,
    ) -> ClaimedDelivery:
        """Return the claim of a due delivery that starts at `now`."""
        outcome_unknown_since = delivery.outcome_unknown_since
        if outcome_unknown_since is not None:
            # Time in which the lookup was due but could not run (a pause, a stopped service) does not count.
            outcome_unknown_since += max(now - delivery.run_at, timedelta(0))
        return cls(
            delivery, event, delivery.fencing_token + 1, now, delivery.first_attempt_at or now,
            outcome_unknown_since, existing_id, quiet_hours_start, probe=probe,
        )  # fmt: skip

    @classmethod
    def running_claim(cls, delivery: Delivery, event: Event, *, has_steps: bool) -> ClaimedDelivery:
        """Return the claim of a running delivery, which this or another worker made."""
        started_at = delivery.possibly_sent_at or delivery.occurred_at
        return cls(
            delivery, event, delivery.fencing_token, started_at, delivery.first_attempt_at or started_at,
            delivery.outcome_unknown_since, has_steps=has_steps,
        )  # fmt: skip
