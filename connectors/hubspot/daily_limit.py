"""The account's daily limit of requests, which HubSpot resets at midnight in the account's time zone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge.connector import report_quota
from bridge.errors import QuotaExhausted

_NEARLY_USED_UP = 0.02
"""Fraction of the limit that is left when the time zone is read: once the limit is reached, HubSpot tells nothing."""


class DailyLimit:
    """Knows when the limit is reset, at the price of one request shortly before it is reached."""

    def __init__(self) -> None:
        self._zone: ZoneInfo | None = None
        self._is_read = False

    def observe(self, headers: Mapping[str, str], read_account: Callable[[], bytes]) -> None:
        """Take note of a response. If few requests are left, read the account, whose JSON has its time zone."""
        limit = headers.get("X-HubSpot-RateLimit-Daily", "")
        remaining = headers.get("X-HubSpot-RateLimit-Daily-Remaining", "")
        if not (limit.isdecimal() and remaining.isdecimal()):
            return
        report_quota(int(limit) - int(remaining), int(limit))
        if not self._is_read and int(remaining) <= int(limit) * _NEARLY_USED_UP:
            self._is_read = True
            self._zone = _zone_of(read_account())

    def exhausted(self, now: datetime) -> QuotaExhausted:
        """Return the error for a request over the limit."""
        return QuotaExhausted(
            "HubSpot's daily limit is used up; it is reset at midnight in the account's time zone",
            until=_next_midnight(now, self._zone) if self._zone else None,
        )


def is_daily_limit(status: int, body: bytes) -> bool:
    """Return whether a response says that the daily limit is used up."""
    return status == 429 and b'"DAILY"' in body


def _next_midnight(now: datetime, zone: ZoneInfo) -> datetime:
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), zone).astimezone(UTC)


def _zone_of(account: bytes) -> ZoneInfo | None:
    try:
        return ZoneInfo(str(json.loads(account)["timeZone"]))
    except (ValueError, KeyError, TypeError, ZoneInfoNotFoundError):
        return None
