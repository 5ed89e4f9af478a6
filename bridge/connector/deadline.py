"""The deadline of the attempt that runs in the current thread or task.

An attempt must not outlive its lease, because another worker may then have claimed the delivery. The remaining time
therefore limits the timeout of every socket, and is checked again right before a request is sent. A process that was
suspended past its lease aborts instead of sending.
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
    """Set the deadline, in terms of `bridge.clock.uptime()`, of attempts made inside the `with` block."""
    token = _deadline.set(uptime_at)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining_seconds(limit: float) -> float:
    """Return the timeout for a step of the attempt: `limit`, or less if the deadline is nearer (never below 0)."""
    deadline = _deadline.get()
    return limit if deadline is None else max(0.0, min(limit, deadline - uptime()))


def check_deadline() -> None:
    """Raise TransientError (nothing happened) if the deadline has passed. Call it right before a request is sent."""
    deadline = _deadline.get()
    if deadline is not None and uptime() >= deadline:
        raise TransientError("the attempt timed out before this request was sent", reason="timeout")
