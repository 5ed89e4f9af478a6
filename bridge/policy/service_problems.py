"""Problems of the service itself: what the team is alerted to, besides deliveries and pauses.

`Watched` has the facts, `find_problems` decides which of them are problems, and `Announcement` when each is alerted:
once, again every 24 hours while it lasts, and once more when it is over, at most once in ten minutes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from bridge.policy.alert_groups import ALERT_INTERVAL
from bridge.rules.alert_settings import AlertSettings

REMIND_AFTER: Final = timedelta(hours=24)
"""The time after which a problem that lasts is alerted again."""
RESTART_WINDOW: Final = timedelta(minutes=10)
MAX_EXITS: Final = 3
"""Exits of the worker process within `RESTART_WINDOW` that are a problem."""


class ProblemCause(StrEnum):
    """What is wrong. The value is the `reason` of an alert."""

    BACKLOG = "backlog"
    UNROUTED = "unrouted"
    CIRCUIT_OPEN = "circuit_open"
    REVIEW = "review"
    NO_EVENTS = "no_events"
    DISK_NEARLY_FULL = "disk_nearly_full"
    RULES_FILE = "rules_file"
    WORKER_RESTARTS = "worker_restarts"


LOCAL_CAUSES: Final = (ProblemCause.DISK_NEARLY_FULL, ProblemCause.RULES_FILE, ProblemCause.WORKER_RESTARTS)
"""Problems of one host, which only its own process sees."""


@dataclass(frozen=True)
class DueDeliveries:
    """Deliveries of a connection that are due, and are not held back by a pause."""

    connection: str
    count: int
    oldest: datetime


@dataclass(frozen=True)
class Watched:
    """The facts of one check."""

    now: datetime
    host: str
    workers: int = 1
    waiting: Sequence[DueDeliveries] = ()
    unrouted: int = 0
    oldest_unrouted: datetime | None = None
    open_circuits: Sequence[tuple[str, datetime]] = ()
    """Connections with an open circuit breaker, each since when."""
    reviews: int = 0
    oldest_review: datetime | None = None
    last_event_at: datetime | None = None
    is_silence_unusual: bool = False
    """True if Heppu sent events in the same time of the weeks before."""
    disk_free: int | None = None
    """Bytes on the disk of the SQLite database."""
    rules_error: str | None = None
    """Why the rules file is not active."""
    worker_exits: Sequence[datetime] = ()
    """When the worker process of this server exited, for the last times."""


@dataclass(frozen=True)
class ServiceProblem:
    """A problem that exists now."""

    cause: ProblemCause
    subject: str
    """The connection or the host that has it; empty for the whole service."""
    message: str
    """One sentence with advice, for the team."""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same problem at another time."""
        return self.subject, self.cause


def find_problems(facts: Watched, settings: AlertSettings) -> list[ServiceProblem]:
    """Return the problems that exist."""
    return [
        *_queue_problems(facts, settings),
        *_provider_problems(facts, settings),
        *_host_problems(facts, settings),
    ]


def _queue_problems(facts: Watched, settings: AlertSettings) -> Iterator[ServiceProblem]:
    for item in facts.waiting:
        age = facts.now - item.oldest
        if age >= settings.backlog_after:
            advice = (
                f"add workers, or raise {item.connection.upper()}_CONCURRENCY if the provider allows it"
                if facts.workers
                else "no worker is running: start `bridge serve` or `bridge worker`"
            )
            verb = "delivery is waiting" if item.count == 1 else "deliveries are waiting"
            text = f"{item.count:,} due {verb} over {item.connection}, the oldest for {_span(age)}; {advice}"
            yield ServiceProblem(ProblemCause.BACKLOG, item.connection, text)
    if facts.oldest_unrouted and facts.now - facts.oldest_unrouted >= settings.backlog_after:
        waiting_for = _span(facts.now - facts.oldest_unrouted)
        verb = "event has" if facts.unrouted == 1 else "events have"
        text = f"{facts.unrouted:,} {verb} not been routed, the oldest for {waiting_for}"
        advice = "see the log of `bridge serve` for `database unavailable` and `unexpected error`"
        yield ServiceProblem(ProblemCause.UNROUTED, "", f"{text}; {advice}")
    if facts.oldest_review and facts.now - facts.oldest_review >= settings.review_after:
        verb = "delivery has" if facts.reviews == 1 else "deliveries have"
        waiting_for = _span(facts.now - facts.oldest_review)
        text = f"{facts.reviews:,} {verb} needed review for up to {waiting_for}"
        yield ServiceProblem(ProblemCause.REVIEW, "", f"{text}: decide with `bridge resolve` or on /review")


