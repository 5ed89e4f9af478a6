"""Times and days on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from bridge.cli.arguments import parse_time_option
from bridge.clock import Clock


def test_days_are_in_utc_and_an_end_includes_its_day() -> None:
    day = datetime(2026, 11, 27, tzinfo=UTC)
    assert parse_time_option("2026-11-27", "--since") == day
    assert parse_time_option("2026-11-27", "--until") == day + timedelta(days=1)
    assert parse_time_option("2026-11-27T08:00:00-05:00", "--until") == day + timedelta(hours=13)
    today = datetime.combine(Clock().now().date(), datetime.min.time(), UTC)
    assert parse_time_option("today", "--since") == today
    assert parse_time_option("Yesterday", "--since") == today - timedelta(days=1)
    assert parse_time_option("yesterday", "--until") == today


def test_durations_count_back_from_now() -> None:
    found = parse_time_option("2d", "--since")
    assert found is not None
    assert abs(found - (Clock().now() - timedelta(days=2))) < timedelta(seconds=5)
    assert parse_time_option(None, "--since") is None


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01", "", "27.11.2026"])
def test_other_texts_are_rejected_with_advice(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="yesterday, 2026-03-02"):
        parse_time_option(text, "--since")
