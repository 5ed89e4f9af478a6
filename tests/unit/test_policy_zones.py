"""Where a person may be: the event's word, else everything that the number allows."""

from __future__ import annotations

import subprocess
import sys
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.area_codes import FIFTY_STATES, STATE_OF, STATES, known_regions
from bridge.events import Contact
from bridge.policy import regions_of, zones_of
from bridge.policy.zones import _area_zones

FALLBACK = "Europe/Oslo"


def zones(phone: str | None, **contact: str) -> set[str]:
    return set(zones_of(Contact(phone=phone, **contact), phone, FALLBACK))


def test_what_the_event_says_of_its_person_counts():
    assert zones("+12125550123", time_zone="America/Los_Angeles") == {"America/Los_Angeles"}


def test_the_area_code_tells_the_zone():
    assert zones("+12125550123") == {"America/New_York"}
    assert zones("+14155550188") == {"America/Los_Angeles"}


def test_an_area_code_on_a_border_of_zones_means_both():
    assert zones("+18504325555") == {"America/New_York", "America/Chicago"}
    assert zones("+12083845555") == {"America/Denver", "America/Boise", "America/Los_Angeles"}


@pytest.mark.parametrize(
    "phone",
    [
        pytest.param("+15555550123", id="no such area"),
        pytest.param("+18005550123", id="toll-free"),
        pytest.param("+15005550006", id="personal"),
        pytest.param("+1212555", id="too short to trust its area"),
    ],
)
def test_an_american_number_of_unknown_area_may_be_in_any_of_the_fifty_states(phone):
    assert zones(phone) == set(FIFTY_STATES)


def test_other_countries_mean_all_zones_that_the_number_allows():
    assert zones("+61212345678") == {"Australia/Sydney"}
    assert {"Australia/Perth", "Australia/Sydney"} <= zones("+61412345678")
    assert "Europe/Helsinki" in zones("+358401234567")
    assert {"Europe/Moscow", "Asia/Vladivostok"} <= zones("+72025550147")


@pytest.mark.parametrize("phone", [None, "+999123456", "+88216123456"])
def test_nothing_known_means_the_fallback(phone):
    assert zones(phone) == {FALLBACK}


def test_a_mail_is_judged_by_its_persons_number():
    person = Contact(phone="+14155550188", email="Maya@example.com")
    assert zones_of(person, "maya@example.com", FALLBACK) == ("America/Los_Angeles",)
    assert zones_of(Contact(email="maya@example.com"), "maya@example.com", FALLBACK) == (FALLBACK,)


def test_what_the_event_says_does_not_move_somebody_elses_number():
    person = Contact(phone="+14155550188", time_zone="Pacific/Honolulu")
    assert set(zones_of(person, "+12125550123", FALLBACK)) == {"Pacific/Honolulu", "America/New_York"}


def test_what_a_crm_knows_counts_where_the_event_says_nothing():
    person = Contact(phone="+14155550188")
    assert zones_of(person, person.phone, FALLBACK, "America/Chicago") == ("America/Chicago",)
    said = Contact(phone="+14155550188", time_zone="Pacific/Honolulu")
    assert zones_of(said, said.phone, FALLBACK, "America/Chicago") == ("Pacific/Honolulu",)
    assert zones_of(said, "+12125550123", FALLBACK, "America/Chicago") == (
        "Pacific/Honolulu",
        "America/Chicago",
    )


def test_regions_are_the_country_and_the_state():
    def regions(phone):
        return regions_of(Contact(), phone)

    assert regions("+13055550100") == {"US", "US-FL"}
    assert regions("+358401234567") == {"FI", "AX"}
    assert regions("+14165550100") == {"CA"}
    assert {"US", "US-FL", "US-WA"} <= regions("+18005550123")
    assert regions("+88216123456") == regions("someone@example.com") == frozenset()
    assert {"US-FL", "FI", "US"} <= known_regions()


def test_a_floridian_number_keeps_floridas_hours_when_the_event_says_another_zone():
    assert "US-FL" in regions_of(Contact(phone="+13055550100", time_zone="America/Denver"), "+13055550100")


def test_the_table_of_states_agrees_with_the_number_plan():
    from phonenumbers import parse, region_code_for_number

    for area in STATE_OF:
        if area in _area_zones():
            assert region_code_for_number(parse(f"+1{area}2345678")) == "US", area
    assert len(STATES) == 51
    assert sum(len(areas.split()) for areas in STATES.values()) == len(STATE_OF)
    floridas = {zone for area in STATES["FL"].split() for zone in _area_zones().get(area, ())}
    assert floridas == {"America/New_York", "America/Chicago"}


def test_every_american_clock_keeps_the_time_of_one_of_the_eight():
    from datetime import UTC, datetime, timedelta

    def year(zone):
        start = datetime(2026, 1, 1, tzinfo=UTC)
        return tuple(
            (start + timedelta(days=day)).astimezone(ZoneInfo(zone)).utcoffset() for day in range(0, 365, 5)
        )

    eight = {year(zone) for zone in FIFTY_STATES}
    lived_by = {zone for area in STATE_OF for zone in _area_zones().get(area, ())}
    assert lived_by
    assert {year(zone) for zone in lived_by} <= eight


@given(st.from_regex(r"\+[1-9]\d{1,14}", fullmatch=True))
def test_every_number_has_zones_that_exist(phone):
    found = zones_of(Contact(phone=phone), phone, FALLBACK)
    assert found
    for zone in found:
        ZoneInfo(zone)
    assert regions_of(Contact(phone=phone), phone) <= known_regions()


def test_the_table_of_zones_is_not_loaded_before_it_is_needed():
    code = "import sys, bridge.policy; assert 'phonenumbers.tzdata' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
