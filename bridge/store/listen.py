"""Waking idle replicas: PostgreSQL's LISTEN/NOTIFY. A slow poll covers for what it misses."""

from __future__ import annotations

import threading

import psycopg
from sqlalchemy.engine import make_url

from bridge.store.database import CHANNEL, EVENTS, Database
from bridge.telemetry import log

_PAUSE = 1.0


class Listener:
    """A thread that passes other processes' changes on to `Database.wake`; on SQLite it does nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen."""
        if not self._database.is_sqlite:
            self._thread = threading.Thread(target=self._listen, name="bridge-listener", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=3)

    def _listen(self) -> None:
        address = (
            make_url(self._database.url).set(drivername="postgresql").render_as_string(hide_password=False)
        )
        while not self._stopping.is_set():
            try:
                with psycopg.connect(address, autocommit=True, connect_timeout=5) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    while not self._stopping.is_set():
                        for note in connection.notifies(timeout=0.5):
                            self._database.wake(frozenset(note.payload.split(",")))
            except psycopg.Error as error:
                log.warning(
                    "not listening to the database", error=type(error).__name__, advice="polling meanwhile"
                )
                self._stopping.wait(_PAUSE)
                self._database.wake(frozenset([EVENTS]))
