"""The text of times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bridge.clock import format_duration, format_timestamp
from bridge.setting_types import parse_duration
from bridge.settings import local_url


@pytest.mark.parametrize("text", ["0s", "90s", "1h30m", "24h", "36h", "7d", "30d"])
def test_formatted_duration_is_a_valid_setting(text: str) -> None:
    duration = parse_duration(text)
    assert parse_duration(format_duration(duration)) == duration


def test_one_day_is_24_hours() -> None:
    assert [format_duration(timedelta(days=days)) for days in (1, 2)] == ["24h", "2d"]


def test_timestamp_is_formatted_in_utc() -> None:
    local = datetime(2026, 3, 2, 16, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert format_timestamp(local) == format_timestamp(local.astimezone(UTC)) == "2026-03-02 21:30:00"
    assert format_timestamp(None) == ""


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("bridge.example.com", "http://bridge.example.com:80"),
    ],
)
def test_local_url_of_a_wildcard_address_is_loopback(host: str, url: str) -> None:
    assert local_url(host, 80) == url