def _provider_problems(facts: Watched, settings: AlertSettings) -> Iterator[ServiceProblem]:
    for connection, since in facts.open_circuits:
        if facts.now - since >= settings.circuit_open_after:
            text = f"the circuit breaker of {connection} has been open for {_span(facts.now - since)}"
            advice = "its deliveries wait, and one call is tried every 10 s: check the provider's status page"
            yield ServiceProblem(ProblemCause.CIRCUIT_OPEN, connection, f"{text}; {advice}")
    if facts.last_event_at and facts.is_silence_unusual:
        text = f"Heppu has sent no events for {_span(facts.now - facts.last_event_at)}, which is unusual for this time"
        advice = "`bridge check --online` compares Heppu's webhooks with the rules"
        yield ServiceProblem(ProblemCause.NO_EVENTS, "", f"{text}; {advice}")


def _host_problems(facts: Watched, settings: AlertSettings) -> Iterator[ServiceProblem]:
    if facts.disk_free is not None and facts.disk_free < settings.disk_free_below:
        text = f"the disk of the database has {facts.disk_free / 1e9:.1f} GB left ({facts.host})"
        advice = "free space, or set a shorter BRIDGE_RETENTION; on a full disk, events are refused"
        yield ServiceProblem(ProblemCause.DISK_NEARLY_FULL, facts.host, f"{text}: {advice}")
    if facts.rules_error:
        text = f"the rules file on {facts.host} has errors, and the previous rules stay active"
        yield ServiceProblem(
            ProblemCause.RULES_FILE, facts.host, f"{text}: {facts.rules_error}; run `bridge check`"
        )
    exits = sum(at > facts.now - RESTART_WINDOW for at in facts.worker_exits)
    if exits >= MAX_EXITS:
        text = f"the worker on {facts.host} exited {exits} times in 10 minutes"
        yield ServiceProblem(
            ProblemCause.WORKER_RESTARTS,
            facts.host,
            f"{text}; events are stored, and deliveries wait: see `worker exited` in the log",
        )


_RECOVERED: Final = {
    ProblemCause.BACKLOG: "due deliveries over {subject} no longer wait for a worker",
    ProblemCause.UNROUTED: "events are routed again",
    ProblemCause.CIRCUIT_OPEN: "the circuit breaker of {subject} is closed",
    ProblemCause.REVIEW: "no delivery has been waiting long for review",
    ProblemCause.NO_EVENTS: "Heppu sends events again",
    ProblemCause.DISK_NEARLY_FULL: "the disk of the database on {subject} has enough space again",
    ProblemCause.RULES_FILE: "the rules file on {subject} is active again",
    ProblemCause.WORKER_RESTARTS: "the worker on {subject} is running steadily again",
}


def is_over(interval: timedelta, last_alert_at: datetime | None, now: datetime) -> bool:
    """Return whether an interval since the last alert is over."""
    # If the clock was set back, the last alert lies in the future: it must not hold back others until then.
    return last_alert_at is None or not last_alert_at <= now < last_alert_at + interval


@dataclass
class Announcement:
    """What the team was told about a problem."""

    subject: str
    cause: ProblemCause
    last_alert_at: datetime | None = None
    since: datetime | None = None
    """When the problem was first alerted. None: it is over, or was never alerted."""

    def update(self, problem: ServiceProblem | None, now: datetime) -> Literal["problem", "recovered"] | None:
        """Return what to tell the team now, and remember it."""
        if problem is None and self.since is None:
            return None
        is_reminder = problem is not None and self.since is not None
        if not is_over(REMIND_AFTER if is_reminder else ALERT_INTERVAL, self.last_alert_at, now):
            return None
        self.last_alert_at = now
        if problem is None:
            self.since = None
            return "recovered"
        self.since = self.since or now
        return "problem"

    def recovery_message(self, now: datetime) -> str:
        """Return the sentence that the problem is over."""
        since = f", after {_span(now - self.since)}" if self.since else ""
        return f"recovered: {_RECOVERED[self.cause].format(subject=self.subject)}{since}"


@dataclass(frozen=True)
class Outage:
    """A time in which the database could not be written, and which is over."""

    kind: str
    """`StoreUnavailable.kind`."""
    started_at: datetime
    ended_at: datetime
    refused: int
    """Requests that were answered with 503."""

    def joined(self, other: Outage | None) -> Outage:
        """Return one outage that covers both."""
        if other is None:
            return self
        start, end = min(self.started_at, other.started_at), max(self.ended_at, other.ended_at)
        return Outage(self.kind, start, end, self.refused + other.refused)

    @property
    def message(self) -> str:
        """One sentence for the team."""
        what = {
            "disk_full": "the disk of the database was full",
            "read_only": "the database was read-only",
        }.get(self.kind, f"the database was unavailable ({self.kind})")
        times = f"from {self.started_at.astimezone(UTC):%H:%M} to {self.ended_at.astimezone(UTC):%H:%M} UTC"
        requests = "1 request was" if self.refused == 1 else f"{self.refused:,} requests were"
        return (
            f"{what} {times}; {requests} answered 503, and Heppu sends them again for a while: "
            "`bridge heppu reconcile` finds what is missing"
        )


def _span(duration: timedelta) -> str:
    """Return a duration in its largest units: `17 min`, `3 h 5 min`, `2 d 4 h`."""
    minutes = int(duration.total_seconds() // 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
