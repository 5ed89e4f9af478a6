"""Texts for fields of limited length."""

from __future__ import annotations

from collections.abc import Mapping

ELLIPSIS = "…"
"""The end of a text that was cut."""


def shorten(text: str, max_length: int) -> str:
    """Return a text in at most `max_length` characters. A longer one is cut and ends in `…`."""
    return text if len(text) <= max_length else (text[: max(0, max_length - 1)] + ELLIPSIS)[:max_length]


def text_with_details(
    text: str | None, details: Mapping[str, object], max_length: int, separator: str = "\n"
) -> str:
    """Return a text and labeled details in at most `max_length` characters. A longer text ends in `…`; the details
    are not cut."""
    labeled = "\n".join(f"{label}: {value}" for label, value in details.items() if value)
    stripped, room = (text or "").strip(), max(0, max_length - len(labeled) - len(separator))
    return f"{shorten(stripped, room)}{separator}{labeled}".strip()[:max_length]


def first_line(text: str | None, max_length: int) -> str:
    """Return the first line of a text, which ends in `…` if it is longer than `max_length`. Empty without a text."""
    line = next(iter((text or "").strip().splitlines()), "")
    return line if len(line) <= max_length else f"{line[: max_length - 1].rstrip()}…"


def split_text(text: str, max_length: int) -> list[str]:
    """Return the text in parts of at most `max_length` characters, without losing any but blanks at the cuts.

    A part ends at the end of a line if possible, else of a word.
    """
    parts: list[str] = []
    rest = text.strip()
    while len(rest) > max_length:
        cut = max(rest.rfind("\n", max_length // 2, max_length + 1), 0) or rest.rfind(" ", 1, max_length + 1)
        cut = cut if cut > 0 else max_length
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*parts, rest] if rest else parts
