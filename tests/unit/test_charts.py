"""Charts, times and labels of the dashboard."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import pytest

from bridge.connector import MessageStatus
from bridge.lifecycle import DeliveryState, PauseCause
from bridge.web.charts import HEIGHT, ChartSeries, StripCell, stacked_columns, strip
from bridge.web.labels import CONNECTION_STATES, MESSAGE_STATUSES, STATES, action_label, state_label
from bridge.web.times import exact_time, relative_time

START = datetime(2026, 3, 2, 21, tzinfo=UTC)
HOURS = [START + timedelta(hours=hour) for hour in range(3)]


def chart(*values: tuple[int, int, int], slots: list[datetime] = HOURS) -> ET.Element:
    series = [
        ChartSeries(name, css_class, numbers)
        for name, css_class, numbers in zip(("Succeeded", "Failed"), ("good", "bad"), values, strict=True)
    ]
    return ET.fromstring(stacked_columns(slots, series, "Deliveries per hour"))


def test_columns_are_stacked_from_the_bottom() -> None:
    figure = chart((4, 0, 2), (1, 0, 8))
    bars = [
        (bar.get("class"), float(bar.get("y", 0)), float(bar.get("height", 0))) for bar in figure.iter("rect")
    ]
    assert bars == [
        ("good", 120.0, 80.0), ("bad", 100.0, 20.0), ("good", 160.0, 40.0), ("bad", 0.0, 160.0),
    ]  # fmt: skip
    assert max(y + height for _, y, height in bars) == HEIGHT


def test_every_column_and_the_chart_have_a_text() -> None:
    figure = chart((4, 0, 2), (1, 0, 8))
    assert [title.text for title in figure.iter("title")] == [
        "21:00: Succeeded 4, Failed 1",
        "23:00: Succeeded 2, Failed 8",
    ]
    svg = next(figure.iter("svg"))
    assert svg.get("aria-label") == "Deliveries per hour: Succeeded 6, Failed 9"
    assert [cell.text for cell in figure.iter("td")] == ["21:00", "4", "1", "23:00", "2", "8"]


def test_chart_without_values_has_no_columns() -> None:
    figure = chart((0, 0, 0), (0, 0, 0))
    assert list(figure.iter("rect")) == []
    assert list(chart((), (), slots=[]).iter("rect")) == []


def test_slots_are_named_in_the_zone_of_the_reader_and_by_the_span() -> None:
    days = [START + timedelta(days=day) for day in range(3)]
    names = [cell.text for cell in chart((1, 1, 1), (0, 0, 0), slots=days).iter("td")][::3]
    assert names == ["02 Mar", "03 Mar", "04 Mar"]
    series = [ChartSeries("Events", "good", (1, 0, 0))]
    assert "22:00: Events 1" in stacked_columns(HOURS, series, "x", zone=ZoneInfo("Europe/Berlin"))


def test_names_and_labels_are_escaped() -> None:
    hostile = "<script>alert(1)</script>\"'"
    markup = stacked_columns(HOURS, [ChartSeries(hostile, "good", (1, 2, 3))], hostile)
    assert "<script" not in markup + strip([StripCell("good", hostile)], hostile)


def test_strip_has_one_cell_per_period() -> None:
    cells = [StripCell("good", "10:00: 4 succeeded"), StripCell("bad", "10:30: 4 failed")]
    svg = ET.fromstring(strip(cells, "HubSpot, 24 hours"))
    assert [(bar.get("class"), bar.get("x")) for bar in svg] == [("good", "0.00"), ("bad", "500.00")]


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (0, "now"),
        (12, "12 s ago"),
        (-300, "in 5 min"),
        (7300, "2 h ago"),
        (86_400, "01 Mar 22:00"),
        (400 * 86_400, "26 Jan 2025"),
    ],
)
def test_near_times_are_relative_and_others_local(ago: int, text: str) -> None:
    assert relative_time(START - timedelta(seconds=ago), START, ZoneInfo("Europe/Berlin")) == text


def test_exact_time_names_the_zone() -> None:
    assert exact_time(START, ZoneInfo("America/New_York")) == "2026-03-02 16:00:00 EST"
    assert exact_time(START, UTC) == "2026-03-02 21:00:00 UTC"


def test_every_state_has_a_label() -> None:
    assert set(STATES) == set(DeliveryState)
    assert set(MESSAGE_STATUSES) == set(get_args(MessageStatus))
    assert set(CONNECTION_STATES) == {*PauseCause, "active"}


def test_state_of_a_message_is_what_the_provider_reported() -> None:
    assert state_label("succeeded", "undelivered") == ("Undelivered", "bad")
    assert state_label("succeeded") == ("Succeeded", "good")
    assert state_label("of_a_newer_version") == ("Of a newer version", "hold")


@pytest.mark.parametrize(
    ("action", "connection", "label"),
    [
        ("twilio.send_sms", "twilio", "Twilio: send SMS"),
        ("hubspot.log_call", "hubspot_eu", "HubSpot: log call (hubspot_eu)"),
        ("email.send", None, "Email: send"),
    ],
)
def test_actions_are_shown_in_words(action: str, connection: str | None, label: str) -> None:
    assert action_label(action, connection) == label
