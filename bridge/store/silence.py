"""Silence: whether Heppu has sent nothing for unusually long, for the overview and for the alert about it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, func, select

from bridge.events import BRIDGE_EVENTS
from bridge.rules.alert_settings import NEVER
from bridge.store import schema

USUAL_EVENTS: Final = 5
"""Events of Heppu in the same time of an earlier week that make silence unusual."""
_WEEK: Final = timedelta(days=7)
_EVENTS = schema.events.c


def is_silence_unusual(
    conn: Connection, last_event_at: datetime | None, no_events_after: timedelta, now: datetime
) -> bool:
    """Return whether Heppu was silent for that long, and was not at the same time one and two weeks ago.

    There, only the first half of the time counts, because events do not come at the same minute every week. In the
    first week there is nothing to compare with, and in the second one week.
    """
    if last_event_at is None or no_events_after == NEVER or now - last_event_at < no_events_after:
        return False
    first = conn.execute(select(func.min(_EVENTS.received_at))).scalar_one()
    weeks = [
        weeks * _WEEK
        for weeks in (1, 2)
        if first is not None and first <= now - weeks * _WEEK - no_events_after
    ]
    return bool(weeks) and all(
        _has_events(conn, now - week - no_events_after, now - week - no_events_after / 2) for week in weeks
    )


def _has_events(conn: Connection, since: datetime, until: datetime) -> bool:
    events = (
        select(_EVENTS.id)
        .where(_EVENTS.received_at >= since, _EVENTS.received_at < until)
        .where(_EVENTS.type.not_in(BRIDGE_EVENTS))
        .limit(USUAL_EVENTS)
        .subquery()
    )
    count: int = conn.execute(select(func.count()).select_from(events)).scalar_one()
    return count >= USUAL_EVENTS
