"""Stalled transactions: ends those that wait too long for PostgreSQL.

A server that freezes, or a proxy that no longer forwards, keeps its TCP connections open and never responds, and the
server's own timeouts do not help. A watchdog thread shuts down the socket of a transaction that has exceeded its limit;
the thread that waits for the response gets a connection error. Whether a commit took effect is then unknown.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import Connection

from bridge.clock import uptime

TRANSACTION_LIMIT: Final = 90.0
"""Seconds that a transaction may last: more than the server's limit for one statement."""
REQUEST_LIMIT: Final = 8.0
"""The same for a transaction that Heppu, a provider or a probe waits for."""
POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at the open transactions."""


class StalledTransactions:
    """The open transactions of one pool, and the thread that ends those that have stalled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Any, float] = {}
        """Driver connection -> the uptime at which its transaction is ended."""
        self._closed = threading.Event()
        self._watchdog: threading.Thread | None = None

    @contextmanager
    def limit(self, conn: Connection, seconds: float) -> Iterator[None]:
        """End the block's transaction with a connection error if it lasts longer than `seconds`."""
        driver_connection = conn.connection.driver_connection
        with self._lock:
            self._open[driver_connection] = uptime() + seconds
            if self._watchdog is None:
                self._watchdog = threading.Thread(target=self._watch, name="bridge-stalled", daemon=True)
                self._watchdog.start()
        try:
            yield
        finally:
            with self._lock:
                self._open.pop(driver_connection, None)

    def close(self) -> None:
        """Stop the watchdog."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(POLL_INTERVAL):
            with self._lock:
                now = uptime()
                for driver_connection in [each for each, end in self._open.items() if end <= now]:
                    del self._open[driver_connection]
                    _shut_down(driver_connection)


def _shut_down(driver_connection: Any) -> None:
    """Shut down the socket of a connection that another thread is waiting for."""
    with suppress(Exception):  # it was closed meanwhile
        descriptor = os.dup(driver_connection.fileno())
        with socket.socket(fileno=descriptor) as duplicate:
            if not driver_connection.closed:  # otherwise the descriptor may belong to something else
                duplicate.shutdown(socket.SHUT_RDWR)
