"""What commands print: tables and text for people, one JSON object for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from bridge.serialization import json_text

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

WIDE = 160
"""Columns of a table when the output is no terminal."""

_COLOURS = {
    "succeeded": "green",
    "delivered": "green",
    "pending": "cyan",
    "running": "cyan",
    "retrying": "yellow",
    "needs_review": "bold yellow",
    "failed": "bold red",
    "cancelled": "dim",
    "suppressed": "dim",
}


@cache
def console() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(highlight=False, width=_width(sys.stdout))


@cache
def errors() -> Console:
    """Where everything goes that is not the result: progress, warnings, errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def _width(stream: TextIO) -> int | None:
    """None lets Rich ask the terminal, or the variable COLUMNS."""
    return None if stream.isatty() or "COLUMNS" in os.environ else WIDE


def say(text: str) -> None:
    """A line of the result, as it is."""
    console().print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A line for whoever watches, kept apart from the result."""
    errors().print(text, markup=False, soft_wrap=True)


def complain(error: Exception) -> None:
    """An error on stderr, as advice."""
    from bridge.errors import StoreUnavailable
    from bridge.rules.report import RulesError

    if isinstance(error, RulesError):
        note(str(error))
    elif isinstance(error, StoreUnavailable):
        advice = "look at BRIDGE_DATABASE_URL, then try again"
        if "malformed" in str(error):  # SQLite's own word
            advice = "restore a backup: docs/operations.md says how"
        note(f"bridge: the database cannot be used now: {error}; {advice}")
    else:
        note(f"bridge: {error}")


def print_json(record: Mapping[str, Any]) -> None:
    """One record."""
    sys.stdout.write(json_text(record) + "\n")


def print_items(items: Iterable[Mapping[str, Any]], next_cursor: str | None = None) -> None:
    """Several records; `following` is what `--cursor` takes for the next page."""
    print_json({"items": list(items), "next_cursor": next_cursor})


Cell = Callable[[Mapping[str, Any]], str]


def print_table(
    items: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str | Cell],
    *,
    empty: str,
    title: str | None = None,
) -> None:
    """A table of `items`: heading -> the field's name, or what makes the cell; `empty` is said when there are none."""
    from rich.table import Table
    from rich.text import Text

    if not items:
        say(empty)
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("ID", "Event ID"))
    for item in items:
        cells = [source(item) if callable(source) else _cell(item.get(source)) for source in columns.values()]
        table.add_row(*(Text(cell, style=_COLOURS.get(cell.split(":")[0], "")) for cell in cells))
    console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return instant(value) if isinstance(value, datetime) else str(value)


def instant(value: datetime | None) -> str:
    """An instant for people, UTC, to the second."""
    return "" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def counted(number: int, noun: str) -> str:
    """`1 event`, `2 deliveries`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def span(duration: timedelta) -> str:
    """As one types it: `30d`, `1h30m`."""
    seconds = int(duration.total_seconds())
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts = []
    for unit, length in units:
        count, seconds = divmod(seconds, length)
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts) or "0s"


def address(value: object) -> str:
    """A phone number or an e-mail address in a list: enough to recognise it."""
    from bridge.telemetry import mask_address

    return mask_address(value) if isinstance(value, str) else ""
