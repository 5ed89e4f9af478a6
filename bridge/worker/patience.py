"""What the worker's threads do about trouble: say it, wait a moment, go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.errors import StoreUnavailable
from bridge.telemetry import log

AFTER_TROUBLE = 1.0
"""Seconds before a thread tries again."""


def say_and_wait(error: Exception, thread: str, stopping: threading.Event) -> None:
    """Log what went wrong and wait a moment, but not past the end."""
    if isinstance(error, StoreUnavailable):
        log.error("the database cannot be used", thread=thread, error=str(error), advice="trying again")
    else:
        log.error("a bug; the thread goes on", thread=thread, exc_info=error)
    stopping.wait(AFTER_TROUBLE)


@contextmanager
def patience(thread: str, stopping: threading.Event) -> Iterator[None]:
    """Let neither a database that is away nor a bug end a thread."""
    try:
        yield
    except Exception as error:
        say_and_wait(error, thread, stopping)
