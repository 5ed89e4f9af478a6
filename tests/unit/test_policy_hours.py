"""Quiet hours: the first instant at which every clock allows a message, over both changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.area_codes import FIFTY_STATES
from bridge.policy import NEVER, quiet_until
from bridge.policy.quiet_hours import is_quiet, quiet_hours_start
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
def test_the_start_is_quiet_and_the_end_is_not(now, until):
    expected = local(until) if until else None
    assert quiet_until(local(now), ["America/New_York"], [NIGHT]) == expected


def test_the_night_in_which_clocks_go_forward_is_an_hour_shorter():
    begin = local("2026-03-07T20:00")
    assert quiet_until(begin, ["America/New_York"], [NIGHT]) == begin + timedelta(hours=11)


def test_the_night_in_which_clocks_go_back_is_an_hour_longer():
    begin = local("2026-10-31T20:00")
    assert quiet_until(begin, ["America/New_York"], [NIGHT]) == begin + timedelta(hours=13)


def test_an_end_that_the_clock_skips_is_the_moment_of_the_change():
    window = QuietHours(time(22), time(2, 30))
    found = quiet_until(local("2026-03-08T01:00"), ["America/New_York"], [window])
    assert found == datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert found.astimezone(NEW_YORK).time() == time(3)


def test_an_hour_that_happens_twice_is_quiet_twice():
    window = QuietHours(time(22), time(1, 30))
    first_end = quiet_until(local("2026-11-01T00:00"), ["America/New_York"], [window])
    assert first_end == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    second_pass = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    assert second_pass.astimezone(NEW_YORK).time() == time(1, 10)
    assert quiet_until(second_pass, ["America/New_York"], [window]) == datetime(
        2026, 11, 1, 6, 30, tzinfo=UTC
    )


def test_a_window_inside_the_skipped_hour_is_never_met_that_day():
    window = QuietHours(time(2, 10), time(2, 50))
    assert quiet_until(local("2026-03-08T01:59"), ["America/New_York"], [window]) is None
    assert quiet_until(datetime(2026, 3, 8, 7, 15, tzinfo=UTC), ["America/New_York"], [window]) is None


def test_a_single_allowed_minute_that_the_clock_skips_comes_a_day_later():
    window = QuietHours(time(2, 31), time(2, 30))
    found = quiet_until(local("2026-03-07T02:31"), ["America/New_York"], [window])
    assert found == local("2026-03-09T02:30")


def test_an_unknown_american_number_waits_for_hawaii():
    found = quiet_until(local("2026-01-15T09:00"), FIFTY_STATES, [NIGHT])
    assert found == local("2026-01-15T08:00", "Pacific/Honolulu") == local("2026-01-15T13:00")


def test_the_regions_window_and_the_general_one_both_hold():
    strict = QuietHours(time(17), time(10))
    assert quiet_until(local("2026-01-15T08:30"), ["America/New_York"], [NIGHT, strict]) == local(
        "2026-01-15T10:00"
    )


def test_equal_ends_are_no_window():
    assert quiet_until(local("2026-01-15T08:00"), FIFTY_STATES, [QuietHours(time(8), time(8))]) is None


def test_zones_too_far_apart_for_the_window_never_allow():
    two_hours_a_day = QuietHours(time(12), time(10))
    zones = ["America/New_York", "Pacific/Honolulu"]
    assert quiet_until(local("2026-01-15T10:30"), zones, [two_hours_a_day]) is NEVER


ZONES = [
    *FIFTY_STATES,
    "Europe/Helsinki",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Apia",
]
minutes = st.integers(0, 24 * 60 - 1).map(lambda minute: time(minute // 60, minute % 60))
CHANGES = [
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
        st.sampled_from(CHANGES),
        st.integers(-50 * 60, 50 * 60),
    ),
)


def allowed(instant, zones, windows):
    return not any(
        is_quiet(window, instant.astimezone(ZoneInfo(zone)).time()) for zone in zones for window in windows
    )


@given(
    now=instants,
    zones=st.lists(st.sampled_from(ZONES), min_size=1, max_size=3, unique=True),
    windows=st.lists(st.builds(QuietHours, minutes, minutes), min_size=1, max_size=2),
)
def test_the_answer_is_the_first_minute_that_every_clock_allows(now, zones, windows):
    found = quiet_until(now, zones, windows)
    first = next(
        (
            later
            for minute in range(48 * 60 + 1)
            if allowed(later := now + timedelta(minutes=minute), zones, windows)
        ),
        None,
    )
    assert found == (None if first == now else NEVER if first is None else first)


@pytest.mark.parametrize(
    ("now", "zones", "begins"),
    [
        ("2026-03-02T19:30-05:00", ["America/New_York"], "2026-03-02T20:00-05:00"),
        ("2026-03-02T20:00-05:00", ["America/New_York"], "2026-03-03T20:00-05:00"),
        ("2026-03-02T12:00-05:00", ["America/New_York", "America/Los_Angeles"], "2026-03-02T20:00-05:00"),
        ("2026-03-07T22:00-05:00", ["America/New_York"], "2026-03-08T20:00-04:00"),
    ],
)
def test_the_next_quiet_hours_begin_when_the_first_clock_says_so(
    now: str, zones: list[str], begins: str
) -> None:
    found = quiet_hours_start(datetime.fromisoformat(now), zones, [QuietHours(time(20), time(8))])
    assert found == datetime.fromisoformat(begins)


def test_without_a_window_no_quiet_hours_begin() -> None:
    assert (
        quiet_hours_start(datetime(2026, 3, 2, tzinfo=UTC), ["Etc/UTC"], [QuietHours(time(0), time(0))])
        is None
    )
