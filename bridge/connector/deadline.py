"""The deadline of the attempt that runs in the current thread or task, and the number of its requests.

An attempt must not outlive its lease, because another worker may then have claimed the delivery. The remaining time
therefore limits every response in total, and is checked again right before a request is sent. A process that was
suspended past its lease aborts instead of sending. The requests are counted because a connection's limit per second is
one of requests, and an attempt may need several.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from bridge.clock import uptime
from bridge.errors import TransientError

_deadline: ContextVar[_Deadline | None] = ContextVar("attempt_deadline", default=None)
_requests: ContextVar[RequestCount | None] = ContextVar("request_count", default=None)


@dataclass
class _Deadline:
    at: float
    """The `uptime()` at which the attempt must be over."""
    seconds: float
    """The time that the attempt had when it started."""
    wrote: bool = False
    """Something may have been written in the attempt, so a later failure does not prove that nothing happened."""


class Quota(NamedTuple):
    """How much of an account's quota of requests is used up, as its provider says."""

    used: int
    limit: int


@dataclass
class RequestCount:
    """The number of requests that were sent, and the quota that the last response reported."""

    sent: int = 0
    quota: Quota | None = None


@contextmanager
def attempt_deadline(uptime_at: float) -> Iterator[None]:
    """Set the deadline, in terms of `bridge.clock.uptime()`, of attempts made inside the `with` block."""
    token = _deadline.set(_Deadline(uptime_at, max(0.0, uptime_at - uptime())))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def count_requests() -> Iterator[RequestCount]:
    """Count the requests that are sent inside the `with` block."""
    count = RequestCount()
    token = _requests.set(count)
    try:
        yield count
    finally:
        _requests.reset(token)


def count_request() -> None:
    """Count one request. The transports of `bridge.connector` do so; call it right before any other request."""
    count = _requests.get()
    if count is not None:
        count.sent += 1


def report_quota(used: int, limit: int) -> None:
    """Report how much of the account's quota is used up, if a response says so; the dashboard shows it."""
    count = _requests.get()
    if count is not None and limit > 0:
        count.quota = Quota(used, limit)


def remaining_seconds(limit: float) -> float:
    """Return the timeout for a step of the attempt: `limit`, or less if the deadline is nearer (never below 0)."""
    deadline = _deadline.get()
    return limit if deadline is None else max(0.0, min(limit, deadline.at - uptime()))


def attempt_limit(default: float) -> float:
    """Return the seconds that the attempt had when it started, and `default` outside an attempt."""
    deadline = _deadline.get()
    return default if deadline is None else deadline.seconds


def note_write() -> None:
    """Note that the attempt may have taken effect."""
    deadline = _deadline.get()
    if deadline is not None:
        deadline.wrote = True


def forget_writes() -> None:
    """Note that what was written so far is recorded, so that a retry does not repeat it."""
    deadline = _deadline.get()
    if deadline is not None:
        deadline.wrote = False


def has_written() -> bool:
    """Return whether the attempt may have taken effect already."""
    deadline = _deadline.get()
    return deadline is not None and deadline.wrote


def check_deadline() -> None:
    """Raise TransientError (nothing happened) if the deadline has passed. Call it right before a request is sent."""
    deadline = _deadline.get()
    if deadline is not None and uptime() >= deadline.at:
        raise TransientError("the attempt timed out before this request was sent", reason="timeout")
