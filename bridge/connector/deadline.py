"""The deadline of the attempt that runs in this thread or task.

An attempt may not outlive its lease: by then another replica may have taken the delivery over. So the time that
is left bounds every socket's timeout, and is checked once more on the way into the socket. A process that was
frozen past its lease therefore aborts instead of sending.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from bridge.clock import uptime
from bridge.errors import TransientError

_deadline: ContextVar[float | None] = ContextVar("attempt_deadline", default=None)


@contextmanager
def attempt_deadline(uptime_at: float) -> Iterator[None]:
    """While inside, attempts end at this `bridge.clock.uptime()`."""
    token = _deadline.set(uptime_at)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining_seconds(limit: float) -> float:
    """Seconds that a step of the attempt may take: `limit`, or less when the deadline is nearer (never below 0)."""
    deadline = _deadline.get()
    return limit if deadline is None else max(0.0, min(limit, deadline - uptime()))


def check_deadline() -> None:
    """Call right before a request leaves; raises TransientError (nothing happened) when the attempt is out of time."""
    deadline = _deadline.get()
    if deadline is not None and uptime() >= deadline:
        raise TransientError("the attempt ran out of time before this request left", reason="timeout")
