"""SQLite write queue: lets the threads and processes that write to one SQLite file take turns in order.

SQLite has one writer at a time. Its busy handler sleeps for up to a tenth of a second and admits whichever waiter
wakes first, so a receiver that shares the file with a busy worker would starve. This queue orders the writers:
threads of one process wait on a mutex, processes on two byte locks in a file next to the database. The writer holds
one of the bytes, the next writer in line holds the other.

The queue is advisory: SQLite's own lock, which every writer takes afterwards, is what keeps two writers apart. If a
process freezes while it holds the queue, or the file cannot be created, other writers only lose some time.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bridge.clock import uptime

MAX_WAIT_SECONDS: Final = 2.0
"""How long a writer waits in the queue. After that, SQLite itself reports whether its file can be written."""
POLL_INTERVAL: Final = 0.0003
"""Seconds between two attempts to take a byte lock."""
_WRITER_BYTE, _NEXT_BYTE = 0, 1


class SqliteWriteQueue:
    """A fair, advisory queue of the writers to one SQLite file, across threads and processes."""

    def __init__(self, database: Path | None) -> None:
        self._mutex = threading.Lock()
        self._path = database and database.with_name(database.name + ".write-queue")
        self._file: int | None = None

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Wait in the queue, then hold it until the block ends."""
        with self._mutex:
            self._enter()
            try:
                yield
            finally:
                self._unlock(_WRITER_BYTE)

    def close(self) -> None:
        """Close the file, if it is open."""
        with self._mutex:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _enter(self) -> None:
        if self._file is None and self._path is not None:
            with suppress(OSError):
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._file is None:
            return
        deadline = uptime() + MAX_WAIT_SECONDS
        if self._wait_for(_NEXT_BYTE, deadline):
            self._wait_for(_WRITER_BYTE, deadline)
            self._unlock(_NEXT_BYTE)

    def _wait_for(self, offset: int, deadline: float) -> bool:
        while not self._try_lock(offset):
            if uptime() >= deadline:
                return False
            time.sleep(POLL_INTERVAL)
        return True

    def _try_lock(self, offset: int) -> bool:
        if self._file is None:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError:
            return False
        return True

    def _unlock(self, offset: int) -> None:
        if self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, offset)
