"""Error backoff: lets the worker's threads log an error, wait a moment and continue."""

from __future__ import annotations

import threading
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


_outages: dict[str, _Outage] = {}
"""The database outage that each thread is in, by the thread's name."""


def log_and_back_off(error: Exception, thread: str, stopping: threading.Event) -> None:
    """Log the error and wait a moment, unless `stopping` is set. A long outage is logged once a minute."""
    if isinstance(error, StoreUnavailable):
        now = uptime()
        outage = _outages.setdefault(thread, _Outage(now, now))
        if now >= outage.next_log_at:
            outage.next_log_at = now + LOG_INTERVAL
            log.error("database unavailable", thread=thread, error=str(error), advice="retrying")
    else:
        log.error("unexpected error, continuing", thread=thread, exc_info=error)
    stopping.wait(RETRY_DELAY)


def clear_outage(thread: str) -> None:
    """Record that this thread has reached the database."""
    if (outage := _outages.pop(thread, None)) is not None:
        log.info("database available again", thread=thread, seconds=round(uptime() - outage.since))


@contextmanager
def survive_errors(thread: str, stopping: threading.Event) -> Iterator[None]:
    """Keep a thread alive when the database is unavailable or an unexpected error occurs."""
    try:
        yield
        clear_outage(thread)
    except Exception as error:
        log_and_back_off(error, thread, stopping)
