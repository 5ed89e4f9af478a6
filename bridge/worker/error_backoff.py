"""What the worker's threads do about trouble: say it, wait a moment, go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.telemetry import log

AFTER_TROUBLE = 1.0
"""Seconds before a thread tries again."""
SAY_EVERY = 60.0
"""Seconds after which it is said again that the database is away."""


@dataclass
class _Outage:
    since: float
    say_at: float


_outages: dict[str, _Outage] = {}
"""By thread: since when it has not reached the database."""


def say_and_wait(error: Exception, thread: str, stopping: threading.Event) -> None:
    """Log what went wrong and wait a moment, but not past the end. A long outage is said once a minute."""
    if isinstance(error, StoreUnavailable):
        now = uptime()
        outage = _outages.setdefault(thread, _Outage(now, now))
        if now >= outage.say_at:
            outage.say_at = now + SAY_EVERY
            log.error("the database cannot be used", thread=thread, error=str(error), advice="trying again")
    else:
        log.error("a bug; the thread goes on", thread=thread, exc_info=error)
    stopping.wait(AFTER_TROUBLE)


def is_back(thread: str) -> None:
    """Note that this thread has reached the database."""
    if (outage := _outages.pop(thread, None)) is not None:
        log.info("the database is back", thread=thread, seconds=round(uptime() - outage.since))


@contextmanager
def patience(thread: str, stopping: threading.Event) -> Iterator[None]:
    """Let neither a database that is away nor a bug end a thread."""
    try:
        yield
        is_back(thread)
    except Exception as error:
        say_and_wait(error, thread, stopping)
