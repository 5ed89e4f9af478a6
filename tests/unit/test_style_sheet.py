"""The style sheet of the dashboard: contrast of its colors, and what the content security policy allows."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = files("bridge.web").joinpath("static/bridge.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"(--[\w-]+): ([^;]+);", block))
    for block in re.findall(r":root \{\n(.*?)\n *\}", CSS, re.DOTALL)
)
TEXT_PAIRS = [
    ("ink", "paper"), ("ink", "ground"), ("ink", "sunk"), ("soft", "paper"), ("soft", "ground"), ("soft", "sunk"),
    ("accent", "paper"), ("accent", "ground"), ("accent-ink", "accent"), ("danger-ink", "danger"),
    ("good", "good-ground"), ("wait", "wait-ground"), ("hold", "hold-ground"), ("warn", "warn-ground"),
    ("bad", "bad-ground"), ("ink", "warn-ground"), ("ink", "bad-ground"), ("ink", "good-ground"),
]  # fmt: skip
SHAPE_PAIRS = [
    (shape, ground)
    for shape in ("edge", "focus", "bar-good", "bar-wait", "bar-hold", "bar-warn", "bar-bad")
    for ground in ("paper", "ground")
    if (shape, ground) != ("bar-hold", "ground")
]


def luminance(color: str) -> float:
    digits = color.removeprefix("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(part * weight for part, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def contrast(scheme: dict[str, str], one: str, other: str) -> float:
    first, second = luminance(scheme[f"--{one}"]), luminance(scheme[f"--{other}"])
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_a_contrast_of_4_5(scheme: dict[str, str]) -> None:
    assert {pair: ratio for pair in TEXT_PAIRS if (ratio := contrast(scheme, *pair)) < 4.5} == {}


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_controls_and_bars_have_a_contrast_of_3(scheme: dict[str, str]) -> None:
    assert {pair: ratio for pair in SHAPE_PAIRS if (ratio := contrast(scheme, *pair)) < 3} == {}


def test_dark_scheme_changes_every_color() -> None:
    colors = {name for name, value in LIGHT.items() if value.startswith("#")}
    assert colors == set(DARK)


def test_style_sheet_loads_nothing() -> None:
    assert "url(" not in CSS
    assert "@import" not in CSS


def test_every_variable_is_defined() -> None:
    used = set(re.findall(r"var\((--[\w-]+)", CSS))
    assert used - set(re.findall(r"(--[\w-]+):", CSS)) == set()
