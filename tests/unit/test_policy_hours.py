"""Quiet hours: the first instant at which every time zone allows a message, across both DST changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.area_codes import US_STATE_TIME_ZONES
from bridge.policy.public_holidays import holidays_of
from bridge.policy.quiet_hours import NEVER, Calendar, quiet_hours_end, quiet_hours_start, quiet_period
from bridge.rules.parse_quiet_hours import is_always_quiet
from bridge.rules.quiet_hours import ALL_DAY, NIGHT, NO_WINDOW, QuietHours, QuietWindow

OFFICE = QuietWindow.between(time(17), time(9))
WORKING_DAYS = QuietHours((OFFICE,) * 5 + (ALL_DAY, ALL_DAY), ALL_DAY, "messaging.quiet_hours.sms")
NEW_YORK = ZoneInfo("America/New_York")


def window(start: time, end: time) -> QuietWindow:
    return QuietWindow.between(start, end)


def calendar(zones: Sequence[str], *windows: QuietWindow) -> Calendar:
    return Calendar(zones, [QuietHours((window,) * 7) for window in windows])


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
    assert quiet_hours_end(calendar(["America/New_York"], NIGHT), local(now)) == expected


def test_night_of_spring_dst_change_is_one_hour_shorter():
    start = local("2026-03-07T20:00")
    assert quiet_hours_end(calendar(["America/New_York"], NIGHT), start) == start + timedelta(hours=11)


def test_night_of_autumn_dst_change_is_one_hour_longer():
    start = local("2026-10-31T20:00")
    assert quiet_hours_end(calendar(["America/New_York"], NIGHT), start) == start + timedelta(hours=13)


def test_skipped_end_time_ends_at_dst_change():
    hours = window(time(22), time(2, 30))
    end = quiet_hours_end(calendar(["America/New_York"], hours), local("2026-03-08T01:00"))
    assert end == datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert end.astimezone(NEW_YORK).time() == time(3)


def test_repeated_hour_is_quiet_twice():
    hours = window(time(22), time(1, 30))
    first_end = quiet_hours_end(calendar(["America/New_York"], hours), local("2026-11-01T00:00"))
    assert first_end == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    second_pass = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    assert second_pass.astimezone(NEW_YORK).time() == time(1, 10)
    assert quiet_hours_end(calendar(["America/New_York"], hours), second_pass) == datetime(
        2026, 11, 1, 6, 30, tzinfo=UTC
    )


def test_window_inside_skipped_hour_is_ignored_that_day():
    hours = window(time(2, 10), time(2, 50))
    assert quiet_hours_end(calendar(["America/New_York"], hours), local("2026-03-08T01:59")) is None
    assert (
        quiet_hours_end(calendar(["America/New_York"], hours), datetime(2026, 3, 8, 7, 15, tzinfo=UTC))
        is None
    )


def test_skipped_single_allowed_minute_defers_by_one_day():
    hours = window(time(2, 31), time(2, 30))
    end = quiet_hours_end(calendar(["America/New_York"], hours), local("2026-03-07T02:31"))
    assert end == local("2026-03-09T02:30")


def test_us_number_without_known_area_waits_for_hawaii():
    end = quiet_hours_end(calendar(US_STATE_TIME_ZONES, NIGHT), local("2026-01-15T09:00"))
    assert end == local("2026-01-15T08:00", "Pacific/Honolulu") == local("2026-01-15T13:00")


def test_region_window_and_general_window_both_apply():
    strict = window(time(17), time(10))
    assert quiet_hours_end(calendar(["America/New_York"], NIGHT, strict), local("2026-01-15T08:30")) == local(
        "2026-01-15T10:00"
    )


def test_none_is_never_quiet():
    assert quiet_hours_end(calendar(US_STATE_TIME_ZONES, NO_WINDOW), local("2026-01-15T08:00")) is None


def test_zones_too_far_apart_return_never():
    two_hours_a_day = window(time(12), time(10))
    zones = ["America/New_York", "Pacific/Honolulu"]
    assert quiet_hours_end(calendar(zones, two_hours_a_day), local("2026-01-15T10:30")) is NEVER


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-02T00:30", "2026-03-02T09:00"),  # Monday morning, after a quiet Sunday
        ("2026-03-02T09:00", None),
        ("2026-03-02T16:59", None),
        ("2026-03-02T17:00", "2026-03-03T09:00"),
        ("2026-03-06T17:00", "2026-03-09T09:00"),  # Friday evening, over the weekend with the DST change
        ("2026-05-25T12:00", "2026-05-26T09:00"),  # Memorial Day
        ("2026-07-02T18:00", "2026-07-06T09:00"),  # Independence Day is observed on Friday
    ],
)
def test_messages_wait_for_the_next_working_hour(now: str, until: str | None) -> None:
    working = Calendar(["America/New_York"], [WORKING_DAYS], holidays_of("US"))
    assert quiet_hours_end(working, local(now)) == (local(until) if until else None)


def test_window_that_passes_midnight_ends_on_the_next_day_whatever_its_own_window() -> None:
    open_weekend = QuietHours((OFFICE,) * 5 + (NO_WINDOW, NO_WINDOW))
    weekend = Calendar(["America/New_York"], [open_weekend])
    assert quiet_hours_end(weekend, local("2026-03-06T17:00")) == local("2026-03-07T09:00")
    assert quiet_hours_end(weekend, local("2026-03-08T23:00")) is None
    period = quiet_period(weekend, local("2026-03-07T08:12"))
    assert str(period) == "messaging.quiet_hours fri: 17:00-09:00; it is Sat 08:12 in America/New_York"


def test_holidays_keep_the_hours_of_their_weekday_unless_they_are_named() -> None:
    every_weekday = Calendar(["America/New_York"], [QuietHours((OFFICE,) * 7)], holidays_of("US"))
    assert quiet_hours_end(every_weekday, local("2026-05-25T12:00")) is None


def test_holidays_are_those_of_the_country_and_the_state() -> None:
    day_after_thanksgiving = local("2026-11-27T12:00", "America/Los_Angeles")
    zones = ["America/Los_Angeles"]
    assert quiet_hours_end(Calendar(zones, [WORKING_DAYS], holidays_of("US")), day_after_thanksgiving) is None
    california = Calendar(zones, [WORKING_DAYS], holidays_of("US", "CA"))
    assert str(quiet_period(california, day_after_thanksgiving)) == (
        "messaging.quiet_hours.sms holidays: all day (Day After Thanksgiving); it is Fri 12:00 in America/Los_Angeles"
    )
    epiphany = local("2026-01-06T12:00", "Europe/Helsinki")
    assert quiet_hours_end(
        Calendar(["Europe/Helsinki"], [WORKING_DAYS], holidays_of("FI")), epiphany
    ) == local("2026-01-07T09:00", "Europe/Helsinki")


@pytest.mark.parametrize("country", [None, "TA", "ZZ"])
def test_holidays_of_unknown_country_are_not_known(country: str | None) -> None:
    assert holidays_of(country) is None


def test_christmas_and_new_year_do_not_exceed_the_search() -> None:
    mondays = QuietHours((OFFICE,) + (ALL_DAY,) * 6, ALL_DAY)
    end = quiet_hours_end(
        Calendar(["America/New_York"], [mondays], holidays_of("US")), local("2028-12-18T17:00")
    )
    assert end == local("2029-01-08T09:00")


ZONES = [
    *US_STATE_TIME_ZONES,
    "Europe/Helsinki",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Apia",
]
minutes = st.integers(0, 24 * 60 - 1).map(lambda minute: time(minute // 60, minute % 60))
windows = st.one_of(st.sampled_from([NO_WINDOW, ALL_DAY, NIGHT, OFFICE]), st.builds(window, minutes, minutes))
weeks = st.one_of(windows.map(lambda item: (item,) * 7), st.tuples(*[windows] * 7))
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
calendars = st.builds(
    Calendar,
    st.lists(st.sampled_from(ZONES), min_size=1, max_size=3, unique=True),
    st.lists(st.builds(QuietHours, weeks, st.none() | windows), min_size=1, max_size=2),
    st.sampled_from([None, holidays_of("US", "CA"), lambda day: "Payday" if day.day in (1, 8, 15) else None]),
)


def is_quiet(calendar: Calendar, hours: QuietHours, now: datetime) -> bool:
    """Decide from the definition: count the minutes of the local day and of the day before."""
    for days_ago in (0, 1):
        day = now.date() - timedelta(days=days_ago)
        is_holiday = hours.holidays is not None and calendar.holidays is not None and calendar.holidays(day)
        hours_of_day = hours.holidays if is_holiday else hours.week[day.weekday()]
        minute = now.hour * 60 + now.minute + days_ago * 1440
        if hours_of_day.start <= minute < hours_of_day.end:
            return True
        if days_ago == 0 and minute + 1440 < hours_of_day.end:  # the early morning of its own day
            return True
    return False


def is_allowed(calendar: Calendar, instant: datetime) -> bool:
    return not any(
        is_quiet(calendar, hours, instant.astimezone(ZoneInfo(zone)))
        for zone in calendar.zones
        for hours in calendar.hours
    )


def first_minute(now: datetime, days: int, condition: Callable[[datetime], bool]) -> datetime | None:
    minutes_from_now = (now + timedelta(minutes=minute) for minute in range(days * 1440 + 1))
    return next((instant for instant in minutes_from_now if condition(instant)), None)


@given(calendar=calendars, now=instants)
def test_quiet_hours_end_is_first_minute_that_every_zone_allows(calendar: Calendar, now: datetime) -> None:
    end = quiet_hours_end(calendar, now)
    days = 2 if all(hours.is_daily for hours in calendar.hours) else 6
    expected = first_minute(now, days, lambda instant: is_allowed(calendar, instant))
    if expected is not None:
        assert end == (None if expected == now else expected)
    else:
        assert end is not None
        assert end is NEVER or (end > now + timedelta(days=days) and is_allowed(calendar, end))
    assert (quiet_period(calendar, now) is None) == (end is None)


@given(calendar=calendars, now=instants)
def test_quiet_hours_start_is_first_minute_that_one_zone_does_not_allow(
    calendar: Calendar, now: datetime
) -> None:
    assume(is_allowed(calendar, now))
    start = quiet_hours_start(calendar, now)
    expected = first_minute(now, 8, lambda instant: not is_allowed(calendar, instant))
    assert start == expected or (expected is None and start > now + timedelta(days=8))


@pytest.mark.parametrize(
    ("now", "zones", "expected"),
    [
        ("2026-03-02T19:30-05:00", ["America/New_York"], "2026-03-02T20:00-05:00"),
        ("2026-03-02T12:00-05:00", ["America/New_York", "America/Los_Angeles"], "2026-03-02T20:00-05:00"),
        ("2026-03-08T01:30-05:00", ["Europe/London"], "2026-03-08T20:00+00:00"),
    ],
)
def test_quiet_hours_start_is_earliest_of_all_zones(now: str, zones: list[str], expected: str) -> None:
    start = quiet_hours_start(calendar(zones, NIGHT), datetime.fromisoformat(now))
    assert start == datetime.fromisoformat(expected)


def test_quiet_hours_start_without_window_is_none() -> None:
    assert quiet_hours_start(calendar(["Etc/UTC"], NO_WINDOW), datetime(2026, 3, 2, tzinfo=UTC)) is None


@given(st.lists(st.builds(QuietHours, weeks), min_size=1, max_size=2))
def test_always_quiet_means_that_no_minute_of_the_week_is_allowed(hours: list[QuietHours]) -> None:
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    utc = Calendar(["Etc/UTC"], hours)
    allowed = first_minute(monday, 7, lambda instant: is_allowed(utc, instant))
    assert is_always_quiet(hours) == (allowed is None)
