"""Activity: what the service did in a span of time, in slots for charts, by rule, and compared with the time before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select

from bridge.store import schema
from bridge.store.database import Database
from bridge.store.hourly_counts import (
    HOUR,
    Count,
    Total,
    counted_until,
    hours_to_count,
    live_counts,
    read_totals,
    stored_counts,
)


class Span(NamedTuple):
    """A length of time, and the slots of its charts."""

    slots: int
    period: timedelta
    title: str

    def starts(self, now: datetime, zone: tzinfo = UTC) -> list[datetime]:
        """Return the starts of the slots, the last of which contains `now`.

        Slots of several hours start at midnight in `zone`, rounded down to a whole hour in UTC.
        """
        local = now.astimezone(zone)
        aligned = local.replace(minute=0, second=0, microsecond=0)
        if self.period < HOUR:
            aligned = local.replace(second=0, microsecond=0)
        else:
            aligned = aligned.replace(hour=local.hour - local.hour % (self.period // HOUR))
        last = aligned.astimezone(UTC)
        if self.period >= HOUR:
            last = last.replace(minute=0)
        return [last - self.period * back for back in reversed(range(self.slots))]


SPANS: Final[Mapping[str, Span]] = {
    "1h": Span(60, timedelta(minutes=1), "Last hour"),
    "24h": Span(24, HOUR, "Last 24 hours"),
    "7d": Span(28, 6 * HOUR, "Last 7 days"),
    "30d": Span(30, 24 * HOUR, "Last 30 days"),
}
"""By the value of the query parameter `span`."""
DURATION_SAMPLE: Final = 500
"""Newest deliveries whose durations are looked at."""
_NOT_SENT: Final = ("suppressed", "cancelled")


@dataclass
class RuleActivity:
    """What one rule did."""

    fired: int = 0
    succeeded: int = 0
    failed: int = 0
    """Deliveries that failed, and messages that were sent and not delivered."""
    cancelled: int = 0
    suppressed: Counter[str] = field(default_factory=Counter)
    """Reason -> number."""
    last_fired_at: datetime | None = None


class ActivityTotals(NamedTuple):
    """The sums of a span."""

    events: int
    succeeded: int
    suppressed: int
    """With cancelled deliveries."""
    failed: int


@dataclass(frozen=True)
class Activity:
    """What happened in a span."""

    slots: Sequence[datetime]
    events: Mapping[str, Sequence[int]]
    """Event type -> number per slot, the most frequent type first."""
    results: Mapping[str, Sequence[int]]
    """`succeeded`, `suppressed` (with cancelled) and `failed` -> number per slot."""
    rules: Mapping[str, RuleActivity]
    reasons: Mapping[str, int]
    """Reason of suppressed and cancelled deliveries -> number, the most frequent first."""
    totals: ActivityTotals
    before: ActivityTotals | None
    """The span before; None if it is not completely counted."""
    uncounted_hours: int
    """Hours of the span that a worker has not counted yet, for example after an upgrade."""
    durations: Sequence[float]
    """Seconds from creation to success of the newest deliveries of the span that took one attempt, in order."""


class _Counted(NamedTuple):
    """The counts of hours that are over, and the totals of as long a time before."""

    start: datetime
    until: datetime
    uncounted: int
    counts: list[Count]
    before: list[Total]


class CountCache:
    """Remembers the counts of the hours that are over, which no longer change, for each span."""

    def __init__(self) -> None:
        self._counts: dict[timedelta, _Counted] = {}

    def read(
        self, conn: Connection, starts: Sequence[datetime], period: timedelta, now: datetime, uncounted: int
    ) -> tuple[list[Count], list[Total]]:
        """Return the counts since the first start, and the totals of as long a time before it."""
        start = starts[0]
        if period < HOUR:
            return live_counts(conn, start, start, now, period), []
        until = max(start, counted_until(conn, now))
        found = self._counts.get(period)
        if found is None or (found.start, found.uncounted) != (start, uncounted) or found.until > until:
            before = read_totals(conn, start - len(starts) * period, start)
            found = _Counted(start, start, uncounted, [], before)
        if found.until < until:
            # Only the hours that were counted since: a month of hours takes a tenth of a second.
            added = stored_counts(conn, start, found.until, until, period)
            found = found._replace(until=until, counts=found.counts + added)
        self._counts[period] = found
        return found.counts + live_counts(conn, start, until, now, period), found.before


class SpanCounts(NamedTuple):
    """The counts of a span by slot, and what is not counted yet."""

    starts: Sequence[datetime]
    counts: Sequence[Count]
    before: ActivityTotals | None
    """The totals of the span before; None if it is not completely counted."""
    uncounted_hours: int


def read_counts(database: Database, cache: CountCache, span: Span, zone: tzinfo = UTC) -> SpanCounts:
    """Return the counts of a span that ends now. Raise StoreUnavailable."""
    now = database.clock.now()
    starts = span.starts(now, zone)
    length = len(starts) * span.period
    with database.read() as conn:
        uncounted = hours_to_count(conn, starts[0] - length, now) if span.period >= HOUR else 0
        missing = hours_to_count(conn, starts[0], now) if uncounted else 0
        first = conn.execute(select(func.min(schema.hourly_counts.c.started_at))).scalar_one()
        counts, before = cache.read(conn, starts, span.period, now, uncounted)
    is_complete = not uncounted and first is not None and first <= starts[0] - length
    return SpanCounts(starts, counts, _totals(before) if is_complete else None, missing)


def read_activity(database: Database, cache: CountCache, span: Span, zone: tzinfo = UTC) -> Activity:
    """Return what happened in a span that ends now. Raise StoreUnavailable."""
    found = read_counts(database, cache, span, zone)
    with database.read() as conn:
        durations = _durations(conn, found.starts[0])
    return _summarize(found.starts, found.counts, found.before, found.uncounted_hours, durations)


def _summarize(
    starts: Sequence[datetime],
    counts: Sequence[Count],
    before: ActivityTotals | None,
    uncounted: int,
    durations: Sequence[float],
) -> Activity:
    index = {start: number for number, start in enumerate(starts)}
    events: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(starts))
    results = {name: [0] * len(starts) for name in ("succeeded", "suppressed", "failed")}
    rules: defaultdict[str, RuleActivity] = defaultdict(RuleActivity)
    reasons: Counter[str] = Counter()
    for count in counts:
        slot = index.get(count.started_at)
        if slot is None:
            continue
        if count.kind == "event":
            events[count.name][slot] += count.total
        elif count.kind == "fired":
            rule = rules[count.name]
            rule.fired += count.total
            rule.last_fired_at = max(filter(None, (rule.last_fired_at, count.last_at)))
        else:
            result = _result(count.state, count.reason == "undelivered")
            results[result][slot] += count.total
            _add(rules[count.name], count)
            if result == "suppressed":
                reasons[count.reason or count.state] += count.total
    ordered = dict(sorted(events.items(), key=lambda item: -sum(item[1])))
    totals = ActivityTotals(sum(map(sum, events.values())), *(sum(values) for values in results.values()))
    return Activity(
        starts,
        ordered,
        results,
        dict(rules),
        dict(reasons.most_common()),
        totals,
        before,
        uncounted,
        durations,
    )


def _result(state: str, is_undelivered: bool) -> str:
    if state in _NOT_SENT:
        return "suppressed"
    return "failed" if is_undelivered or state == "failed" else "succeeded"


def _add(rule: RuleActivity, count: Count) -> None:
    """Add deliveries that reached a final state to their rule."""
    if count.state == "suppressed":
        rule.suppressed[count.reason] += count.total
    elif count.state == "cancelled":
        rule.cancelled += count.total
    elif _result(count.state, count.reason == "undelivered") == "failed":
        rule.failed += count.total
    else:
        rule.succeeded += count.total


def _totals(totals: Sequence[Total]) -> ActivityTotals:
    sums: Counter[str] = Counter()
    for item in totals:
        if item.kind == "event":
            sums["events"] += item.total
        elif item.kind == "result":
            sums[_result(item.state, item.is_undelivered)] += item.total
    return ActivityTotals(sums["events"], sums["succeeded"], sums["suppressed"], sums["failed"])


def _durations(conn: Connection, since: datetime) -> list[float]:
    table = schema.deliveries.c
    rows = conn.execute(
        select(table.created_at, table.finished_at, table.attempts)
        .where(table.state == "succeeded", table.created_at >= since)
        .order_by(table.created_at.desc())
        .limit(DURATION_SAMPLE)
    )
    return sorted(
        (row.finished_at - row.created_at).total_seconds()
        for row in rows
        if row.attempts <= 1 and row.finished_at
    )
