"""Overview: everything that the overview page and `/api/overview` show, read block by block.

A block that cannot be read is missing, and the others are shown nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple, TypeVar

from bridge.errors import StoreUnavailable
from bridge.store.activity import SPANS, Activity, RuleActivity, read_activity
from bridge.store.connection_history import (
    Attempts,
    ConnectionOverview,
    PastPause,
    read_connections,
    read_pauses,
)
from bridge.store.overview import OpenTasks, Vitals, read_tasks, read_vitals
from bridge.store.rule_stats import last_fired
from bridge.telemetry import log
from bridge.web.admin_service import AdminService
from bridge.web.charts import StripCell
from bridge.web.labels import CONNECTION_STATES, reason_label
from bridge.web.summary import RulesState, Situation, Summary, summarize

T = TypeVar("T")

MAX_RULES: Final = 100
SOME_FAILED, MOSTLY_FAILED = 0.05, 0.5
"""Shares of failed attempts above which a period is not shown as good: a few attempts always fail."""
STRIP_PERIODS: Final[dict[str, tuple[int, timedelta]]] = {
    "1h": (12, timedelta(minutes=5)),
    "24h": (48, timedelta(minutes=30)),
    "7d": (56, timedelta(hours=3)),
    "30d": (60, timedelta(hours=12)),
}
"""Number and length of the cells of a strip, by span."""


class RuleRow(NamedTuple):
    """What a rule did in the span."""

    name: str
    activity: RuleActivity
    is_active: bool
    last_fired_at: datetime | None

    @property
    def did_something(self) -> bool:
        """True if it fired, or a delivery of it reached a final state."""
        done = self.activity
        return bool(done.fired or done.succeeded or done.failed or done.cancelled or done.suppressed)

    @property
    def not_sent(self) -> list[str]:
        """The numbers of suppressed deliveries by reason, and of cancelled ones."""
        reasons = [
            f"{total:,} {reason_label(reason)}" for reason, total in self.activity.suppressed.most_common()
        ]
        return reasons + ([f"{self.activity.cancelled:,} cancelled"] if self.activity.cancelled else [])


@dataclass(frozen=True)
class Overview:
    """The blocks of the overview. None: it could not be read."""

    now: datetime
    span: str
    summary: Summary
    vitals: Vitals | None
    tasks: OpenTasks | None
    activity: Activity | None
    rules: Sequence[RuleRow] | None
    connections: Sequence[ConnectionOverview] | None
    pauses: Sequence[PastPause] | None

    @property
    def is_empty(self) -> bool:
        """True as long as no event has come."""
        return self.vitals is not None and self.vitals.last_event is None


def read_overview(service: AdminService, span: str, zone: tzinfo = UTC) -> Overview:
    """Return the overview of a span of `SPANS`. Raise StoreUnavailable if no block can be read."""
    database, now = service.database, service.database.clock.now()
    length = SPANS[span].slots * SPANS[span].period
    cells = "1h" if span == "1h" else "24h"
    starts, period = strip_periods(cells, now)
    vitals = _block(
        "vitals", lambda: read_vitals(database, service.rules.current.alert_settings.no_events_after)
    )
    tasks = _block("tasks", lambda: read_tasks(database))
    pauses = _block("pauses", lambda: read_pauses(database, min(now - length, starts[0])))
    connections = _block("connections", lambda: read_connections(database, starts, period, pauses or ()))
    activity = _block("activity", lambda: read_activity(database, service.counts, SPANS[span], zone))
    if vitals is None and tasks is None and activity is None:
        raise StoreUnavailable("no block of the overview can be read")
    rules = None if activity is None else _block("rules", lambda: _rule_rows(service, activity))
    in_span = None if pauses is None else [item for item in pauses if (item.ended_at or now) >= now - length]
    situation = Situation(now, zone, _rules_state(service), vitals, tasks, in_span, connections)
    return Overview(now, span, summarize(situation), vitals, tasks, activity, rules, connections, pauses)


def _block(name: str, read: Callable[[], T]) -> T | None:
    """Return a block; None if it cannot be read, which the log says."""
    try:
        return read()
    except StoreUnavailable as error:
        log.warning("a block of the overview could not be read", block=name, problem=str(error))
        return None


def _rules_state(service: AdminService) -> RulesState:
    rules = service.rules.current
    enabled = sum(rule.enabled for rule in rules.rules)
    return RulesState(rules.hash, service.rules.loaded_at, enabled, service.rules.load_error)


def _rule_rows(service: AdminService, activity: Activity) -> list[RuleRow]:
    """Return the active rules in the order of the file, then other rules whose deliveries finished in the span."""
    active = [rule.name for rule in service.rules.current.rules if rule.enabled]
    names = [*active, *(name for name in activity.rules if name not in active)][:MAX_RULES]
    idle = [name for name in names if name not in activity.rules or not activity.rules[name].last_fired_at]
    earlier = last_fired(service.database, idle)
    rows = []
    for name in names:
        done = activity.rules.get(name, RuleActivity())
        rows.append(RuleRow(name, done, name in active, done.last_fired_at or earlier.get(name)))
    return rows


def strip_periods(span: str, now: datetime) -> tuple[list[datetime], timedelta]:
    """Return the starts of the cells of a strip and their length; the last cell contains `now`."""
    count, period = STRIP_PERIODS[span]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    last = now - (now - epoch) % period
    return [last - period * back for back in reversed(range(count))], period


def strip_cells(
    connection: str,
    starts: Sequence[datetime],
    period: timedelta,
    attempts: Sequence[Attempts],
    pauses: Sequence[PastPause],
    now: datetime,
    zone: tzinfo,
) -> list[StripCell]:
    """Return the cells of a connection's strip: what it did in each period, and whether it was paused."""
    own = [item for item in pauses if item.connection in (connection, "*")]
    cells = []
    for start, done in zip(starts, attempts, strict=True):
        pause = next((item for item in own if _covers(item, start, min(start + period, now))), None)
        cells.append(_cell(f"{start.astimezone(zone):%d %b %H:%M}", done, pause))
    return cells


def _covers(pause: PastPause, start: datetime, end: datetime) -> bool:
    """Return whether a pause lasts for most of a period."""
    overlap = min(pause.ended_at or end, end) - max(pause.started_at, start)
    return overlap > (end - start) / 2


def _cell(title: str, done: Attempts, pause: PastPause | None) -> StripCell:
    numbers = f"{done.succeeded:,} succeeded, {done.failed:,} failed, {done.rejected:,} rejected"
    if pause is not None:
        label = CONNECTION_STATES.get(pause.cause, CONNECTION_STATES["operator"])
        css_class = "hold" if pause.cause == "operator" else "bad"
        return StripCell(css_class, f"{title}: {label.text.lower()}" + (f"; {numbers}" if done.total else ""))
    if not done.total:
        return StripCell("none", f"{title}: no attempt")
    share = done.failed / done.total
    css_class = "bad" if share > MOSTLY_FAILED else "wait" if share > SOME_FAILED else "good"
    return StripCell(css_class, f"{title}: {numbers}")
