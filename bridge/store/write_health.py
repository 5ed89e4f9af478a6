"""Write health: whether the database stores what it is given, by the outcome of the last write.

Only a write proves it: on a full disk, on a frozen server and in a read-only session, a transaction that writes nothing
succeeds. The outcome of the last group of events counts. While there are none, `check_write` writes a row.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.signing import MAX_BODY
from bridge.store import schema
from bridge.store.stalled_transactions import REQUEST_LIMIT

if TYPE_CHECKING:
    from bridge.store.database import Database

INTERVAL: Final = 1.0
"""Seconds for which an outcome counts as the current one."""
MAX_OUTAGES: Final = 100
"""Outages that are remembered until they are taken."""
_ID: Final = "write-check"


@dataclass(frozen=True)
class WriteOutage:
    """A time in which writes failed, by `uptime`."""

    kind: str
    """The kind of the first error."""
    started_at: float
    ended_at: float
    refused: int
    """Events that were refused meanwhile."""


class WriteHealth:
    """The outcome of the last write. Its methods are thread-safe."""

    def __init__(self) -> None:
        self.on_error: Callable[[Exception], None] = lambda _: None
        """Called with the error of each failed write."""
        self._lock = threading.Lock()
        self._writable = False
        self._at = -INTERVAL
        self._failed_bytes = 0
        self._failing: tuple[str, float] | None = None
        """Kind and time of the first failure of the outage that lasts."""
        self._refused = 0
        self._outages: deque[WriteOutage] = deque(maxlen=MAX_OUTAGES)

    def current(self) -> bool | None:
        """Return whether the last write succeeded; None if it is too long ago."""
        with self._lock:
            return self._writable if uptime() - self._at < INTERVAL else None

    def note_success(self, size: int) -> None:
        """Record that a transaction with `size` bytes is on disk.

        After a full disk, only one of the failed size proves that there is room again.
        """
        with self._lock:
            if size >= self._failed_bytes:
                self._writable, self._at, self._failed_bytes = True, uptime(), 0
                if self._failing is not None:
                    self._outages.append(WriteOutage(*self._failing, uptime(), self._refused))
                    self._failing, self._refused = None, 0

    def note_failure(self, error: Exception, size: int) -> None:
        """Record that a transaction with `size` bytes failed."""
        with self._lock:
            self._writable, self._at = False, uptime()
            kind = error.kind if isinstance(error, StoreUnavailable) else "unexpected"
            self._failing = self._failing or (kind, uptime())
            if isinstance(error, StoreUnavailable) and error.kind in ("disk_full", "disk_error"):
                self._failed_bytes = max(self._failed_bytes, min(size, MAX_BODY))

    def note_refused(self) -> None:
        """Record that an event was refused because it could not be written."""
        with self._lock:
            self._refused += 1

    def take_outages(self) -> list[WriteOutage]:
        """Return the outages that are over and in which events were refused, each once."""
        with self._lock:
            outages = [outage for outage in self._outages if outage.refused]
            self._outages.clear()
            return outages

    @property
    def check_bytes(self) -> int:
        """The bytes that the next check writes: as many as did not fit."""
        return self._failed_bytes


def check_write(database: Database) -> None:
    """Insert a row and delete it in one transaction, so that no other transaction sees it.

    Raise StoreUnavailable, or the exception of any other failure.
    """
    table, health = schema.rejected_requests, database.write_health
    size = health.check_bytes
    row = {
        "id": f"{_ID}-{os.urandom(8).hex()}",
        "received_at": database.clock.now(),
        "reason": _ID,
        "detail": "",
        "status": 0,
        "signature_valid": False,
        "body": os.urandom(size),  # random, because PostgreSQL compresses
    }
    try:
        with database.write(limit=REQUEST_LIMIT) as conn:
            conn.execute(table.insert(), [row])
            conn.execute(delete(table).where(table.c.id == row["id"]))
    except Exception as error:
        health.note_failure(error, size)
        if not isinstance(error, StoreUnavailable):
            health.on_error(error)
        raise
    health.note_success(size)
