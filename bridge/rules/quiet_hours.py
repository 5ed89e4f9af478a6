"""Quiet hours as the rules file defines them: a window for each day of the week, and one for public holidays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from functools import cached_property
from typing import Final, get_args

from bridge.connector.callbacks import Channel

CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOLIDAYS: Final = "holidays"
ONE_DAY: Final = 24 * 60
"""In minutes, like all times here."""


@dataclass(frozen=True)
class QuietWindow:
    """The quiet hours of one day, in minutes since its midnight. An `end` after 24 hours is on the next day.

    A window that passes midnight also covers the early morning of its own day: with `17:00-09:00` on Monday, messages
    are sent on Monday from 09:00 to 17:00, and the window that starts on Monday lasts until Tuesday, 09:00.
    """

    start: int
    end: int

    @classmethod
    def between(cls, start: time, end: time) -> QuietWindow:
        """Return the window between two times of day. It passes midnight unless `end` is after `start`."""
        since, until = (at.hour * 60 + at.minute for at in (start, end))
        return cls(since, until if until > since else until + ONE_DAY)

    def end_after(self, minute: int) -> int | None:
        """Return when the quiet hours that apply at a minute of the day end, or None if none apply."""
        if self.start <= minute < self.end:
            return self.end
        return self.end - ONE_DAY if minute + ONE_DAY < self.end else None

    def end_on_next_day(self, minute: int) -> int | None:
        """Return when the quiet hours that apply at a minute of the next day end, in minutes of that day."""
        return self.end - ONE_DAY if minute + ONE_DAY < self.end else None

    def __str__(self) -> str:
        if self.end - self.start == ONE_DAY:
            return "all day"
        return f"{_clock(self.start)}-{_clock(self.end)}" if self != NO_WINDOW else "none"


def _clock(minute: int) -> str:
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}"


NO_WINDOW: Final = QuietWindow(0, 0)
ALL_DAY: Final = QuietWindow(0, ONE_DAY)
NIGHT: Final = QuietWindow.between(time(20), time(8))
"""The quiet hours of every channel and day that the file does not name."""


@dataclass(frozen=True)
class QuietHours:
    """When no message is sent, by day, in the recipient's local time."""

    week: tuple[QuietWindow, ...]
    """Seven windows, Monday's first."""
    holidays: QuietWindow | None = None
    """The window of public holidays in the recipient's country. None: that of the day of the week."""
    setting: str = "messaging.quiet_hours"
    """The key of the file that defines them."""

    @cached_property
    def is_daily(self) -> bool:
        """True if all days have the same window."""
        return self.holidays is None and len(set(self.week)) == 1

    @cached_property
    def is_empty(self) -> bool:
        """True if a message can be sent at any time."""
        return set(self.week) == {NO_WINDOW} and self.holidays in (None, NO_WINDOW)


def every_day(window: QuietWindow, setting: str = "messaging.quiet_hours") -> Mapping[Channel, QuietHours]:
    """Return quiet hours that are the same for every channel and on every day of the week."""
    return dict.fromkeys(CHANNELS, QuietHours((window,) * len(DAYS), setting=setting))
