"""Hints for durations: what they suggest is a duration of that length."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rules.durations import duration_hint
from bridge.setting_types import parse_duration

UNITS = {"second": "seconds", "min": "minutes", "hr": "hours", "day": "days", "week": "weeks"}


@given(
    st.integers(1, 999_999),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["", "s"]),
    st.sampled_from(["", " "]),
)
def test_spoken_duration_is_written_in_short(number: int, unit: str, plural: str, space: str) -> None:
    hint = duration_hint(f"{number}{space}{unit}{plural}")
    [short] = re.findall(r"^write `(\w+)`$", hint)
    assert parse_duration(short) == timedelta(**{UNITS[unit]: number})


@pytest.mark.parametrize(
    "value", ["1 month", "soon", "", "00:05", None, True, 1.5, ["5m"], "5 minutes later"]
)
def test_anything_else_gets_the_general_hint(value: object) -> None:
    assert duration_hint(value) == "write a number and a unit: 90s, 5m, 16h, 7d, or 1h30m"
