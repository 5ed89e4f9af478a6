"""Running calls: which of them hang after their deadline, so that their threads are replaced.

The transports of `bridge.connector` end every attempt at its deadline. A connector with a transport of its own, or a
name that does not resolve, can still hang. Such a call keeps its thread, but not the slot of its account, so that the
connection works on.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from bridge.clock import uptime
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics
from bridge.worker.account import Account, Accounts
from bridge.worker.stall_detector import StallDetector

OVERDUE_SECONDS = 3.0
"""A call is overdue this long after its deadline: an error needs a moment to arrive."""


@dataclass(eq=False)
class RunningCall:
    """A call that has started and has not returned."""

    account: Account
    claimed_at: float
    """An `uptime`, as the call's deadline counts from the claim."""
    thread: int
    requeue_others: Callable[[], None]
    """Gives back the calls that its thread would have made next."""
    given_up: bool = False


class RunningCalls:
    """The running calls of this process. Its methods are thread-safe."""

    def __init__(self, accounts: Accounts, stalls: StallDetector, metrics: Metrics) -> None:
        self._accounts = accounts
        self._stalls = stalls
        self._running_gauge = metrics.worker.attempts_running
        self._overdue_gauge = metrics.worker.attempts_overdue
        self._lock = threading.Lock()
        self._calls: set[RunningCall] = set()
        self._export = cache(self._export_count)

    def start(self, account: Account, claimed_at: float, requeue_others: Callable[[], None]) -> RunningCall:
        """Add a call of the current thread."""
        self._export(account.name)
        call = RunningCall(account, claimed_at, threading.get_ident(), requeue_others)
        with self._lock:
            self._calls.add(call)
        return call

    def _export_count(self, name: str) -> None:
        """Count the calls of an account whenever the metrics are read, which is seldom, and not at each call."""
        self._running_gauge.labels(name).set_function(partial(self._count, name))

    def _count(self, name: str) -> int:
        with self._lock:
            return sum(call.account.name == name for call in self._calls)

    def finish(self, call: RunningCall) -> bool:
        """Remove a call that has returned; return False if it was given up before."""
        with self._lock:
            self._calls.discard(call)
            return not call.given_up

    def give_up_overdue(self) -> None:
        """Replace the threads of calls that do not return after their deadline, and free their slots.

        Time in which this process was suspended does not count: such calls return soon.
        """
        now, running_since = uptime(), self._stalls.running_since()
        overdue: Counter[str] = Counter()
        given_up: list[RunningCall] = []
        with self._lock:
            for call in self._calls:
                seconds = now - max(call.claimed_at, running_since)
                if seconds < call.account.limits.timeout + OVERDUE_SECONDS:
                    continue
                overdue[call.account.name] += 1
                if not call.given_up and call.account.threads.replace(call.thread):
                    call.given_up = True
                    given_up.append(call)
        for name in self._accounts.all():
            self._overdue_gauge.labels(name).set(overdue[name])
        for call in given_up:
            log.error(
                "attempt does not return, its thread was replaced",
                connection=call.account.name,
                advice="its connector must end every request within the deadline; see docs/connectors.md, Client",
            )
            self._accounts.release(call.account, 1, now - call.claimed_at)
            call.requeue_others()
