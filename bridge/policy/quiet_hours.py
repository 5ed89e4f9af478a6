"""Quiet hours: from when on all the clocks that a person may live by allow a message."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.rules.model import QuietHours

NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""No instant: the hours that all zones allow have nothing in common."""

_HORIZON = timedelta(hours=48)
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


def is_quiet(hours: QuietHours, wall: time) -> bool:
    """Whether a wall clock stands inside the window; `start` is inside, `end` is not, equal ones are no window."""
    if hours.start <= hours.end:
        return hours.start <= wall < hours.end
    return wall >= hours.start or wall < hours.end


def quiet_until(now: datetime, zones: Iterable[str], windows: Iterable[QuietHours]) -> datetime | None:
    """The first instant from `now` on (UTC) at which every zone is outside every window; None: it is now.

    NEVER when there is none within 48 hours: the zones are too far apart for what the windows leave. Such a
    message is not sent at all, for every hour would be a quiet one somewhere the person may be.
    """
    watches = [(ZoneInfo(zone), hours) for zone in zones for hours in windows]
    instant = now
    while instant - now <= _HORIZON:
        latest = max((_opens(zone, hours, instant) for zone, hours in watches), default=instant)
        if latest == instant:
            return None if instant == now else instant
        instant = latest
    return NEVER


def quiet_hours_start(now: datetime, zones: Iterable[str], windows: Iterable[QuietHours]) -> datetime | None:
    """The next instant (UTC) at which one of these clocks enters one of these windows; None: there is no window."""
    hours = [one for one in windows if one.start != one.end]
    return min((_closes(ZoneInfo(zone), one, now) for zone in zones for one in hours), default=None)


def _closes(zone: ZoneInfo, hours: QuietHours, instant: datetime) -> datetime:
    today = instant.astimezone(zone).date()
    starts = (datetime.combine(day, hours.start, zone) for day in (today, today + _DAY, today + 2 * _DAY))
    return next(at for start in starts if (at := start.astimezone(UTC)) > instant)


def _opens(zone: ZoneInfo, hours: QuietHours, instant: datetime) -> datetime:
    """The first instant from `instant` on at which this one clock is outside this one window."""
    while is_quiet(hours, (wall := instant.astimezone(zone).replace(tzinfo=None)).time()):
        end = datetime.combine(wall.date(), hours.end)
        candidate = instant + (end - wall if end > wall else end + _DAY - wall)
        if candidate.astimezone(zone).utcoffset() == instant.astimezone(zone).utcoffset():
            return candidate
        instant = _transition(zone, instant, candidate)
    return instant


def _transition(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The instant between two at which the zone's clock is put forward or back, to the second."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
