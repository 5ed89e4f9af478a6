"""Time zones and regions of a recipient: from the event or a CRM, or else every zone that the number allows."""

from __future__ import annotations

import subprocess
import sys
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.area_codes import STATE_BY_AREA_CODE, STATES, US_STATE_TIME_ZONES, known_regions
from bridge.contacts.parse import Contact
from bridge.policy import regions_of, zones_of
from bridge.policy.zones import _area_zones

FALLBACK = "Europe/Oslo"


def zones(phone: str | None, **contact: str) -> set[str]:
    return set(zones_of(Contact(phone=phone, **contact), phone, FALLBACK))


def test_event_time_zone_is_used():
    assert zones("+12125550123", time_zone="America/Los_Angeles") == {"America/Los_Angeles"}


def test_area_code_gives_time_zone():
    assert zones("+12125550123") == {"America/New_York"}
    assert zones("+14155550188") == {"America/Los_Angeles"}


def test_area_code_spanning_zones_gives_all_of_them():
    assert zones("+18504325555") == {"America/New_York", "America/Chicago"}
    assert zones("+12083845555") == {"America/Denver", "America/Boise", "America/Los_Angeles"}


@pytest.mark.parametrize(
    "phone",
    [
        pytest.param("+15555550123", id="unassigned area code"),
        pytest.param("+18005550123", id="toll-free"),
        pytest.param("+15005550006", id="personal"),
        pytest.param("+1212555", id="too short for an area code"),
    ],
)
def test_us_number_without_known_area_gives_zones_of_all_states(phone):
    assert zones(phone) == set(US_STATE_TIME_ZONES)


def test_foreign_number_gives_all_zones_it_allows():
    assert zones("+61212345678") == {"Australia/Sydney"}
    assert {"Australia/Perth", "Australia/Sydney"} <= zones("+61412345678")
    assert "Europe/Helsinki" in zones("+358401234567")
    assert {"Europe/Moscow", "Asia/Vladivostok"} <= zones("+72025550147")


@pytest.mark.parametrize("phone", [None, "+999123456", "+88216123456"])
def test_unknown_number_gives_fallback(phone):
    assert zones(phone) == {FALLBACK}


def test_email_uses_contacts_phone_number():
    contact = Contact(phone="+14155550188", email="Maya@example.com")
    assert zones_of(contact, "maya@example.com", FALLBACK) == ("America/Los_Angeles",)
    assert zones_of(Contact(email="maya@example.com"), "maya@example.com", FALLBACK) == (FALLBACK,)


def test_event_time_zone_is_only_added_for_other_recipients():
    contact = Contact(phone="+14155550188", time_zone="Pacific/Honolulu")
    assert set(zones_of(contact, "+12125550123", FALLBACK)) == {"Pacific/Honolulu", "America/New_York"}


def test_crm_time_zone_is_used_if_event_has_none():
    contact = Contact(phone="+14155550188")
    assert zones_of(contact, contact.phone, FALLBACK, "America/Chicago") == ("America/Chicago",)
    with_event_zone = Contact(phone="+14155550188", time_zone="Pacific/Honolulu")
    assert zones_of(with_event_zone, with_event_zone.phone, FALLBACK, "America/Chicago") == (
        "Pacific/Honolulu",
    )
    assert zones_of(with_event_zone, "+12125550123", FALLBACK, "America/Chicago") == (
        "Pacific/Honolulu",
        "America/Chicago",
    )


def test_regions_are_country_and_state():
    def regions(phone):
        return regions_of(Contact(), phone)

    assert regions("+13055550100") == {"US", "US-FL"}
    assert regions("+358401234567") == {"FI", "AX"}
    assert regions("+14165550100") == {"CA"}
    assert {"US", "US-FL", "US-WA"} <= regions("+18005550123")
    assert regions("+88216123456") == regions("someone@example.com") == frozenset()
    assert {"US-FL", "FI", "US"} <= known_regions()


def test_florida_number_keeps_region_if_event_time_zone_differs():
    assert "US-FL" in regions_of(Contact(phone="+13055550100", time_zone="America/Denver"), "+13055550100")


def test_state_table_agrees_with_numbering_plan():
    from phonenumbers import parse, region_code_for_number

    for area in STATE_BY_AREA_CODE:
        if area in _area_zones():
            assert region_code_for_number(parse(f"+1{area}2345678")) == "US", area
    assert len(STATES) == 51
    assert sum(len(areas.split()) for areas in STATES.values()) == len(STATE_BY_AREA_CODE)
    floridas = {zone for area in STATES["FL"].split() for zone in _area_zones().get(area, ())}
    assert floridas == {"America/New_York", "America/Chicago"}


def test_every_us_zone_matches_one_of_the_us_state_time_zones():
    from datetime import UTC, datetime, timedelta

    def offsets_of_year(zone):
        start = datetime(2026, 1, 1, tzinfo=UTC)
        return tuple(
            (start + timedelta(days=day)).astimezone(ZoneInfo(zone)).utcoffset() for day in range(0, 365, 5)
        )

    expected = {offsets_of_year(zone) for zone in US_STATE_TIME_ZONES}
    zones_in_use = {zone for area in STATE_BY_AREA_CODE for zone in _area_zones().get(area, ())}
    assert zones_in_use
    assert {offsets_of_year(zone) for zone in zones_in_use} <= expected


@given(st.from_regex(r"\+[1-9]\d{1,14}", fullmatch=True))
def test_every_number_has_valid_zones(phone):
    time_zones = zones_of(Contact(phone=phone), phone, FALLBACK)
    assert time_zones
    for zone in time_zones:
        ZoneInfo(zone)
    assert regions_of(Contact(phone=phone), phone) <= known_regions()


def test_zone_table_is_not_loaded_on_import():
    code = "import sys, bridge.policy; assert 'phonenumbers.tzdata' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
