"""CSV files of opt-outs: reads lists that people export from spreadsheets and CRMs, and writes the export."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, Final, TextIO

from bridge.clock import format_timestamp
from bridge.connector.api import Channel
from bridge.contacts.typed_address import InvalidAddress, read_typed_address
from bridge.errors import ConfigError
from bridge.policy import CHANNELS, channels_of

MAX_LINE: Final = 4096
"""Characters of a line; a longer one is not a line of such a list."""
EXPORT_COLUMNS: Final = ("address", "channel", "reason", "kind", "since", "until", "source", "actor")
_HEADINGS: Final = {
    "address": ("address", "phone", "phone number", "mobile", "number", "email", "email address", "recipient"),
    "channel": ("channel",),
    "reason": ("reason", "note", "comment"),
    "kind": ("kind",),
}  # fmt: skip
_COLUMN_OF: Final = {heading: column for column, headings in _HEADINGS.items() for heading in headings}
_WITHOUT_HEADER: Final = {"address": 0, "channel": 1, "reason": 2}
_DELIMITERS: Final = (",", ";", "\t")


@dataclass(frozen=True)
class ImportedLine:
    """One line of a list."""

    number: int
    """Counted from 1, as editors and spreadsheets do."""
    address: str = ""
    channels: Sequence[Channel] = ()
    reason: str | None = None
    problem: str | None = None
    """Why the line cannot be read; contains no address."""
    skipped: bool = False
    """The line is an undeliverable or erased address of an export, which cannot be imported."""


def read_opt_outs(stream: BufferedReader, country: str | None = None) -> Iterator[ImportedLine]:
    """Yield the lines of a list with `address` and, optionally, `channel` and `reason`.

    The columns are separated by commas, semicolons or tabs. A first line with headings names the columns; without it,
    they are in this order. UTF-8, UTF-16 and Windows-1252 are read, with or without a byte order mark. Raise
    ConfigError if the headings do not name an address.
    """
    columns: Mapping[str, int] | None = None
    delimiter = ""
    for number, line in _lines(stream):
        if line is None:
            yield ImportedLine(number, problem=f"is longer than {MAX_LINE} characters")
            continue
        if not line.strip(" ,;\t") or (number == 1 and line.lower().startswith("sep=")):
            continue
        delimiter = delimiter or max(_DELIMITERS, key=line.count)
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
        except csv.Error as error:
            yield ImportedLine(number, problem=f"is not valid CSV: {error}")
            continue
        if columns is None:
            columns = _columns(cells)
            if columns is not None:
                continue
            columns = _WITHOUT_HEADER
        yield _read_line(number, cells, columns, country)


def _columns(cells: Sequence[str]) -> Mapping[str, int] | None:
    """Return the positions of the columns, or None if the first line is not a header."""
    columns: dict[str, int] = {}
    for position, cell in enumerate(cells):
        column = _COLUMN_OF.get(cell.lower().replace("-", "").replace("_", " "))
        if column is not None:
            columns.setdefault(column, position)
    if columns and "address" not in columns:
        raise ConfigError(
            "the first line names no column `address`: name the column with the phone numbers or email addresses so"
        )
    return columns or None


def _read_line(
    number: int, cells: Sequence[str], columns: Mapping[str, int], country: str | None
) -> ImportedLine:
    def cell(column: str) -> str:
        position = columns.get(column, len(cells))
        return cells[position] if position < len(cells) else ""

    if cell("kind") == "undeliverable" or cell("address").startswith("erased:"):
        return ImportedLine(number, skipped=True)
    if not cell("address"):
        return ImportedLine(number, problem="has no address")
    try:
        address = read_typed_address(cell("address"), country)
    except InvalidAddress as error:
        return ImportedLine(number, problem=str(error))
    allowed = channels_of(address)
    channel = cell("channel").lower()
    channels = [name for name in allowed if channel in ("", name)]
    if not channels:
        use = ", ".join(f"`{name}`" for name in allowed)
        problem = f"channel must be {use} or empty"
        if channel not in CHANNELS and columns is _WITHOUT_HEADER:
            problem += (
                "; if the columns are in another order, name them in the first line: address, channel, reason"
            )
        return ImportedLine(number, problem=problem)
    reason = "".join(char if char.isprintable() else " " for char in cell("reason")).strip()
    return ImportedLine(number, address, channels, reason or None)


def _lines(stream: BufferedReader) -> Iterator[tuple[int, str | None]]:
    """Yield the lines with their numbers; None for one that is too long."""
    is_utf16 = stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # Excel's "Unicode text"
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    text = io.TextIOWrapper(stream, encoding, errors="replace" if is_utf16 else _WINDOWS_1252)
    try:
        number = 0
        while line := text.readline(MAX_LINE + 1):
            number += 1
            too_long = len(line) > MAX_LINE
            while too_long and line and not line.endswith("\n"):
                line = text.readline(MAX_LINE + 1)
            yield number, None if too_long else line.rstrip("\n")
    finally:
        text.detach()  # the caller closes the stream


def _decode_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are not UTF-8 as Windows-1252, the encoding of CSV files from Excel on Windows."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


_WINDOWS_1252: Final = "bridge.windows-1252"
codecs.register_error(_WINDOWS_1252, _decode_windows_1252)


def write_opt_outs(stream: TextIO, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write entries of the opt-out list as CSV with full addresses, in the columns that `read_opt_outs` reads."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(EXPORT_COLUMNS)
    for entry in entries:
        times = {name: format_timestamp(entry[name]) for name in ("since", "until")}
        texts = {name: _harmless(entry[name]) for name in ("reason", "source", "actor")}
        row = {**entry, **times, **texts}
        writer.writerow([row[name] for name in EXPORT_COLUMNS])


def _harmless(text: str | None) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text or ""
