"""Time zones: only one that says where a person lives counts."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contacts.parse import parse_contact
from bridge.contacts.time_zone import normalize_time_zone, residence_time_zone

ZONES_OF_COUNTRIES = {
    line.split("\t")[2]
    for line in (resources.files("tzdata") / "zoneinfo" / "zone.tab").read_text("utf-8").splitlines()
    if not line.startswith("#")
}
NO_PLACE = [
    "UTC",
    "UCT",
    "GMT",
    "GMT0",
    "GMT+0",
    "GMT-0",
    "Greenwich",
    "Universal",
    "Zulu",
    "Factory",
    "localtime",
    "posixrules",
    "EST",
    "MST",
    "HST",
    "EST5EDT",
    "CST6CDT",
    "MST7MDT",
    "PST8PDT",
    "CET",
    "MET",
    "EET",
    "WET",
    "Etc/UTC",
    "Etc/GMT",
    "Etc/GMT+5",
    "Etc/GMT-14",
    "Etc/Universal",
    "Etc/Zulu",
    "Etc/Unknown",
    "posix/America/New_York",
    "right/America/New_York",
    "PST",
    "EDT",
    "BST",
    "IST",
    "JST",
    "America",
    "Mars/Olympus",
    "../etc/passwd",
]


@pytest.mark.parametrize("name", NO_PLACE)
def test_zone_of_no_place_is_unknown(name: str) -> None:
    assert [residence_time_zone(spelling) for spelling in (name, name.lower(), f" {name.upper()} ")] == [
        None
    ] * 3


@pytest.mark.parametrize("value", [None, "", " ", "x" * 65, 5, True, ["Europe/Berlin"], "+02:00", "-5"])
def test_value_that_is_no_name_is_unknown(value: object) -> None:
    assert residence_time_zone(value) is None


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("america/new_york", "America/New_York"),
        ("AMERICA/NEW YORK", "America/New_York"),
        (" us/eastern ", "US/Eastern"),
        ("Asia/Calcutta", "Asia/Calcutta"),
        ("america/port-au-prince", "America/Port-au-Prince"),
        ("Singapore", "Singapore"),
        ("gb-eire", "GB-Eire"),
    ],
)
def test_zone_of_a_place_is_read_in_any_case(value: str, name: str) -> None:
    assert residence_time_zone(value) == name


def test_every_zone_of_a_country_counts() -> None:
    assert {residence_time_zone(name) for name in ZONES_OF_COUNTRIES} == ZONES_OF_COUNTRIES


@given(
    st.sampled_from(sorted(available_timezones())), st.sampled_from((str, str.lower, str.upper, str.title))
)
def test_every_zone_has_a_place_or_is_unknown(name: str, spell: Callable[[str], str]) -> None:
    assert normalize_time_zone(name) == name
    residence = residence_time_zone(spell(name))
    if residence is None:
        assert name not in ZONES_OF_COUNTRIES
        return
    assert residence == name
    assert "/" in name or not name.isupper() or name in {"GB", "NZ", "W-SU", "NZ-CHAT"}


def test_contact_takes_the_first_zone_that_says_where_they_live() -> None:
    parsed = parse_contact(
        {"callMetadata": {"timezone": "UTC"}, "metadata": {"timezone": "europe/berlin"}},
    )
    assert (parsed.contact.time_zone, parsed.unreadable) == ("Europe/Berlin", ())


@pytest.mark.parametrize("value", ["Etc/UTC", "CET", "Mars/Olympus", 3600, {"name": "Europe/Berlin"}])
def test_zone_that_is_not_understood_is_reported_with_its_path(value: object) -> None:
    parsed = parse_contact(
        {"callMetadata": {"context": {"timezone": value}}, "metadata": {"timezone": "UTC"}}
    )
    assert parsed.contact.time_zone is None
    [field] = parsed.unreadable
    assert (field.field, field.path) == ("time_zone", "callMetadata.context.timezone")
    assert "America/New_York" in field.hint
    assert str(value) not in field.text


@pytest.mark.parametrize("value", [None, "", "  "])
def test_missing_zone_is_not_reported(value: object) -> None:
    assert parse_contact({"metadata": {"timezone": value}}).unreadable == ()
