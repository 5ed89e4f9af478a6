"""The pace of searches, for providers that limit them more than other requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from bridge.connector.deadline import remaining_seconds
from bridge.errors import TransientError


class SearchLimiter:
    """A limit of searches per second, shared by the threads of one client.

    All searches of `per_second` may be sent at once; none is sent within a second of the one that many before it.
    """

    def __init__(
        self,
        per_second: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._recent: deque[float] = deque(maxlen=max(1, int(per_second)))
        self._window = max(1, int(per_second)) / per_second
        self._now, self._sleep = now, sleep
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until a search may be sent. Raise TransientError if the attempt would time out before."""
        with self._lock:
            now = self._now()
            is_full = len(self._recent) == self._recent.maxlen
            start = max(now, self._recent[0] + self._window) if is_full else now
            seconds = start - now
            if seconds > remaining_seconds(60):
                raise TransientError(
                    "too many searches for contacts wait before this one",
                    reason="rate_limited",
                    retry_after=timedelta(seconds=seconds),
                )
            self._recent.append(start)
        if seconds > 0:
            self._sleep(seconds)
