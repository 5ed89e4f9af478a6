"""CSV files of opt-outs: reads lists that people export from spreadsheets and CRMs, and writes the export."""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, Final, TextIO

from bridge.clock import format_timestamp
from bridge.connector.callbacks import Channel
from bridge.contacts.typed_address import InvalidAddress, read_typed_address
from bridge.errors import ConfigError
from bridge.policy import CHANNELS, channels_of

MAX_LINE: Final = 4096
"""Characters of a line; a longer one is not a line of such a list."""
EXPORT_COLUMNS: Final = ("address", "channel", "reason", "kind", "since", "until", "source", "actor")
_HEADINGS: Final = {
    "address": (
        "address", "phone", "phonenumber", "mobile", "mobilephone", "mobilephonenumber", "telephone", "number", "email",
        "emailaddress", "recipient",
    ),
    "channel": ("channel",),
    "reason": ("reason", "note", "comment"),
    "kind": ("kind",),
}  # fmt: skip
"""Column -> its headings, without spaces and punctuation."""
_COLUMN_OF: Final = {heading: column for column, headings in _HEADINGS.items() for heading in headings}
_WITHOUT_HEADER: Final = {"address": (0,), "channel": (1,), "reason": (2,)}
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
    they are in this order. If several columns have addresses, such as `Email` and `Phone`, each address is yielded.
    UTF-8, UTF-16 and Windows-1252 are read, with or without a byte order mark. Raise ConfigError if the headings do not
    name an address.
    """
    columns: _Columns | None = None
    width, delimiter = len(_WITHOUT_HEADER), ""
    lines = deque[tuple[int, str | None]]()
    source = _lines(stream)
    while (item := lines.popleft() if lines else next(source, None)) is not None:
        number, line = item
        if line is None:
            yield ImportedLine(number, problem=f"is longer than {MAX_LINE} characters")
            continue
        if not line.strip(" ,;\t") or (number == 1 and line.lower().startswith("sep=")):
            continue
        delimiter = delimiter or max(_DELIMITERS, key=line.count)
        try:
            cells = [cell.strip() for cell in _cells(line, delimiter, source, lines)]
        except csv.Error as error:
            yield ImportedLine(number, problem=f"is not valid CSV: {error}")
            continue
        if columns is None:
            columns = _columns(cells)
            if columns is not None:
                width = len(cells)
                continue
            columns = _WITHOUT_HEADER
            if not any(char.isdigit() or char == "@" for char in line):
                yield ImportedLine(
                    number, problem="has no address; if these are headings, name the column `address`"
                )
                continue
        if any(cells[width:]):
            problem = f"has more than {width} cell{'s' * (width != 1)}: put a text with `{delimiter}` in double quotes"
            if columns is _WITHOUT_HEADER:
                problem += ", or name the columns in the first line: address, channel, reason"
            yield ImportedLine(number, problem=problem)
            continue
        yield from _read_line(number, cells, columns, country)


_Columns = Mapping[str, Sequence[int]]
"""Column -> its positions; a list of contacts has several columns with addresses."""


def _cells(
    line: str,
    delimiter: str,
    source: Iterator[tuple[int, str | None]],
    lines: deque[tuple[int, str | None]],
) -> list[str]:
    """Return the cells of a line, and of the lines after it if a cell in quotes contains line breaks.

    The other lines are read from `lines`, then from `source`. If the quotes are not closed within `MAX_LINE`
    characters, they are a typing error: only the line itself is used, and the others are put back.
    """
    if line.count('"') % 2 == 0:
        return next(csv.reader([line], delimiter=delimiter))
    taken: list[tuple[int, str | None]] = []

    def record() -> Iterator[str]:
        yield f"{line}\n"
        length = len(line)
        while (item := lines.popleft() if lines else next(source, None)) is not None:
            taken.append(item)
            length += len(item[1] or "")
            if item[1] is None or length > MAX_LINE:
                break
            yield f"{item[1]}\n"
        raise _NotClosed

    try:
        return next(csv.reader(record(), delimiter=delimiter))
    except _NotClosed:
        lines.extendleft(reversed(taken))
        return next(csv.reader([line], delimiter=delimiter))


class _NotClosed(Exception):
    """A cell has an opening quote and no closing one."""


def _columns(cells: Sequence[str]) -> _Columns | None:
    """Return the positions of the columns, or None if the first line is not a header."""
    columns: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        column = _COLUMN_OF.get("".join(char for char in cell.lower() if char.isalnum()))
        if column is not None:
            columns.setdefault(column, []).append(position)
    if columns and "address" not in columns:
        raise ConfigError(
            "the first line names no column `address`: name the column with the phone numbers or email addresses so"
        )
    return columns or None


def _read_line(
    number: int, cells: Sequence[str], columns: _Columns, country: str | None
) -> Iterator[ImportedLine]:
    """Yield the addresses of a line, each with the channels on which it opts out."""

    def values(column: str) -> list[str]:
        return [cells[position] for position in columns.get(column, ()) if position < len(cells)]

    def cell(column: str) -> str:
        return next(filter(None, values(column)), "")

    if cell("kind") == "undeliverable" or cell("address").startswith("erased:"):
        yield ImportedLine(number, skipped=True)
        return
    channel = cell("channel").lower()
    reason = "".join(char if char.isprintable() else " " for char in cell("reason")).strip() or None
    allowed: list[Channel] = []
    is_read = False
    for value in filter(None, values("address")):
        try:
            address = read_typed_address(value, country)
        except InvalidAddress as error:
            yield ImportedLine(number, problem=str(error))
            allowed += CHANNELS
            continue
        allowed += channels_of(address)
        channels = [name for name in channels_of(address) if channel in ("", name)]
        if channels:
            is_read = True
            yield ImportedLine(number, address, channels, reason)
    if not allowed:
        yield ImportedLine(number, problem="has no address")
    elif not is_read and (channel and channel not in allowed):
        use = ", ".join(f"`{name}`" for name in dict.fromkeys(allowed))
        problem = f"channel must be {use} or empty"
        if channel not in CHANNELS and columns is _WITHOUT_HEADER:
            problem += (
                "; if the columns are in another order, name them in the first line: address, channel, reason"
            )
        yield ImportedLine(number, problem=problem)


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
