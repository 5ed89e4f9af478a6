"""Clock: the one clock that the whole bridge reads, so that a test can move it; and the text of times.

Timestamps are aware datetimes in UTC. On PostgreSQL the store adds `shift` to the database's clock: leases of several
hosts use one clock, and a test can still move it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UPTIME_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The system clock, plus a shift that only tests set."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC) + self.shift

    def set(self, timestamp: datetime) -> None:
        """Set the current time to `timestamp`."""
        self.shift = timestamp - datetime.now(UTC)

    def advance(self, **duration: float) -> None:
        """Move the clock forward, with the arguments of `timedelta`: `clock.advance(hours=3)`."""
        self.shift += timedelta(**duration)


class ManualClock(Clock):
    """A clock that stands still until it is moved, for dry runs."""

    def now(self) -> datetime:
        """Return the time to which the clock was moved."""
        return _EPOCH + self.shift

    def set(self, timestamp: datetime) -> None:
        """Set the current time to `timestamp`."""
        self.shift = timestamp - _EPOCH


def uptime() -> float:
    """Return seconds that never run backwards and keep counting while the process or the machine is suspended.

    Deadlines use it: a process that was suspended past its lease must notice. On Linux only CLOCK_BOOTTIME counts the
    time of a suspended machine; other systems offer nothing better than the monotonic clock.
    """
    return time.clock_gettime(_UPTIME_CLOCK)


def format_timestamp(value: datetime | None) -> str:
    """Return a timestamp for people: UTC, to the second. Nothing becomes an empty string."""
    return "" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def parse_timestamp(value: object) -> datetime | None:
    """Return the ISO 8601 timestamp in UTC, or None if it is invalid. Without an offset, UTC is assumed."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        timestamp = datetime.fromisoformat(value.strip())
        return (timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def format_duration(duration: timedelta) -> str:
    """Return a duration as settings and rules write it: `24h`, `7d`, `1h30m`."""
    seconds = int(duration.total_seconds())
    days, rest = divmod(seconds, 86400)
    if days > 1 and rest == 0:
        return f"{days}d"
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
