"""Spilling map: a dictionary that keeps what was not changed lately in a temporary file, so that memory stays flat."""

from __future__ import annotations

import pickle
import sqlite3
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, Generic, TypeVar

from bridge.errors import BridgeError

IN_MEMORY: Final = 5000
"""Entries in memory, at most; half of them are written at a time."""
_SLOTS: Final = 1 << 20
"""Size in bytes of the filter of what is in the file."""
_PREPARE: Final = """
    PRAGMA cache_size = -1000; -- KB
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE entries (key INTEGER PRIMARY KEY, value BLOB NOT NULL);
"""
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
        self._filter = bytearray()
        """Not 0 at the slot of each key in the file. Most keys that are looked up are new, and so need no query."""

    def get(self, key: Hashable) -> Value | None:
        """Return the value of a key; None if it has none."""
        number = hash(key)
        value = self._recent.get(number)
        if value is not None or self._file is None or not self._filter[number % _SLOTS]:
            return value
        with _named_errors():
            row = self._file.execute("SELECT value FROM entries WHERE key = ?", (number,)).fetchone()
        return None if row is None else pickle.loads(row[0])  # noqa: S301 - written by this process

    def set(self, key: Hashable, value: Value) -> None:
        """Set the value of a key, which is not None."""
        number = hash(key)
        self._recent.pop(number, None)
        self._recent[number] = value
        if len(self._recent) > self._size:
            with _named_errors():
                self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._file.close)
            self._file.executescript(_PREPARE)
            self._filter = bytearray(_SLOTS)
        oldest = sorted(islice(self._recent, self._size // 2))
        rows = [(number, pickle.dumps(self._recent.pop(number))) for number in oldest]
        for number in oldest:
            self._filter[number % _SLOTS] = 1
        self._file.execute("BEGIN")
        self._file.executemany("REPLACE INTO entries VALUES (?, ?)", rows)
        self._file.execute("COMMIT")


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TemporaryFileFailed(
            f"the temporary file cannot be used ({error}): free space in the folder for temporary files, "
            "or set SQLITE_TMPDIR to another one"
        ) from error
