"""Grouping of alerts: at most one per connection and cause in ten minutes, which counts what it stands for.

The first problem is alerted at once. Those that follow within the interval are counted by rule, and one alert at the
end mentions all of them. Pure; the service keeps the groups in a table, the simulator in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

ALERT_INTERVAL: Final = timedelta(minutes=10)
"""The time between two alerts about one cause on one connection, at least."""
_MAX_RULES: Final = 10
"""Rules that a group counts separately; all further ones are counted together."""
_OTHER_RULES: Final = "other rules"
_OUTCOMES: Final = {"failed": "failed", "needs_review": "need review", "succeeded": "were not delivered"}


def cause_of(problem: Mapping[str, Any]) -> str:
    """Return the cause by which a problem is grouped, from the value of `delivery` in the templates of its alert."""
    return f"{problem['state']}: {problem['reason'] or 'unknown'}"


@dataclass
class AlertGroup:
    """The alerts about one cause on one connection."""

    connection: str
    cause: str
    last_alert_at: datetime | None = None
    waiting: Counter[str] = field(default_factory=Counter)
    """Problems that no alert has mentioned yet, by rule. A paused connection has no rule: "" counts its pauses."""
    latest: str | None = None
    """The ID of the last of them."""

    @property
    def name(self) -> str:
        """Its connection and cause, for log lines."""
        return f"{self.connection} ({self.cause})"

    @property
    def due_at(self) -> datetime | None:
        """When the next alert is due; None if all problems were mentioned."""
        return self.last_alert_at + ALERT_INTERVAL if self.waiting and self.last_alert_at else None

    def admit(self, rule: str, problem_id: str, now: datetime) -> bool:
        """Return True if a problem is alerted now; otherwise count it for the next alert."""
        if not self.waiting and self._interval_is_over(now):
            self.last_alert_at = now
            return True
        known = rule in self.waiting or len(self.waiting) < _MAX_RULES
        self.waiting[rule if known else _OTHER_RULES] += 1
        self.latest = problem_id
        return False

    def _interval_is_over(self, now: datetime) -> bool:
        # If the clock was set back, the last alert lies in the future: it must not hold back others until then.
        return (
            self.last_alert_at is None or not self.last_alert_at <= now < self.last_alert_at + ALERT_INTERVAL
        )

    def summarize(self, latest: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        """Return `delivery` for the alert about all waiting problems, and start the next interval.

        `latest` is that value for the last of them alone.
        """
        count = self.waiting.total()
        summary = dict(latest) | {
            "count": count,
            "outcome_id": f"{self.connection} {self.cause} {now.isoformat()}",
            "message": latest["message"] if count == 1 else self._message(latest, count),
        }
        self.last_alert_at, self.latest = now, None
        self.waiting.clear()
        return summary

    def _message(self, latest: Mapping[str, Any], count: int) -> str:
        since = f"since {self.last_alert_at.astimezone(UTC):%H:%M} UTC" if self.last_alert_at else "so far"
        state, _, reason = self.cause.partition(": ")
        if state == "paused":
            # `*` is the pause of all connections.
            what = (
                "sending was stopped"
                if self.connection == "*"
                else f"connection {self.connection} was paused"
            )
            return f"{what} {count} more times {since}, at last: {latest['message']}"
        rules = ", ".join(f"{number} of {rule}" for rule, number in self.waiting.most_common())
        return (
            f"{count} more deliveries over {self.connection} {_OUTCOMES[state]} ({reason}) {since}: {rules}; "
            f"the latest: {latest['message']}"
        )
