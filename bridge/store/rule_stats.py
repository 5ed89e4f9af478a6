"""Statistics of the rules: how often each fired within a span, and what became of its deliveries.

Counting is bounded, so that a page is fast however much is stored: if the span has too many deliveries, it is
shortened to the newest ones, and the result says from when it counts. All numbers then cover the same time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, bindparam, func, select, text

from bridge.lifecycle import DeliveryState, SuppressReason
from bridge.store import schema
from bridge.store.database import Database

MAX_COUNTED: Final = 10_000
"""Newest deliveries of each state that are counted."""
_STATES: Final = tuple(str(state) for state in DeliveryState)
_TABLE = schema.deliveries


@dataclass(frozen=True)
class RuleCounts:
    """The numbers of one rule. Deliveries that wait or were cancelled are only part of `fired`."""

    fired: int = 0
    """Events on which the rule fired."""
    succeeded: int = 0
    suppressed: int = 0
    """Without those of shadow mode."""
    failed: int = 0
    """Failed, or waiting for an operator's review."""
    shadow: int = 0
    """Deliveries that would have been made, had the rule not been in shadow mode."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of suppressed deliveries."""


@dataclass(frozen=True)
class RuleStats:
    """The numbers of all rules."""

    since: datetime
    """Later than asked for if there were too many deliveries to count."""
    is_shortened: bool
    rules: Mapping[str, RuleCounts]

    def of(self, rule: str) -> RuleCounts:
        """Return the numbers of a rule, which are zero if it did not fire."""
        return self.rules.get(rule, RuleCounts())


def rule_stats(database: Database, since: datetime) -> RuleStats:
    """Count what the rules did since an instant, or with the newest deliveries of that time if there are many."""
    with database.read() as conn:
        start = _start(conn, since)
        rows = conn.execute(_COUNTS, {"since": start}).all()
        fired = {row.rule: row for row in conn.execute(_FIRED, {"since": start})}
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        is_shadow = row.reason == SuppressReason.SHADOW
        totals[row.rule]["shadow" if is_shadow else row.state] += row.total
        if row.state == DeliveryState.SUPPRESSED and not is_shadow:
            reasons[row.rule][row.reason] += row.total
    counts = {
        rule: RuleCounts(
            fired=fired[rule].events if rule in fired else 0,
            succeeded=total[DeliveryState.SUCCEEDED],
            suppressed=total[DeliveryState.SUPPRESSED],
            failed=total[DeliveryState.FAILED] + total[DeliveryState.NEEDS_REVIEW],
            shadow=total["shadow"],
            reasons=dict(reasons[rule].most_common()),
        )
        for rule, total in totals.items()
    }
    return RuleStats(start, start > since, counts)


def last_fired(database: Database, rules: Collection[str]) -> dict[str, datetime]:
    """Return when each of these rules last created a delivery, however long ago; rules that never did are left out."""
    with database.read() as conn:
        times = {rule: conn.execute(_LAST_FIRED, {"rule": rule}).scalar_one() for rule in rules}
    return {rule: time for rule, time in times.items() if time is not None}


def _start(conn: Connection, since: datetime) -> datetime:
    """Return the instant since which no state has more than MAX_COUNTED deliveries."""
    starts = (conn.execute(_OLDEST_COUNTED, {"since": since, "state": state}).scalar() for state in _STATES)
    return max((start for start in starts if start is not None), default=since)


@dataclass(frozen=True)
class RuleDays:
    """The newest deliveries of a rule, by the day on which they were created."""

    since: datetime
    is_shortened: bool
    days: Mapping[datetime, Mapping[str, int]]
    """Start of a day -> state -> number. A shadow delivery has the state `shadow`."""


def rule_days(database: Database, rule: str, starts: Sequence[datetime]) -> RuleDays:
    """Count the deliveries of a rule between each two of these instants, which are in order; the last is the end.

    If there are more than MAX_COUNTED, only the newest are counted.
    """
    since = starts[0]
    with database.read() as conn:
        rows = conn.execute(_NEWEST_OF_RULE, {"rule": rule, "since": since, "until": starts[-1]}).all()
    days: dict[datetime, Counter[str]] = {start: Counter() for start in starts[:-1]}
    for row in rows:
        state = "shadow" if row.reason == SuppressReason.SHADOW else row.state
        days[starts[bisect_right(starts, row.created_at) - 1]][state] += 1
    is_shortened = len(rows) == MAX_COUNTED
    return RuleDays(rows[-1].created_at if is_shortened else since, is_shortened, days)


_REASON = func.coalesce(_TABLE.c.reason, "").label("reason")


def newest_traces(database: Database, event_types: Collection[str], limit: int = 1000) -> list[str]:
    """Return the traces, as JSON, of the events of these types among the `limit` newest events."""
    events = schema.events
    newest = select(events.c.id, events.c.type).order_by(events.c.received_at.desc()).limit(limit)
    with database.read() as conn:
        ids = [row.id for row in conn.execute(newest) if row.type in event_types]
        traces = select(events.c.trace).where(events.c.id.in_(ids), events.c.trace.is_not(None))
        return list(conn.execute(traces).scalars())


_IS_NO_ALERT = text("deliveries.trigger <> 'alert'")
_IN_SPAN = and_(_TABLE.c.state.in_(_STATES), _TABLE.c.created_at >= bindparam("since"))
_OLDEST_COUNTED = (
    select(_TABLE.c.created_at)
    .where(_TABLE.c.state == bindparam("state"), _TABLE.c.created_at >= bindparam("since"))
    .order_by(_TABLE.c.created_at.desc())
    .limit(1)
    .offset(MAX_COUNTED)
)
_COUNTS = (
    select(_TABLE.c.rule, _TABLE.c.state, _REASON, func.count().label("total"))
    .where(_IN_SPAN, _IS_NO_ALERT)
    .group_by(_TABLE.c.rule, _TABLE.c.state, _TABLE.c.reason)
)  # fmt: skip
_FIRED = (
    select(_TABLE.c.rule, func.count(_TABLE.c.event_id.distinct()).label("events"))
    .where(_IN_SPAN, text("deliveries.trigger = 'rule'"))
    .group_by(_TABLE.c.rule)
)
_LAST_FIRED = select(func.max(_TABLE.c.created_at)).where(_TABLE.c.rule == bindparam("rule"))
_NEWEST_OF_RULE = (
    select(_TABLE.c.created_at, _TABLE.c.state, _TABLE.c.reason)
    .where(
        _TABLE.c.rule == bindparam("rule"),
        _TABLE.c.created_at >= bindparam("since"),
        _TABLE.c.created_at < bindparam("until"),
        _IS_NO_ALERT,
    )
    .order_by(_TABLE.c.created_at.desc())
    .limit(MAX_COUNTED)
)
