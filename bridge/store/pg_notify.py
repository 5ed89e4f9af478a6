"""PostgreSQL notifications: wake idle workers with LISTEN and NOTIFY. A slow poll covers missed notifications.

A transaction that notifies makes every other notifying transaction wait for its commit. Therefore the service's
transactions do not notify: a separate connection sends the changes shortly after the commit, many in one notification.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.store.database import ALL_TOPICS, CHANNEL, EVENTS_TOPIC, Database, encode_topics
from bridge.store.postgres_engine import is_pooled
from bridge.telemetry import log

if TYPE_CHECKING:
    import psycopg  # at run time only with PostgreSQL, because the import takes 100 ms

POOLED_INTERVAL = 1.0
"""Seconds between two looks at everything if notifications do not arrive, because a pooler is in between."""
_RECONNECT_DELAY = 1.0
"""Seconds until another connection is tried."""


class ChangeNotifier:
    """Passes changes on to other processes and receives theirs. SQLite has one process, so it does nothing there."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stopping = threading.Event()
        self._unsent: set[str] = set()
        self._changed = threading.Condition()
        self._sender_pid: int | None = None
        """The backend of the connection that sends: this process has already processed its notifications."""
        self._threads: list[threading.Thread] = []
        self._stop_sockets: tuple[socket.socket, socket.socket] | None = None
        """The first becomes readable when the second is closed, to end the wait for notifications."""

    def start(self) -> None:
        """Start to listen and to send."""
        if self._database.is_sqlite:
            return
        self._database.notify_remote = self._enqueue
        self._stop_sockets = socket.socketpair()
        for work in (self._listen, self._send):
            thread = threading.Thread(target=self._run, args=[work], name="bridge-notify", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Send what is left, and stop."""
        self._database.notify_remote = None
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        if self._stop_sockets is None:
            return
        reader, writer = self._stop_sockets
        writer.close()
        for thread in self._threads:
            thread.join(timeout=3)
        reader.close()

    def _enqueue(self, topics: frozenset[str]) -> None:
        with self._changed:
            self._unsent |= topics
            self._changed.notify_all()

    def _run(self, work: Callable[[psycopg.Connection], None]) -> None:
        """Run `work` on a connection of its own, and reconnect after an error."""
        import psycopg

        logged = False
        while not self._stopping.is_set():
            try:
                with psycopg.connect(
                    autocommit=True, prepare_threshold=None, **self._database.driver_arguments()
                ) as conn:
                    logged = False
                    work(conn)
            except psycopg.Error as error:
                if not logged:
                    logged = True
                    log.warning(
                        "notification connection lost, falling back to polling", error=type(error).__name__
                    )
                self._stopping.wait(_RECONNECT_DELAY)

    def _listen(self, conn: psycopg.Connection) -> None:
        assert self._stop_sockets is not None  # noqa: S101 - for the type checker
        if is_pooled(conn):
            log.info("notifications do not pass the pooler, polling", seconds=POOLED_INTERVAL)
            while not self._stopping.wait(POOLED_INTERVAL):
                self._database.notify_local(frozenset([EVENTS_TOPIC, ALL_TOPICS]))
            return
        conn.execute(f"LISTEN {CHANNEL}")
        # Notifications sent before this connection existed were missed.
        self._database.notify_local(frozenset([EVENTS_TOPIC, ALL_TOPICS]))
        # psycopg would wake ten times per second while it waits.
        with selectors.DefaultSelector() as selector:
            selector.register(conn.fileno(), selectors.EVENT_READ)
            selector.register(self._stop_sockets[0], selectors.EVENT_READ)
            while not self._stopping.is_set():
                for notification in conn.notifies(timeout=0):
                    if notification.pid != self._sender_pid:
                        self._database.notify_local(frozenset(notification.payload.split(",")))
                selector.select()

    def _send(self, conn: psycopg.Connection) -> None:
        import psycopg

        self._sender_pid = conn.info.backend_pid
        while True:
            with self._changed:
                while not self._unsent:
                    if self._stopping.is_set():
                        return
                    self._changed.wait()
                topics, self._unsent = self._unsent, set()
            try:
                # A notification need not survive a crash. This is for its transaction only: behind a pooler, the next
                # transaction of the session is another client's.
                conn.execute(
                    "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)",
                    [CHANNEL, encode_topics(topics)],
                )
            except psycopg.Error:
                self._enqueue(frozenset(topics))
                raise
