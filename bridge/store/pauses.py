"""Pauses of connections as operators see them: in the log, in alerts, on the command line and on the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from bridge.clock import format_timestamp
from bridge.lifecycle import PauseCause, StopScope

INDEFINITELY: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""The end of a pause, in the database, that lasts until an operator or changed settings end it."""

ALL_CONNECTIONS: Final = "*"
"""The name of the row of `connections` that exists while an operator has paused all connections."""

_ENDS_AT: Final = "it resumes with {resume}, or automatically at {until}"
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    PauseCause.OPERATOR: ("an operator", "resume it with {resume}"),
    PauseCause.AUTH: (
        "rejected credentials",
        "fix the account's variables and restart `bridge serve`; if the provider was at fault, run {resume}",
    ),
    PauseCause.ACCOUNT: (
        "a problem with the account",
        "fix it at the provider and run {resume}, or change the account's variables and restart `bridge serve`",
    ),
    PauseCause.RATE_LIMIT: ("the provider's rate limit", _ENDS_AT),
    PauseCause.QUOTA: ("an exhausted quota", _ENDS_AT),
    PauseCause.CIRCUIT_OPEN: (
        "the circuit breaker",
        "one call is tried every 10 s; it resumes with {resume}, or automatically when one succeeds",
    ),
    PauseCause.TOTAL_CAP: (
        "the cap on all messages",
        "check what causes so many messages, and cancel those that nobody should get; then run {resume}",
    ),
}
"""The label and the hint of each cause."""
_SHORT_LABELS: Final[Mapping[str, str]] = {
    PauseCause.OPERATOR: "by an operator",
    PauseCause.AUTH: "credentials rejected",
    PauseCause.ACCOUNT: "account problem",
    PauseCause.CIRCUIT_OPEN: "not responding",
    PauseCause.TOTAL_CAP: "cap on all messages reached",
}


@dataclass(frozen=True)
class Pause:
    """The pause of a connection."""

    connection: str
    """Its name, or `ALL_CONNECTIONS`."""
    cause: str
    """A `PauseCause`, or one that only a newer version knows."""
    until: datetime | None
    """The end, or the next probe of an open circuit; None if an operator or changed settings end the pause."""
    reason: str | None
    scope: str | None = None
    """The `StopScope` of a pause of all connections."""

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Self | None:
        """Build the pause from columns of `connections`; None if they have no pause."""
        until = columns["paused_until"]
        if columns["pause_cause"] is None:
            return None
        return cls(
            columns["name"],
            columns["pause_cause"],
            None if until == INDEFINITELY else until,
            columns["pause_reason"],
            columns.get("pause_scope"),
        )

    def is_over(self, now: datetime) -> bool:
        """Return whether the time is up. An open circuit is half-open then: still paused, except for one probe."""
        return self.cause != PauseCause.CIRCUIT_OPEN and self.until is not None and self.until <= now

    @property
    def is_of_all(self) -> bool:
        """True for the pause of all connections."""
        return self.connection == ALL_CONNECTIONS

    @property
    def only_messages(self) -> bool:
        """True for the pause of all connections if it stops messages to people, but not CRM records."""
        return self.scope == StopScope.MESSAGES

    @property
    def label(self) -> str:
        """The cause, to follow "paused by"."""
        label = _TEXTS[self.cause][0] if self.cause in _TEXTS else self.cause
        if not self.is_of_all:
            return label
        return label if self.only_messages else f"{label}, with all connections"

    @property
    def short_label(self) -> str:
        """The cause in a few words, for lists."""
        return _SHORT_LABELS.get(self.cause, self.cause.replace("_", " "))

    @property
    def hint(self) -> str:
        """The advice to the operator for ending the pause."""
        _, hint = _TEXTS.get(self.cause, _TEXTS[PauseCause.OPERATOR])
        until = f"{format_timestamp(self.until)} UTC"
        resume = "`bridge resume --all`" if self.is_of_all else f"`bridge resume {self.connection}`"
        return hint.format(resume=resume, until=until)

    def __str__(self) -> str:
        return f"paused by {self.label}: {self.reason}" if self.reason else f"paused by {self.label}"


@dataclass(frozen=True)
class ConnectionStatus:
    """A connection as operators see it."""

    name: str
    pause: Pause | None
    """Its own pause; without one, the pause of all connections."""
    recent_failures: int
    recent_successes: int

    @classmethod
    def from_row(cls, row: Mapping[str, Any], now: datetime, pause_of_all: Pause | None) -> Self:
        """Build the status from a `connections` row."""
        pause = Pause.from_columns(row)
        return cls(
            row["name"],
            pause_of_all if pause is None or pause.is_over(now) else pause,
            row["failures"],
            row["successes"],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record of the API and of `--json`."""
        pause = self.pause
        return {
            "name": self.name,
            "paused": pause is not None,
            "pause_cause": pause and pause.cause,
            "paused_until": pause and pause.until,
            "pause_reason": pause and pause.reason,
            "paused_with_all": pause is not None and pause.is_of_all,
            "recent_failures": self.recent_failures,
            "recent_successes": self.recent_successes,
        }
