"""What the rules did: when each fired last, the days of one rule, and the traces of the newest events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

from sqlalchemy import func, select

from bridge.lifecycle import SuppressReason
from bridge.rules.trace import Trace
from bridge.store import schema
from bridge.store.activity import SPANS, CountCache, read_counts
from bridge.store.database import Database
from bridge.store.traces import unpack

MAX_TRACES: Final = 1000
"""Newest events whose traces are looked at."""


def last_fired(database: Database, rules: Collection[str]) -> dict[str, datetime]:
    """Return when each of these rules last created a delivery, however long ago; rules that never did are left out."""
    table = schema.deliveries
    with database.read() as conn:
        times = {
            rule: conn.execute(select(func.max(table.c.created_at)).where(table.c.rule == rule)).scalar_one()
            for rule in rules
        }
    return {rule: time for rule, time in times.items() if time is not None}


@dataclass(frozen=True)
class RuleDays:
    """The deliveries of a rule that finished within the last month, by day."""

    starts: Sequence[datetime]
    results: Mapping[str, Sequence[int]]
    """`succeeded`, `suppressed`, `shadow`, `cancelled` and `failed` -> number per day."""
    uncounted_hours: int
    """Hours that a worker has not counted yet."""


def rule_days(database: Database, cache: CountCache, rule: str, zone: tzinfo = UTC) -> RuleDays:
    """Return what became of the deliveries of a rule, by day in a time zone."""
    found = read_counts(database, cache, SPANS["30d"], zone)
    index = {start: number for number, start in enumerate(found.starts)}
    results: dict[str, Counter[int]] = {}
    for count in found.counts:
        if count.name == rule and count.kind == "result" and count.started_at in index:
            is_shadow = count.reason == SuppressReason.SHADOW
            state = "failed" if count.reason == "undelivered" else "shadow" if is_shadow else count.state
            results.setdefault(state, Counter())[index[count.started_at]] += count.total
    days = range(len(found.starts))
    return RuleDays(
        found.starts,
        {state: [numbers[day] for day in days] for state, numbers in results.items()},
        found.uncounted_hours,
    )


def newest_traces(database: Database, rule: str, event_types: Collection[str]) -> list[Trace]:
    """Return the traces of a rule for the events of these types among the MAX_TRACES newest events."""
    events = schema.events
    newest = select(events.c.id, events.c.type).order_by(events.c.received_at.desc()).limit(MAX_TRACES)
    with database.read() as conn:
        ids = [row.id for row in conn.execute(newest) if row.type in event_types]
        traces = select(events.c.trace, events.c.packed_trace).where(events.c.id.in_(ids))
        rows = conn.execute(traces).all()
    return [trace for row in rows for trace in unpack(row) or () if trace.rule == rule]
