"""Store errors: counts the writes that failed, and logs them a few times, without data."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from typing import Final

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.store.driver_errors import ADVICE, error_code
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics

LOG_INTERVAL: Final = 30.0
"""Seconds between two log entries of one kind."""
_DEFAULT_ADVICE: Final = "make the database reachable"


class StoreErrorReport:
    """Counts and logs failed writes of this process. Thread-safe."""

    def __init__(self, metrics: Metrics) -> None:
        self._counter = metrics.process.store_errors
        self._lock = threading.Lock()
        self._next_log_at: dict[str, float] = {}
        self._not_logged: Counter[str] = Counter()

    def __call__(self, error: Exception) -> None:
        """Count the error, and log the first one of its kind in `LOG_INTERVAL`."""
        kind = _kind(error)
        self._counter.labels(kind).inc()
        with self._lock:
            now = uptime()
            if now < self._next_log_at.get(kind, now):
                self._not_logged[kind] += 1
                return
            self._next_log_at[kind] = now + LOG_INTERVAL
            not_logged = self._not_logged.pop(kind, 0)
        log.error(
            "write failed",
            kind=kind,
            error=str(error) if isinstance(error, StoreUnavailable) else _class_and_place(error),
            code=(error.code if isinstance(error, StoreUnavailable) else error_code(error)) or None,
            not_logged=not_logged or None,
            advice=ADVICE.get(kind, _DEFAULT_ADVICE),
            alert="sent once the database works again, because an alert is stored first",
        )


def _kind(error: Exception) -> str:
    if isinstance(error, StoreUnavailable):
        return error.kind
    return "out_of_memory" if isinstance(error, MemoryError) else "unexpected"


def _class_and_place(error: Exception) -> str:
    """Return the class of an error and the line of ours that it comes from. Its message may contain data."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/bridge/" in frame.filename]
    place = f" in {frames[-1].filename.rpartition('/bridge/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(getattr(error, 'orig', None) or error).__name__}{place}"
