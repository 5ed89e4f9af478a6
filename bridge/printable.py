"""Printable text: events and providers may contain control characters, which a terminal obeys.

An escape sequence in a summary could otherwise set the window's title, write to the clipboard or hide lines.
"""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
"""Control characters other than tabs and newlines, and those that change the direction of the text after them."""


def printable(text: str) -> str:
    """Return the text with each control character replaced by U+FFFD."""
    return _CONTROLS.sub("\ufffd", text)


def escaped_json(text: str) -> str:
    """Return JSON in which every control character within a string is escaped."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
