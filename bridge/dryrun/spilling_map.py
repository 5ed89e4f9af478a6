"""Spilling map: a dictionary that keeps what was not changed lately in a temporary file, so that memory stays flat."""

from __future__ import annotations

import pickle
import sqlite3
import weakref
from collections.abc import Hashable, Sequence
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from bridge.errors import BridgeError

IN_MEMORY: Final = 5000
"""Entries in memory, at most; half of them are written at a time."""
_PREPARE: Final = (
    "PRAGMA cache_size = -1000",  # KB
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "CREATE TABLE entries (key INTEGER PRIMARY KEY, value BLOB NOT NULL)",
)
Value = TypeVar("Value")


class TemporaryFileFailed(BridgeError):
    """The temporary file cannot be written or read."""


class SpillingMap(Generic[Value]):
    """A dictionary by the hashes of its keys, whose values are plain data.

    A value that was changed by its owner must be set again. SQLite deletes the file when it opens it, so nothing is
    left of it after the process, however that ends.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._size = in_memory
        self._recent: dict[int, Value] = {}
        """The entries that were set last, oldest first."""
        self._file: sqlite3.Connection | None = None

    def get(self, key: Hashable) -> Value | None:
        """Return the value of a key; None if it has none."""
        number = hash(key)
        value = self._recent.get(number)
        if value is not None or self._file is None:
            return value
        row = _run(self._file, "SELECT value FROM entries WHERE key = ?", (number,)).fetchone()
        return None if row is None else pickle.loads(row[0])  # noqa: S301 - written by this process

    def set(self, key: Hashable, value: Value) -> None:
        """Set the value of a key, which is not None."""
        number = hash(key)
        self._recent.pop(number, None)
        self._recent[number] = value
        if len(self._recent) > self._size:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._file.close)
            for statement in _PREPARE:
                _run(self._file, statement)
        oldest = sorted(islice(self._recent, self._size // 2))
        rows = [(number, pickle.dumps(self._recent.pop(number))) for number in oldest]
        _run(self._file, "BEGIN")
        for row in rows:
            _run(self._file, "REPLACE INTO entries VALUES (?, ?)", row)
        _run(self._file, "COMMIT")


def _run(file: sqlite3.Connection, statement: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
    try:
        return file.execute(statement, parameters)
    except sqlite3.Error as error:
        raise TemporaryFileFailed(
            f"the temporary file cannot be used ({error}): free space in the folder for temporary files, "
            "or set SQLITE_TMPDIR to another one"
        ) from error
