"""Quiet hours: computes when every time zone that a recipient may be in allows a message."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from bridge.policy.public_holidays import HolidayNames
from bridge.rules.quiet_hours import DAYS, HOLIDAYS, ONE_DAY, QuietHours, QuietWindow

NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""Returned if no instant is outside the quiet hours of all time zones."""

_DAILY_HORIZON = timedelta(days=2)
_HORIZON = timedelta(days=31)
"""Longer than holidays can keep messages that are sent on one day of the week: two in a row are 21 days."""
_START_HORIZON = timedelta(days=8)
_SECOND = timedelta(seconds=1)


class Calendar(NamedTuple):
    """The quiet hours of one recipient: all of them apply, in every zone where the recipient may be."""

    zones: Sequence[str]
    hours: Sequence[QuietHours]
    holidays: HolidayNames | None = None
    """The public holidays of the recipient's country; None if they are not known, or no quiet hours depend on them."""

    def window_on(
        self, hours: QuietHours, local: datetime, days_ago: int = 0
    ) -> tuple[QuietWindow, str | None]:
        """Return the window of a day, or of the day before, and the name of the holiday if the day is one."""
        if hours.holidays is not None and self.holidays is not None:
            holiday = self.holidays(local.date() - timedelta(days=days_ago))
            if holiday:
                return hours.holidays, holiday
        return hours.week[local.weekday() - days_ago], None


class QuietPeriod(NamedTuple):
    """The quiet hours that apply at an instant in one time zone."""

    hours: QuietHours
    window: QuietWindow
    day: str
    """The day whose window it is, as in the file."""
    holiday: str | None
    zone: str
    local: datetime
    end: int
    """When the window ends, in minutes since midnight. Another window may follow."""

    def __str__(self) -> str:
        """Return the setting and the window, and the local time to which they apply."""
        if self.hours.is_daily:
            return f"{self.hours.setting} {self.window}: it is {self.local:%H:%M} in {self.zone}"
        weekday = DAYS[self.local.weekday()].capitalize()
        name = f" ({self.holiday})" if self.holiday else ""
        return (
            f"{self.hours.setting} {self.day}: {self.window}{name}; "
            f"it is {weekday} {self.local:%H:%M} in {self.zone}"
        )


def quiet_period(calendar: Calendar, instant: datetime) -> QuietPeriod | None:
    """Return the first quiet hours that apply at an instant, or None if none do."""
    periods = (_period(calendar, hours, zone, instant) for hours in calendar.hours for zone in calendar.zones)
    return next((period for period in periods if period), None)


def quiet_hours_end(calendar: Calendar, now: datetime) -> datetime | None:
    """Return the first instant from `now` on (UTC) at which every zone is outside all quiet hours.

    Return None if that is already the case at `now`, and NEVER if there is no such instant within 31 days: the zones
    are too far apart for the hours that remain. Such a message is never sent, because every hour would be a quiet hour
    in one of the places where the recipient may be.
    """
    limit = now + (_DAILY_HORIZON if all(hours.is_daily for hours in calendar.hours) else _HORIZON)
    instant = now
    while instant <= limit:
        latest_end = max(
            [_end(calendar, hours, zone, instant) for hours in calendar.hours for zone in calendar.zones]
        )
        if latest_end == instant:
            return None if instant == now else instant
        instant = latest_end
    return NEVER


def quiet_hours_start(calendar: Calendar, now: datetime) -> datetime | None:
    """Return when quiet hours start next (UTC) in one of the zones. At `now`, no zone is in quiet hours.

    None if they do not start within 8 days: no provider keeps a message for that long.
    """
    pairs = [(hours, zone) for hours in calendar.hours if not hours.is_empty for zone in calendar.zones]
    instant = now
    while pairs and instant - now <= _START_HORIZON:
        starts = [_next_start(calendar, hours, zone, instant) for hours, zone in pairs]
        instant = min(starts)
        for (hours, zone), start in zip(pairs, starts, strict=True):
            if start == instant and _period(calendar, hours, zone, instant):
                return instant
    return None


def _period(calendar: Calendar, hours: QuietHours, zone: str, instant: datetime) -> QuietPeriod | None:
    local = instant.astimezone(ZoneInfo(zone))
    minute = local.hour * 60 + local.minute
    window, holiday = calendar.window_on(hours, local)
    end, days_ago = window.end_after(minute), 0
    if end is None and not hours.is_daily:
        window, holiday = calendar.window_on(hours, local, 1)
        end, days_ago = window.end_on_next_day(minute), 1
    if end is None:
        return None
    day = HOLIDAYS if holiday else DAYS[local.weekday() - days_ago]
    return QuietPeriod(hours, window, day, holiday, zone, local, end)


def _end(calendar: Calendar, hours: QuietHours, zone: str, instant: datetime) -> datetime:
    """Return when the window that applies at an instant ends, or the instant itself if none applies."""
    period = _period(calendar, hours, zone, instant)
    return instant if period is None else _when_clock_shows(period.end, period.local, instant)


def _next_start(calendar: Calendar, hours: QuietHours, zone: str, instant: datetime) -> datetime:
    """Return the first instant after one without quiet hours at which a window can start: its start, or midnight."""
    local = instant.astimezone(ZoneInfo(zone))
    start = calendar.window_on(hours, local)[0].start
    is_later = start > local.hour * 60 + local.minute
    return _when_clock_shows(start if is_later else ONE_DAY, local, instant)


def _when_clock_shows(minute: int, local: datetime, instant: datetime) -> datetime:
    """Return when a clock that shows `local` at `instant` shows a later minute, counted from the same midnight.

    If the UTC offset changes before that, return when it changes.
    """
    wait = timedelta(0, -local.second, -local.microsecond, 0, minute - local.hour * 60 - local.minute)
    candidate = instant + wait
    if candidate.astimezone(local.tzinfo).utcoffset() == local.utcoffset():
        return candidate
    return _offset_change(local.tzinfo, instant, candidate)


def _offset_change(zone: tzinfo | None, before: datetime, after: datetime) -> datetime:
    """Return the instant between the two, to the second, at which the zone's UTC offset changes."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
