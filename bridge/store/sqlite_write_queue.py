"""Whose turn it is to write to a SQLite file.

SQLite has one writer at a time. Its own waiting sleeps for up to a tenth of a second and lets in whoever happens to
wake first, so a receiver beside a busy worker would starve. Here writers queue: the threads of a process on a lock,
processes on two bytes of a file beside the database, of which one is held by who writes and the other by who is next.
The file also says until when events are thought to come, one by one or in crowds, so that whoever else writes makes
room for them.

It is a courtesy: what keeps two writers apart is SQLite's own lock, which everybody takes afterwards. So a process
that froze on its turn, or a file that cannot be made, costs others some patience and nothing else.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bridge.clock import uptime

PATIENCE: Final = 2.0
"""Seconds that one waits for a turn; then SQLite itself says whether its file can be written."""
LOOK_EVERY: Final = 0.0003
CROWD_SECONDS: Final = 0.05
"""How long events are thought to go on coming after the last ones."""
_WRITES, _NEXT = 0, 1
_UNTIL: Final = struct.Struct("d")
"""An instant by `uptime`, which all processes of a machine share."""
_RECEIPTS_AT, _CROWD_AT = 8, 16


class WriteTurn:
    """One writer at a time, and the processes in turns."""

    def __init__(self, database: Path | None) -> None:
        self._threads = threading.Lock()
        self._path = database and database.with_name(database.name + ".turn")
        self._file: int | None = None

    def note_receipts(self, *, crowd: bool) -> None:
        """Let all processes know that events come just now, maybe in a crowd."""
        if self._file is not None:
            until = _UNTIL.pack(uptime() + CROWD_SECONDS)
            with suppress(OSError):
                for place in (_RECEIPTS_AT, _CROWD_AT) if crowd else (_RECEIPTS_AT,):
                    os.pwrite(self._file, until, place)

    @property
    def receiving(self) -> bool:
        """Whether events came a moment ago, to whichever process."""
        return self._noted(_RECEIPTS_AT)

    @property
    def crowded(self) -> bool:
        """Whether they came in a crowd."""
        return self._noted(_CROWD_AT)

    def _noted(self, place: int) -> bool:
        if self._file is not None:
            with suppress(OSError, struct.error):  # nobody has noted any yet
                until: float = _UNTIL.unpack(os.pread(self._file, _UNTIL.size, place))[0]
                return 0 < until - uptime() <= CROWD_SECONDS  # a later one is from before the machine's start
        return False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn."""
        with self._threads:
            self._begin()
            try:
                yield
            finally:
                self._end()

    def close(self) -> None:
        """Close the file, if there is one."""
        with self._threads:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _begin(self) -> None:
        if self._file is None and self._path is not None:
            with suppress(OSError):
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._file is None:
            return
        end = uptime() + PATIENCE
        if self._wait_for(_NEXT, end):
            self._wait_for(_WRITES, end)
            self._let_go(_NEXT)

    def _end(self) -> None:
        self._let_go(_WRITES)

    def _wait_for(self, place: int, end: float) -> bool:
        while not self._lock(place):
            if uptime() >= end:
                return False
            time.sleep(LOOK_EVERY)
        return True

    def _lock(self, place: int) -> bool:
        if self._file is None:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            return False
        return True

    def _let_go(self, place: int) -> None:
        if self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
