"""Waking idle replicas with PostgreSQL's LISTEN and NOTIFY. A slow poll covers for what they miss.

A transaction that notifies makes every other one that does so wait for its commit. So those of a service do not:
what changed is told by a connection of its own, a moment after the commit and many changes at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
from sqlalchemy.engine import make_url

from bridge.store.database import CHANNEL, EVENTS_TOPIC, ALL_TOPICS, Database, encode_topics
from bridge.telemetry import log

_PAUSE = 1.0
"""Seconds before another connection is tried."""


class ChangeNotifier:
    """Passes changes on from and to other processes; on SQLite there is nobody to pass them to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stopping = threading.Event()
        self._untold: set[str] = set()
        self._news = threading.Condition()
        self._own: int | None = None
        """The connection that tells: what it said is known here already."""
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to listen and to tell."""
        if self._database.is_sqlite:
            return
        self._database.notify_remote = self._tell_soon
        for work in (self._listen, self._tell):
            thread = threading.Thread(target=self._keep, args=[work], name="bridge-notices", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Tell what is still to be told, and stop."""
        self._database.notify_remote = None
        with self._news:
            self._stopping.set()
            self._news.notify_all()
        for thread in self._threads:
            thread.join(timeout=3)

    def _tell_soon(self, topics: frozenset[str]) -> None:
        with self._news:
            self._untold |= topics
            self._news.notify_all()

    def _keep(self, work: Callable[[psycopg.Connection], None]) -> None:
        address = (
            make_url(self._database.url).set(drivername="postgresql").render_as_string(hide_password=False)
        )
        said = False
        while not self._stopping.is_set():
            try:
                with psycopg.connect(address, autocommit=True, connect_timeout=5) as conn:
                    said = False
                    work(conn)
            except psycopg.Error as error:
                if not said:
                    said = True
                    log.warning(
                        "no notices through the database",
                        error=type(error).__name__,
                        advice="polling meanwhile",
                    )
                self._stopping.wait(_PAUSE)

    def _listen(self, conn: psycopg.Connection) -> None:
        conn.execute(f"LISTEN {CHANNEL}")
        self._database.notify_local(
            frozenset([EVENTS_TOPIC, ALL_TOPICS])
        )  # of what came before nobody told us
        while not self._stopping.is_set():
            for note in conn.notifies(timeout=0.5):
                if note.pid != self._own:
                    self._database.notify_local(frozenset(note.payload.split(",")))

    def _tell(self, conn: psycopg.Connection) -> None:
        conn.execute("SET synchronous_commit = off")  # a notice need not survive anything
        self._own = conn.info.backend_pid
        while True:
            with self._news:
                while not self._untold:
                    if self._stopping.is_set():
                        return
                    self._news.wait()
                topics, self._untold = self._untold, set()
            try:
                conn.execute("SELECT pg_notify(%s, %s)", [CHANNEL, encode_topics(topics)])
            except psycopg.Error:
                self._tell_soon(frozenset(topics))
                raise
