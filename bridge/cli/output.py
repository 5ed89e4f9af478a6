"""Command output: tables and text for people, one JSON object for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TextIO

import typer

from bridge.clock import format_timestamp
from bridge.printable import escaped_json
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
    from bridge.cli.terminal import SafeConsole

    return SafeConsole(highlight=False, width=_width(sys.stdout))


@cache
def errors() -> Console:
    """Return the console for everything that is not a result (stderr): progress, warnings, errors."""
    from bridge.cli.terminal import SafeConsole

    return SafeConsole(stderr=True, highlight=False, width=_width(sys.stderr))


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
    from bridge.store.driver_errors import ADVICE

    if isinstance(error, RulesError):
        print_status(str(error))
    elif isinstance(error, StoreUnavailable):
        advice = ADVICE.get(error.kind, "check BRIDGE_DATABASE_URL, then try again")
        print_status(f"bridge: the database is unavailable: {error}; {advice}")
    else:
        print_status(f"bridge: {error}")


def print_json(record: Mapping[str, Any]) -> None:
    """Print one record as JSON."""
    sys.stdout.write(escaped_json(to_json(record)) + "\n")


class Result(Protocol):
    """Result of a command, before it is printed."""

    def to_json(self) -> Mapping[str, Any]:
        """Return the record for programs."""
        ...

    def print_text(self) -> None:
        """Print it for people."""
        ...


def render(result: Result, as_json: bool) -> None:
    """Print the result of a command, once."""
    if as_json:
        print_json(result.to_json())
    else:
        result.print_text()


@dataclass(frozen=True)
class Record:
    """A record, which `text` describes to people."""

    record: Mapping[str, Any]
    text: str

    def to_json(self) -> Mapping[str, Any]:
        """Return the record."""
        return self.record

    def print_text(self) -> None:
        """Print the description."""
        echo(self.text)


@dataclass(frozen=True)
class PrintedRecord:
    """A record, and a function that prints it for people in several parts."""

    record: Mapping[str, Any]
    print_text: Callable[[], None]

    def to_json(self) -> Mapping[str, Any]:
        """Return the record."""
        return self.record


def as_items(items: Sequence[Mapping[str, Any]], next_cursor: str | None = None) -> dict[str, Any]:
    """Return several records in the form of all lists; `next_cursor` is the `--cursor` of the next page."""
    return {"items": items, "next_cursor": next_cursor}


def result_line(ok: bool, name: str, text: str) -> str:
    """Return the line of one result among several."""
    return f"{'✓' if ok else '✗'} {name}: {text}"


Cell = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Table:
    """Several records of one kind."""

    items: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str | Cell]
    """Each heading, with a field name or a function that renders the cell."""
    empty: str
    """Text printed if there are no records."""
    next_cursor: str | None = None
    """The `--cursor` of the next page."""
    footer: Sequence[str] = ()

    def to_json(self) -> Mapping[str, Any]:
        """Return the records in the form of all lists."""
        return as_items(self.items, self.next_cursor)

    def print_text(self) -> None:
        """Print the table and the lines below it."""
        from rich.table import Table as RichTable
        from rich.text import Text

        if self.items:
            table = RichTable(box=None, pad_edge=False, header_style="bold")
            for heading in self.columns:
                table.add_column(heading, overflow="fold", no_wrap=heading in ("ID", "Event ID"))
            for item in self.items:
                cells = [
                    source(item) if callable(source) else _cell(item.get(source))
                    for source in self.columns.values()
                ]
                table.add_row(*(Text(cell, style=_COLORS.get(cell.split(":")[0], "")) for cell in cells))
            console().print(table)
        else:
            echo(self.empty)
        for line in self.footer:
            echo(line)
        if self.next_cursor is not None:
            echo(f"Next page: --cursor {self.next_cursor}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return format_timestamp(value) if isinstance(value, datetime) else str(value)


def pluralize(number: int, noun: str) -> str:
    """Return the number with its noun: `1 event`, `2 deliveries`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}es" if noun.endswith("s") else f"{number:,} {noun}s"


def masked_address(value: object) -> str:
    """Return a phone number or an email address masked for lists, still recognizable."""
    from bridge.telemetry import mask_address

    return mask_address(value) if isinstance(value, str) else ""
