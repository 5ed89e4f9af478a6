"""Overview: whether all is well, and what happened in a span of time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from bridge.store.activity import RuleActivity
from bridge.web.api.endpoint import Call, Resource
from bridge.web.api.records import record
from bridge.web.overview import Overview, RuleRow, read_overview
from bridge.web.summary import Line
from bridge.web.validation import Parameters

OVERVIEW = Resource("Overview", "Whether all is well, what needs an operator, and how it is going.")

SpanName = Literal["1h", "24h", "7d", "30d"]


class OverviewQuery(Parameters):
    """The time that the overview covers."""

    span: SpanName = Field("24h", description="The span of the numbers and of what recovered.")


@record()
class Task(TypedDict):
    """A sentence about a problem, with the page of the dashboard that shows more."""

    kind: Literal["good", "wait", "warn", "bad"]
    text: str
    path: str
    """Path of the page, relative to the root of the service."""


@record()
class WorkerStatus(TypedDict):
    """A process that works on the database."""

    host: str
    version: str
    started_at: datetime


@record()
class RuleNumbers(TypedDict):
    """What a rule did in the span."""

    name: str
    active: bool
    fired: int
    """Events for which it created deliveries."""
    succeeded: int
    failed: int
    """Deliveries that failed, and messages that were sent and not delivered."""
    cancelled: int
    suppressed: dict[str, int]
    """Number of suppressed deliveries by reason."""
    last_fired_at: datetime | None


@record()
class SpanTotals(TypedDict):
    """The sums of the span."""

    events: int
    succeeded: int
    suppressed: int
    """With cancelled deliveries."""
    failed: int


@record()
class OverviewStatus(TypedDict):
    """The overview. A part that could not be read is null."""

    status: Literal["good", "wait", "warn", "bad"]
    """`good`: all is well; `wait`: a problem that ends by itself; `warn` and `bad`: an operator is needed."""
    title: str
    facts: list[str]
    """What makes the title true."""
    needs: list[Task]
    recovering: list[Task]
    recovered: list[str]
    last_event_at: datetime | None
    workers: list[WorkerStatus] | None
    possible_duplicates: int | None
    """At most 1,001."""
    totals: SpanTotals | None
    totals_before: SpanTotals | None
    """The span before; null if it is not completely counted."""
    uncounted_hours: int | None
    """Hours of the span that have not been counted yet, for example after an upgrade."""
    slots: list[datetime] | None
    """Starts of the periods of `events` and `results`."""
    events: dict[str, list[int]] | None
    """Number of events per period, by type."""
    results: dict[str, list[int]] | None
    """Number of deliveries per period: `succeeded`, `suppressed` and `failed`."""
    rules: list[RuleNumbers] | None


@OVERVIEW.get("/overview", response=OverviewStatus)
def get_overview(call: Call, query: OverviewQuery) -> Any:
    """Say whether all is well, with the numbers of a span of time."""
    return _record(read_overview(call.service, query.span))


def _record(overview: Overview) -> dict[str, Any]:
    summary, activity, vitals, tasks = overview.summary, overview.activity, overview.vitals, overview.tasks
    return {
        "status": summary.kind,
        "title": summary.title,
        "facts": list(summary.facts),
        "needs": [_task(line) for line in summary.needs],
        "recovering": [_task(line) for line in summary.recovering],
        "recovered": list(summary.recovered),
        "last_event_at": vitals.last_event.received_at if vitals and vitals.last_event else None,
        "workers": None if vitals is None else [worker._asdict() for worker in vitals.workers],
        "possible_duplicates": tasks and tasks.possible_duplicates,
        "totals": activity and activity.totals._asdict(),
        "totals_before": activity and activity.before and activity.before._asdict(),
        "uncounted_hours": activity and activity.uncounted_hours,
        "slots": activity and list(activity.slots),
        "events": activity and {name: list(values) for name, values in activity.events.items()},
        "results": activity and {name: list(values) for name, values in activity.results.items()},
        "rules": None if overview.rules is None else [_rule(row) for row in overview.rules],
    }


def _task(line: Line) -> dict[str, str]:
    return {"kind": line.kind, "text": line.text, "path": line.path}


def _rule(row: RuleRow) -> dict[str, Any]:
    done: RuleActivity = row.activity
    return {
        "name": row.name,
        "active": row.is_active,
        "fired": done.fired,
        "succeeded": done.succeeded,
        "failed": done.failed,
        "cancelled": done.cancelled,
        "suppressed": dict(done.suppressed),
        "last_fired_at": row.last_fired_at,
    }
