"""Words for invalid YAML: following the advice about one wrong line repairs the file."""

from __future__ import annotations

import re

import pytest

from bridge.rules.load import FILE
from bridge.rules.parse_context import STEP_KEYS
from bridge.rules.parse_rules import RULE
from bridge.rules.parse_steps import STEP
from bridge.rules.yaml_errors import FILE_KEYS, RULE_KEYS, comparison_hint
from tests.unit.rules.helpers import load_text

TEXT = """version: 1
messaging:
  quiet_hours: "20:00-08:00"
  caps:
    sms: 3 per 7d
rules:
  # the first rule
  - name: first
    when: [call.busy, call.no-answer]
    where:
      event.direction: outbound
      any:
        - event.duration: {gt: 30}
        - contact.name: Ana
    do:
      - use: phone.send
        delay: 5m
        with:
          body: We tried to call you
      - use: team.post
        with: {text: Busy}
  - name: second
    when: call.failed
    do: [{use: team.post, with: {text: Failed}}]
tests:
  - name: one
    event: call.failed
    expect:
      second: [{use: team.post}]
"""
LINES = TEXT.splitlines()
_ADVICE = re.compile(r"(?:start it exactly|indent it) below .+, with (no|\d+) spaces? before it")


def test_text_is_valid() -> None:
    assert load_text(TEXT).diagnostics == ()


@pytest.mark.parametrize("shift", [-2, -1, 1, 2, 3])
def test_advice_about_a_shifted_line_repairs_it(shift: int) -> None:
    advised = 0
    for number, line in enumerate(LINES):
        content = line.lstrip(" ")
        spaces = len(line) - len(content) + shift
        if spaces < 0 or content.startswith("#"):
            continue
        broken = [*LINES[:number], " " * spaces + content, *LINES[number + 1 :]]
        diagnostics = load_text("\n".join(broken) + "\n").diagnostics
        assert not any("invalid YAML" in item.text for item in diagnostics), line
        match = _ADVICE.match(diagnostics[0].hint) if diagnostics else None
        if match and diagnostics[0].line == number + 1:
            advised += 1
            start = 0 if match[1] == "no" else int(match[1])
            assert " " * start + content == line, f"{line}: {diagnostics[0]}"
    assert advised >= 8


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("> 30", "{gt: 30}"),
        (">=30", "{gte: 30}"),
        ("< -1.5", "{lt: -1.5}"),
        ("<= 30", "{lte: 30}"),
        ("== 3", "{eq: 3}"),
        ("!= 3", "{ne: 3}"),
    ],
)
def test_comparison_hint_is_the_condition_in_words(text: str, hint: str) -> None:
    assert comparison_hint(text) == f"write `{hint}`"
    assert comparison_hint(f"see {text}") == comparison_hint("<b>") == ""


def test_keys_that_hints_know_are_those_of_the_sections() -> None:
    assert set(FILE_KEYS) == {key.name for key in FILE.keys}
    assert set(RULE_KEYS) == {key.name for key in RULE.keys}
    assert set(STEP_KEYS) == {key.name for key in STEP.keys}
