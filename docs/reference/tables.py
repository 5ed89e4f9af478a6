"""Markdown tables, and defaults in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(headings)} |"
    yield f"| {' | '.join('---' for _ in headings)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;').replace(chr(10), ' ') for cell in row)} |"
    yield ""


def plain(value: Any) -> str:
    """Return a default as code; nothing for an empty one."""
    if value in (None, "", (), {}, False):
        return ""
    text = str(value)
    if isinstance(value, timedelta):
        text = f"{value.days}d" if value.days else f"{value.seconds}s"
    return f"`{text}`"
