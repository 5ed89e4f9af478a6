"""Quiet hours: computes when every time zone that a recipient may be in allows a message."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.rules.model import QuietHours

NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""Returned if the allowed hours of the time zones do not overlap."""

_HORIZON = timedelta(hours=48)
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


def is_quiet(hours: QuietHours, local_time: time) -> bool:
    """Return True if a local time is inside the window.

    `start` is inside, `end` is not. If both are equal, the window is empty.
    """
    if hours.start <= hours.end:
        return hours.start <= local_time < hours.end
    return local_time >= hours.start or local_time < hours.end


def quiet_hours_end(now: datetime, zones: Iterable[str], windows: Iterable[QuietHours]) -> datetime | None:
    """Return the first instant from `now` on (UTC) at which every zone is outside every window.

    Return None if that is already the case at `now`, and NEVER if there is no such instant within 48 hours: the zones
    are too far apart for the hours that the windows leave. Such a message is never sent, because every hour would be
    a quiet hour in one of the places where the recipient may be.
    """
    zone_windows = [(ZoneInfo(zone), hours) for zone in zones for hours in windows]
    instant = now
    while instant - now <= _HORIZON:
        latest_end = max((_window_end(zone, hours, instant) for zone, hours in zone_windows), default=instant)
        if latest_end == instant:
            return None if instant == now else instant
        instant = latest_end
    return NEVER


def next_quiet_hours_start(
    now: datetime, zones: Iterable[str], windows: Iterable[QuietHours]
) -> datetime | None:
    """Return the next instant (UTC) at which one of the zones enters one of the windows; None without a window."""
    nonempty = [hours for hours in windows if hours.start != hours.end]
    return min(
        (_next_window_start(ZoneInfo(zone), hours, now) for zone in zones for hours in nonempty), default=None
    )


def _next_window_start(zone: ZoneInfo, hours: QuietHours, instant: datetime) -> datetime:
    today = instant.astimezone(zone).date()
    starts = (datetime.combine(day, hours.start, zone) for day in (today, today + _DAY, today + 2 * _DAY))
    return next(at for start in starts if (at := start.astimezone(UTC)) > instant)


def _window_end(zone: ZoneInfo, hours: QuietHours, instant: datetime) -> datetime:
    """Return the first instant from `instant` on at which this zone is outside this window."""
    while is_quiet(hours, (local := instant.astimezone(zone).replace(tzinfo=None)).time()):
        end = datetime.combine(local.date(), hours.end)
        candidate = instant + (end - local if end > local else end + _DAY - local)
        if candidate.astimezone(zone).utcoffset() == instant.astimezone(zone).utcoffset():
            return candidate
        instant = _offset_change(zone, instant, candidate)
    return instant


def _offset_change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the instant between the two, to the second, at which the zone's UTC offset changes."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
