"""Quiet hours: the first instant at which every time zone allows a message, across both DST changes."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.area_codes import US_STATE_TIME_ZONES
from bridge.policy import NEVER, quiet_hours_end
from bridge.policy.quiet_hours import is_quiet, next_quiet_hours_start
from bridge.rules.model import QuietHours

NIGHT = QuietHours(time(20), time(8))
NEW_YORK = ZoneInfo("America/New_York")


def local(text: str, zone: str = "America/New_York") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-02T19:59:59", None),
        ("2026-03-02T20:00:00", "2026-03-03T08:00"),
        ("2026-03-03T00:00:00", "2026-03-03T08:00"),
        ("2026-03-03T07:59:59", "2026-03-03T08:00"),
        ("2026-03-03T08:00:00", None),
    ],
)
def test_window_includes_start_and_excludes_end(now, until):
    expected = local(until) if until else None
    assert quiet_hours_end(local(now), ["America/New_York"], [NIGHT]) == expected


def test_night_of_spring_dst_change_is_one_hour_shorter():
    start = local("2026-03-07T20:00")
    assert quiet_hours_end(start, ["America/New_York"], [NIGHT]) == start + timedelta(hours=11)


def test_night_of_autumn_dst_change_is_one_hour_longer():
    start = local("2026-10-31T20:00")
    assert quiet_hours_end(start, ["America/New_York"], [NIGHT]) == start + timedelta(hours=13)


def test_skipped_end_time_ends_at_dst_change():
    window = QuietHours(time(22), time(2, 30))
    end = quiet_hours_end(local("2026-03-08T01:00"), ["America/New_York"], [window])
    assert end == datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert end.astimezone(NEW_YORK).time() == time(3)


def test_repeated_hour_is_quiet_twice():
    window = QuietHours(time(22), time(1, 30))
    first_end = quiet_hours_end(local("2026-11-01T00:00"), ["America/New_York"], [window])
    assert first_end == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    second_pass = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    assert second_pass.astimezone(NEW_YORK).time() == time(1, 10)
    assert quiet_hours_end(second_pass, ["America/New_York"], [window]) == datetime(
        2026, 11, 1, 6, 30, tzinfo=UTC
    )


def test_window_inside_skipped_hour_is_ignored_that_day():
    window = QuietHours(time(2, 10), time(2, 50))
    assert quiet_hours_end(local("2026-03-08T01:59"), ["America/New_York"], [window]) is None
    assert quiet_hours_end(datetime(2026, 3, 8, 7, 15, tzinfo=UTC), ["America/New_York"], [window]) is None


def test_skipped_single_allowed_minute_defers_by_one_day():
    window = QuietHours(time(2, 31), time(2, 30))
    end = quiet_hours_end(local("2026-03-07T02:31"), ["America/New_York"], [window])
    assert end == local("2026-03-09T02:30")


def test_us_number_without_known_area_waits_for_hawaii():
    end = quiet_hours_end(local("2026-01-15T09:00"), US_STATE_TIME_ZONES, [NIGHT])
    assert end == local("2026-01-15T08:00", "Pacific/Honolulu") == local("2026-01-15T13:00")


def test_region_window_and_general_window_both_apply():
    strict = QuietHours(time(17), time(10))
    assert quiet_hours_end(local("2026-01-15T08:30"), ["America/New_York"], [NIGHT, strict]) == local(
        "2026-01-15T10:00"
    )


def test_equal_start_and_end_is_an_empty_window():
    assert (
        quiet_hours_end(local("2026-01-15T08:00"), US_STATE_TIME_ZONES, [QuietHours(time(8), time(8))])
        is None
    )


def test_zones_too_far_apart_return_never():
    two_hours_a_day = QuietHours(time(12), time(10))
    zones = ["America/New_York", "Pacific/Honolulu"]
    assert quiet_hours_end(local("2026-01-15T10:30"), zones, [two_hours_a_day]) is NEVER


ZONES = [
    *US_STATE_TIME_ZONES,
    "Europe/Helsinki",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Apia",
]
minutes = st.integers(0, 24 * 60 - 1).map(lambda minute: time(minute // 60, minute % 60))
DST_CHANGES = [
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
]
instants = st.one_of(
    st.integers(0, 40 * 365 * 1440).map(
        lambda minute: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    ),
    st.builds(
        lambda change, minute: change + timedelta(minutes=minute),
        st.sampled_from(DST_CHANGES),
        st.integers(-50 * 60, 50 * 60),
    ),
)


def is_allowed(instant, zones, windows):
    return not any(
        is_quiet(window, instant.astimezone(ZoneInfo(zone)).time()) for zone in zones for window in windows
    )


@given(
    now=instants,
    zones=st.lists(st.sampled_from(ZONES), min_size=1, max_size=3, unique=True),
    windows=st.lists(st.builds(QuietHours, minutes, minutes), min_size=1, max_size=2),
)
def test_quiet_hours_end_is_first_minute_that_every_zone_allows(now, zones, windows):
    end = quiet_hours_end(now, zones, windows)
    expected = next(
        (
            later
            for minute in range(48 * 60 + 1)
            if is_allowed(later := now + timedelta(minutes=minute), zones, windows)
        ),
        None,
    )
    assert end == (None if expected == now else NEVER if expected is None else expected)


@pytest.mark.parametrize(
    ("now", "zones", "expected"),
    [
        ("2026-03-02T19:30-05:00", ["America/New_York"], "2026-03-02T20:00-05:00"),
        ("2026-03-02T20:00-05:00", ["America/New_York"], "2026-03-03T20:00-05:00"),
        ("2026-03-02T12:00-05:00", ["America/New_York", "America/Los_Angeles"], "2026-03-02T20:00-05:00"),
        ("2026-03-07T22:00-05:00", ["America/New_York"], "2026-03-08T20:00-04:00"),
    ],
)
def test_next_quiet_hours_start_is_earliest_of_all_zones(now: str, zones: list[str], expected: str) -> None:
    start = next_quiet_hours_start(datetime.fromisoformat(now), zones, [QuietHours(time(20), time(8))])
    assert start == datetime.fromisoformat(expected)


def test_next_quiet_hours_start_without_window_is_none() -> None:
    assert (
        next_quiet_hours_start(datetime(2026, 3, 2, tzinfo=UTC), ["Etc/UTC"], [QuietHours(time(0), time(0))])
        is None
    )
