"""Call runner: makes the claimed calls of an account in its threads, and hands over their results."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache

from bridge.clock import uptime
from bridge.connector.deadline import count_requests
from bridge.errors import OutcomeUnknown
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.deliveries import Delivery
from bridge.store.results import AttemptResult
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics
from bridge.worker.account import Account, Accounts
from bridge.worker.attempt import AttemptRunner, CallResult
from bridge.worker.attempt_traces import trace_attempts
from bridge.worker.clock_jumps import ClockJumpDetector
from bridge.worker.in_flight import InFlight
from bridge.worker.result_policy import (
    LOOKUP_INTERVAL,
    NotStarted,
    UnsupportedByThisVersion,
    classify_result,
)
from bridge.worker.running_calls import RunningCalls
from bridge.worker.stall_detector import StallDetector

RELEASE_INTERVAL = 0.005
"""Seconds for which the slots of returned calls are collected if a provider is that fast."""

Call = Sequence[ClaimedDelivery]
"""The deliveries of one call: one, or a batch."""


class CallRunner:
    """Makes calls, classifies their results and passes them to `submit_results`. Its methods are thread-safe."""

    def __init__(
        self,
        accounts: Accounts,
        attempts: AttemptRunner,
        in_flight: InFlight,
        submit_results: Callable[[Sequence[AttemptResult]], None],
        clock_jumps: ClockJumpDetector,
        stalls: StallDetector,
        metrics: Metrics,
    ) -> None:
        self._running = RunningCalls(accounts, stalls, metrics)
        self._attempt_seconds = cache(metrics.worker.attempt_seconds.labels)
        self._first_attempt_delay = metrics.worker.first_attempt_delay
        self.give_up_overdue = self._running.give_up_overdue
        self._accounts = accounts
        self._attempts = attempts
        self._in_flight = in_flight
        self._submit_results = submit_results
        self._clock_jumps = clock_jumps
        self._stalls = stalls

    def submit(
        self, account: Account, calls: Sequence[Call], claimed_at: float, requests_per_call: int = 1
    ) -> None:
        """Have these calls, claimed at `claimed_at` (an `uptime`), made in the account's threads.

        `requests_per_call` is what the claim took from the budget of requests for each of them.
        """
        waiting: queue.SimpleQueue[Call] = queue.SimpleQueue()
        for call in calls:
            waiting.put(call)
        # All threads take calls from the same queue, so a call that hangs does not delay the others.
        for _ in range(min(len(calls), account.limits.concurrency)):
            try:
                account.submit(lambda: self._make_calls(account, waiting, claimed_at, requests_per_call))
            except RuntimeError as error:  # the machine cannot start another thread
                log.error("failed to start attempt thread", connection=account.name, error=str(error))
                self._requeue(account, waiting, claimed_at, requests_per_call)

    def _make_calls(
        self, account: Account, waiting: queue.SimpleQueue[Call], claimed_at: float, requests_per_call: int
    ) -> None:
        """Make calls until the queue is empty, and release their slots every few milliseconds.

        If a call is given up, another thread replaces this one and the other calls are given back.
        """
        since, returned = uptime(), 0
        while call := _take(waiting):
            running = self._running.start(
                account,
                claimed_at,
                lambda: self._requeue(account, waiting, claimed_at, requests_per_call),
            )
            results = self._attempt(account, call, claimed_at, requests_per_call)
            is_ours = self._running.finish(running)
            self._submit_results(results)
            if not is_ours:
                break
            returned += 1
            now = uptime()
            if now - since >= RELEASE_INTERVAL:
                self._accounts.release(account, returned, now - since)
                since, returned = now, 0
        if returned:
            self._accounts.release(account, returned, uptime() - since)

    def _requeue(
        self, account: Account, waiting: queue.SimpleQueue[Call], claimed_at: float, requests_per_call: int
    ) -> None:
        """Record that calls cannot be made now, so that they are claimed again."""
        while call := _take(waiting):
            results = self._classify(account, call, [NotStarted()] * len(call), claimed_at)
            results[0].extra_requests = -requests_per_call
            self._submit_results(results)
            self._accounts.release(account, 1, account.average_call_seconds)

    def _attempt(
        self, account: Account, call: Call, claimed_at: float, requests_per_call: int
    ) -> list[AttemptResult]:
        started_at = uptime()
        self._in_flight.started(call)
        with count_requests() as count:
            if self._is_premature_lookup(account, call[0].delivery):
                results: list[CallResult] = [
                    NotStarted("the database clock jumped; the lookup is repeated later", LOOKUP_INTERVAL)
                ]
            else:
                self._observe_first_attempts(call)
                results = self._attempts.run(account, call, claimed_at + account.limits.timeout)
        self._attempt_seconds(account.name).observe(uptime() - started_at)
        requests = count.sent
        if not isinstance(results[0], NotStarted | UnsupportedByThisVersion):
            requests = max(1, requests)  # some transports do not count
            account.note_requests(requests)
        classified = self._classify(account, call, results, claimed_at)
        classified[0].extra_requests = requests - requests_per_call
        classified[0].quota = account.quota_to_record(count.quota)
        trace_attempts(classified, uptime() - started_at)
        return classified

    def _observe_first_attempts(self, call: Call) -> None:
        """Count how long it took from the events to their first attempts, for deliveries that nothing delayed."""
        for claimed in call:
            delivery = claimed.delivery
            is_first = claimed.fencing_token == 1 and delivery.trigger == "rule"
            if is_first and delivery.run_at == delivery.created_at:
                seconds = (claimed.started_at - claimed.event.received_at).total_seconds()
                self._first_attempt_delay.observe(max(0.0, seconds))

    def _is_premature_lookup(self, account: Account, delivery: Delivery) -> bool:
        """Return True for a lookup that a clock jump made due before the provider can know the outcome."""
        if delivery.kind != "lookup":
            return False
        action = account.connector.find_action(delivery.action)
        return action is not None and self._clock_jumps.jumped_within(action.lookup_delay)

    def _classify(
        self, account: Account, call: Call, results: Sequence[CallResult], claimed_at: float
    ) -> list[AttemptResult]:
        now = call[0].started_at + timedelta(seconds=uptime() - claimed_at)
        stalled = self._stalls.was_stalled_since(claimed_at)
        action = account.connector.find_action(call[0].delivery.action)
        classified = []
        for claimed, result in zip(call, results, strict=True):
            try:
                classified.append(classify_result(claimed, action, result, now))
            except Exception as error:  # whatever a connector returned, the attempt has a result
                log.error("failed to classify attempt result", delivery=claimed.delivery.id, exc_info=error)
                unknown = OutcomeUnknown(
                    f"{type(error).__name__} while classifying the result", reason="internal_error"
                )
                classified.append(classify_result(claimed, action, unknown, now))
        for item in classified:
            if stalled and item.failure is not None and item.failure.reason in ("timeout", "network"):
                item.affects_connection = False  # caused by this process, not by the provider
        return classified


def _take(waiting: queue.SimpleQueue[Call]) -> Call:
    """Take the next call from the queue that several threads share; return nothing if it is empty."""
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return ()
