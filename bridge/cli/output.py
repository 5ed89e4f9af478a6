"""Command output: tables and text for people, one JSON object for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from bridge.clock import format_timestamp
from bridge.serialization import to_json

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

DEFAULT_WIDTH = 160
"""Columns of a table if the output is not a terminal."""

_COLORS = {
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
    """Return the console for results (stdout)."""
    from rich.console import Console

    return Console(highlight=False, width=_width(sys.stdout))


@cache
def errors() -> Console:
    """Return the console for everything that is not a result (stderr): progress, warnings, errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def _width(stream: TextIO) -> int | None:
    """Return the width to use. With None, Rich asks the terminal or reads COLUMNS."""
    return None if stream.isatty() or "COLUMNS" in os.environ else DEFAULT_WIDTH


def echo(text: str) -> None:
    """Print one line of the result without markup."""
    console().print(text, markup=False, soft_wrap=True)


def print_status(text: str) -> None:
    """Print one line to stderr, separate from the result."""
    errors().print(text, markup=False, soft_wrap=True)


def print_error(error: Exception) -> None:
    """Print an error to stderr, with advice."""
    from bridge.errors import StoreUnavailable
    from bridge.rules.report import RulesError

    if isinstance(error, RulesError):
        print_status(str(error))
    elif isinstance(error, StoreUnavailable):
        advice = "check BRIDGE_DATABASE_URL, then try again"
        if "malformed" in str(error):  # SQLite's message for a damaged file
            advice = "restore a backup as described in docs/operations.md"
        print_status(f"bridge: the database is unavailable: {error}; {advice}")
    else:
        print_status(f"bridge: {error}")


def print_json(record: Mapping[str, Any]) -> None:
    """Print one record as JSON."""
    sys.stdout.write(to_json(record) + "\n")


def print_items(items: Iterable[Mapping[str, Any]], next_cursor: str | None = None) -> None:
    """Print several records as JSON; `next_cursor` is the `--cursor` of the next page."""
    print_json({"items": list(items), "next_cursor": next_cursor})


Cell = Callable[[Mapping[str, Any]], str]


def print_table(
    items: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str | Cell],
    *,
    empty: str,
    title: str | None = None,
) -> None:
    """Print a table of `items`, or the text `empty` if there are none.

    `columns` maps each heading to a field name, or to a function that renders the cell.
    """
    from rich.table import Table
    from rich.text import Text

    if not items:
        echo(empty)
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("ID", "Event ID"))
    for item in items:
        cells = [source(item) if callable(source) else _cell(item.get(source)) for source in columns.values()]
        table.add_row(*(Text(cell, style=_COLORS.get(cell.split(":")[0], "")) for cell in cells))
    console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return format_timestamp(value) if isinstance(value, datetime) else str(value)


def pluralize(number: int, noun: str) -> str:
    """Return the number with its noun: `1 event`, `2 deliveries`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def masked_address(value: object) -> str:
    """Return a phone number or an email address masked for lists, still recognizable."""
    from bridge.telemetry import mask_address

    return mask_address(value) if isinstance(value, str) else ""
