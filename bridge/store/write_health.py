"""Write health: whether the database stores what it is given, by the outcome of the last write.

Only a write proves it: on a full disk, on a frozen server and in a read-only session, a transaction that writes nothing
succeeds. The outcome of the last group of events counts. While there are none, `check_write` writes a row.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
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
_ID: Final = "write-check"


class WriteHealth:
    """The outcome of the last write. Its methods are thread-safe."""

    def __init__(self) -> None:
        self.on_error: Callable[[Exception], None] = lambda _: None
        """Called with the error of each failed write."""
        self._lock = threading.Lock()
        self._writable = False
        self._at = -INTERVAL
        self._failed_bytes = 0

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

    def note_failure(self, error: Exception, size: int) -> None:
        """Record that a transaction with `size` bytes failed."""
        with self._lock:
            self._writable, self._at = False, uptime()
            if isinstance(error, StoreUnavailable) and error.kind in ("disk_full", "disk_error"):
                self._failed_bytes = max(self._failed_bytes, min(size, MAX_BODY))

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
