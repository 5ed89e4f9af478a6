"""Values of events in Markdown: whatever a visitor calls themselves, it is text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # comes with rich
from markdown_it.token import Token

from bridge.rules.template_filters import to_markdown

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
"""The rules of Adaptive Cards' own parser, and more."""
PLAIN = {"paragraph_open", "paragraph_close", "inline", "text", "text_special", "softbreak", "hardbreak"}


def tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def shown(text: str) -> str:
    return "".join(
        "\n" if token.type in ("softbreak", "hardbreak") else token.content
        for token in tokens(text)
        if token.type != "inline"
    )


@pytest.mark.parametrize(
    "name",
    [
        "[Bank](https://evil.example)",
        "<https://evil.example>",
        "<at>Everyone</at>",
        "**Maya** _Lindqvist_ ~~x~~ `y`",
        "# Maya",
        "- Maya",
        "+ Maya",
        "1. Maya",
        "12) Maya",
        "===",
        "> Maya",
        "{{DATE(2026-11-28T12:00:00Z, SHORT)}}",
        "&lt;b&gt;",
        "a\\",
        "+1 415-555-0123",
    ],
)
def test_markup_in_a_value_is_shown_as_it_is(name: str) -> None:
    assert {token.type for token in tokens(to_markdown(name))} <= PLAIN
    assert shown(to_markdown(name)) == name


def test_ordinary_values_stay_readable_without_a_parser() -> None:
    for value in ("+1 415-555-0123", "Maya Lindqvist", "ines@okafor.example", "Call back at 14:30!"):
        assert to_markdown(value) == value


@given(st.text(st.sampled_from("[]()<>*_~`#-+=!>|&;:/.\\{}1 \n\tahtps"), max_size=40))
@example("x\n===\ny")
@example("    code")
def test_value_never_becomes_markup(value: str) -> None:
    """Neither alone nor next to the Markdown of a rule, which stays as it is."""
    assert {token.type for token in tokens(to_markdown(value))} <= PLAIN
    rule = list(
        tokens(f"**Missed call** [{to_markdown(value)}](https://crm.example/{to_markdown('a')}) from")
    )
    links = [token.attrs["href"] for token in rule if token.type == "link_open"]
    assert set(links) <= {"https://crm.example/a"}
    assert not any(token.type in ("html_inline", "image", "em_open") for token in rule)
