"""Background thread: logs an error, waits a moment and continues, until it is stopped."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.telemetry import log

RETRY_DELAY = 1.0
"""Seconds before a thread tries again."""
LOG_INTERVAL = 60.0
"""Seconds between two log entries about the same database outage."""


@dataclass
class _Outage:
    since: float
    next_log_at: float


class BackgroundThread(ABC):
    """A thread that runs `run` until `stopping` is set. Errors within `survive_errors` do not end it."""

    def __init__(self, name: str) -> None:
        self.stopping = threading.Event()
        self._name = name
        self._thread = threading.Thread(target=self.run, name=f"bridge-{name}", daemon=True)
        self._outage: _Outage | None = None
        """The database outage that this thread is in. Only this thread uses it."""

    @abstractmethod
    def run(self) -> None:
        """Work until `stopping` is set."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end; `join` waits for it."""
        self.stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the thread's end; return True if it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_running(self) -> bool:
        """True unless the thread has ended."""
        return self._thread.is_alive()

    @contextmanager
    def survive_errors(self) -> Iterator[None]:
        """Log any error of the block and wait a moment, so that the thread continues."""
        try:
            yield
            self.note_success()
        except Exception as error:
            self.back_off(error)

    def back_off(self, error: Exception) -> None:
        """Log the error and wait a moment, unless `stopping` is set. A long outage is logged once a minute."""
        if isinstance(error, StoreUnavailable):
            now = uptime()
            self._outage = self._outage or _Outage(now, now)
            if now >= self._outage.next_log_at:
                self._outage.next_log_at = now + LOG_INTERVAL
                log.error(
                    "database unavailable",
                    thread=self._name,
                    error=str(error),
                    advice="retrying: check that the database is running and its disk has space",
                )
        else:
            log.error("unexpected error, continuing", thread=self._name, exc_info=error)
        self.stopping.wait(RETRY_DELAY)

    def note_success(self) -> None:
        """Record that the thread has reached the database, which ends an outage."""
        if self._outage is not None:
            seconds = round(uptime() - self._outage.since)
            log.info("database available again", thread=self._name, seconds=seconds)
            self._outage = None
