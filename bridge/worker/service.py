"""The worker as a service: three threads that never wait for a provider or inside a transaction.

    dispatcher     claims due deliveries, as far as each connection has free slots
    result writer  records the results of attempts, in batches
    maintenance    periodic work: expired leases, the rules file, heartbeats, retention

The attempts themselves run in the threads of their connection. Everything that waits is a row with a time.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bridge import __version__
from bridge.clock import uptime
from bridge.connector import Action
from bridge.errors import OutcomeUnknown, StoreUnavailable
from bridge.events import Event
from bridge.rules.model import Truth
from bridge.rules.route import consent
from bridge.store.claim import LEASE, Capacity, ClaimedDelivery, claim
from bridge.store.database import ALL_TOPICS, Database
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.results import AttemptResult, find_expired_leases, record_results
from bridge.store.retention import EMPTY, prune_batch
from bridge.store.workers import deregister, record_heartbeat
from bridge.telemetry import Metrics, buffered_logging, log, mask_address
from bridge.worker.attempt import Account, AttemptRunner, CallResult
from bridge.worker.clock_jumps import ClockJumpDetector
from bridge.worker.error_backoff import clear_outage, log_and_back_off, survive_errors
from bridge.worker.in_flight import InFlight
from bridge.worker.result_policy import LOOKUP_INTERVAL, NotStarted, classify_interrupted, classify_result
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.stall_detector import StallDetector

POLL_INTERVAL = 5.0
"""Seconds between two polls of a connection if there is no notification."""
MAINTENANCE_INTERVAL = 2.0
HEARTBEAT_INTERVAL = 15.0
PRUNE_INTERVAL = 3600.0
SMALL_BATCH, THROTTLE_SECONDS = 64, 0.1
"""While new events come in: calls per claim, or results per transaction. During a burst of events: seconds between two
transactions."""
FLUSH_INTERVAL = 0.005
"""Seconds for which results, and the slots of returned calls, are collected if a provider is that fast."""
MAX_BATCH = 500
"""Results per transaction."""


@dataclass(frozen=True)
class WorkerSettings:
    """The worker's settings, other than its connections."""

    allowlist: tuple[str, ...] = ()
    retention: timedelta = timedelta(days=30)
    hash_address: Callable[[str], str] | None = None
    """See `bridge.store.policy_inputs.PolicyConfig`."""


class Worker:
    """Claims deliveries, runs their attempts and records the results until it is stopped."""

    def __init__(
        self,
        database: Database,
        rules: RulesFile,
        accounts: Mapping[str, Account],
        attempts: AttemptRunner,
        settings: WorkerSettings | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.worker_id = f"{socket.gethostname()[:40]}-{os.getpid()}-{os.urandom(3).hex()}"
        self._database = database
        self._rules = rules
        self._accounts = dict(accounts)
        self._attempts = attempts
        self._settings = settings or WorkerSettings()
        self._metrics = metrics or Metrics()
        self._results: queue.SimpleQueue[Sequence[AttemptResult]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._drained = threading.Event()
        self._wake = threading.Condition()
        self._next_poll_at: dict[str, float] = dict.fromkeys(self._accounts, 0.0)
        self._unrecorded = 0
        self._in_flight = InFlight()
        self._clock_jumps = ClockJumpDetector()
        self._stalls = StallDetector()
        self._threads: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Take over the attempts of dead processes, and start the threads."""
        self._database.listeners.append(self._on_change)
        record_heartbeat(self._database, self.worker_id, __version__)
        self._take_over()
        self._stalls.start()
        for name, target in (
            ("dispatcher", self._dispatch),
            ("result-writer", self._record),
            ("maintenance", self._run_maintenance),
        ):
            thread = threading.Thread(target=target, name=f"bridge-{name}", daemon=True)
            self._threads[name] = thread
            thread.start()

    def stop(self, timeout: float = 25.0) -> bool:
        """Stop claiming and let running attempts finish within `timeout` seconds; return True if all of them did.

        Unfinished attempts keep their lease until it expires. Another worker then checks their outcome with the
        provider.
        """
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        end = uptime() + timeout
        dispatcher = self._threads["dispatcher"]
        dispatcher.join(timeout)  # its last claim has to be counted
        with self._wake:
            while self._unrecorded and uptime() < end:
                self._wake.wait(min(0.5, max(0.01, end - uptime())))
            clean = self._unrecorded == 0 and not dispatcher.is_alive()
        self._drained.set()
        for thread in self._threads.values():
            thread.join(timeout=max(2.0, end - uptime()))
        self._database.listeners.remove(self._on_change)
        self._stalls.stop()
        for account in self._accounts.values():
            account.close()
        try:
            deregister(self._database, self.worker_id)
        except StoreUnavailable:
            log.warning("failed to deregister worker", worker_id=self.worker_id)
        return clean

    def add_accounts(self, accounts: Mapping[str, Account]) -> None:
        """Start to work on these accounts too, because new rules use them."""
        with self._wake:
            self._accounts = {**self._accounts, **accounts}
            self._next_poll_at |= dict.fromkeys(accounts, 0.0)
            self._wake.notify_all()

    def _on_change(self, topics: frozenset[str]) -> None:
        with self._wake:
            names = self._accounts.keys()
            for name in names if ALL_TOPICS in topics else topics & names:
                self._next_poll_at[name] = 0.0
            self._wake.notify_all()

    # The dispatcher

    def _dispatch(self) -> None:
        while not self._stopping.is_set():
            for name in self._wait_for_accounts():
                if self._database.is_ingest_burst:
                    self._stopping.wait(THROTTLE_SECONDS)
                if self._stopping.is_set():
                    return
                claimed = False
                with survive_errors("dispatcher", self._stopping):
                    self._claim(self._accounts[name], small_batch=self._database.prefer_short_transactions)
                    claimed = True
                if not claimed:
                    self._on_change(frozenset([name]))

    def _wait_for_accounts(self) -> list[str]:
        """Wait until accounts with free slots may have due deliveries; return their names."""
        with self._wake:
            while not self._stopping.is_set():
                now = uptime()
                ready = [
                    name
                    for name, at in self._next_poll_at.items()
                    if at <= now and self._accounts[name].free_slots > 0
                ]
                if ready:
                    for name in ready:
                        self._next_poll_at[name] = now + POLL_INTERVAL
                    return ready
                polls = (at for name, at in self._next_poll_at.items() if self._accounts[name].free_slots > 0)
                self._wake.wait(max(0.0, min(polls, default=now + POLL_INTERVAL) - now))
            return []

    def _claim(self, account: Account, *, small_batch: bool) -> None:
        actions = account.connector.actions
        claimed_at = uptime()
        capacity = Capacity(
            account.name,
            min(account.free_slots, SMALL_BATCH) if small_batch else account.free_slots,
            lambda use: actions[name].batch if (name := use.partition(".")[2]) in actions else 1,
            account.connector.limits.per_second,
            max((action.batch for action in actions.values()), default=1),
        )
        batch = claim(self._database, capacity, self._policy_config(), self.worker_id)
        if batch.calls:
            self._clock_jumps.observe(batch.calls[0][0].started_at, claimed_at)
        with self._wake:
            account.running += len(batch.calls)
            self._unrecorded += sum(len(call) for call in batch.calls)
            self._in_flight.add((delivery for call in batch.calls for delivery in call), claimed_at)
            if batch.next_poll_in is not None:
                at = claimed_at + batch.next_poll_in.total_seconds()
                self._next_poll_at[account.name] = min(self._next_poll_at[account.name], at)
        calls = deque(batch.calls)
        # All threads take calls from the same queue, so a call that hangs does not delay the others.
        for _ in range(min(len(calls), account.connector.limits.concurrency)):
            try:
                account.submit(lambda: self._attempt_all(account, calls, claimed_at))
            except RuntimeError as error:  # the machine cannot start another thread
                log.error("failed to start attempt thread", connection=account.name, error=str(error))
                self._requeue(account, calls, claimed_at)

    def _attempt_all(
        self, account: Account, calls: deque[Sequence[ClaimedDelivery]], claimed_at: float
    ) -> None:
        """Make calls until the queue is empty, and release their slots every few milliseconds."""
        since, returned = uptime(), 0
        while call := _next_call(calls):
            self._submit_results(self._attempt(account, call, claimed_at))
            returned += 1
            now = uptime()
            if now - since >= FLUSH_INTERVAL:
                self._release_slots(account, returned, now - since)
                since, returned = now, 0
        if returned:
            self._release_slots(account, returned, uptime() - since)

    def _requeue(self, account: Account, calls: deque[Sequence[ClaimedDelivery]], claimed_at: float) -> None:
        """Requeue calls that cannot be made now, so that they are claimed again."""
        while call := _next_call(calls):
            self._submit_results(self._classify(call, [NotStarted()] * len(call), claimed_at))
            self._release_slots(account, 1, account.average_call_seconds)

    def _submit_results(self, results: Sequence[AttemptResult]) -> None:
        """Hand results to the result writer."""
        self._in_flight.finish(result.delivery for result in results)
        self._results.put(results)

    def _release_slots(self, account: Account, calls: int, seconds: float) -> None:
        """Release the slots of `calls`, which took `seconds` in total, and wake the dispatcher."""
        with self._wake:
            account.release(calls, seconds / calls)
            if account.free_slots:
                self._wake.notify_all()

    def _policy_config(self) -> PolicyConfig:
        messaging = self._rules.current.messaging

        def check_consent(event: Event) -> Truth | None:
            check = consent(event, messaging, self._database.clock.now())
            return check.result if check else None

        return PolicyConfig(messaging, check_consent, self._settings.allowlist, self._settings.hash_address)

    def _attempt(
        self, account: Account, call: Sequence[ClaimedDelivery], claimed_at: float
    ) -> list[AttemptResult]:
        started_at = uptime()
        self._in_flight.start(call)
        if self._is_premature_lookup(call[0]):
            results: list[CallResult] = [
                NotStarted("the database clock jumped; the lookup is repeated later", LOOKUP_INTERVAL)
            ]
        else:
            results = self._attempts.run(account, call, claimed_at + account.connector.limits.timeout)
        self._metrics.attempt_seconds.labels(account.name).observe(uptime() - started_at)
        return self._classify(call, results, claimed_at)

    def _classify(
        self, call: Sequence[ClaimedDelivery], results: Sequence[CallResult], claimed_at: float
    ) -> list[AttemptResult]:
        now = call[0].started_at + timedelta(seconds=uptime() - claimed_at)
        stalled = self._stalls.was_stalled_since(claimed_at)
        classified = []
        for delivery, result in zip(call, results, strict=True):
            action = self._action_of(delivery)
            try:
                classified.append(classify_result(delivery, action, result, now))
            except Exception as error:  # whatever a connector returned, the attempt has a result
                log.error("failed to classify attempt result", delivery=delivery.id, exc_info=error)
                unknown = OutcomeUnknown(
                    f"{type(error).__name__} while classifying the result", reason="internal_error"
                )
                classified.append(classify_result(delivery, action, unknown, now))
        for item in classified:
            if stalled and item.failure is not None and item.failure.reason in ("timeout", "network"):
                item.affects_connection = False  # caused by this process, not by the provider
        return classified

    def _is_premature_lookup(self, delivery: ClaimedDelivery) -> bool:
        """Return True for a lookup that a clock jump made due before the provider can know the outcome."""
        action = self._action_of(delivery)
        return (
            delivery.kind == "lookup"
            and action is not None
            and self._clock_jumps.jumped_within(action.lookup_delay)
        )

    def _action_of(self, delivery: ClaimedDelivery) -> Action | None:
        account = self._accounts.get(delivery.connection)
        return account.connector.actions.get(delivery.action.partition(".")[2]) if account else None

    # The result writer

    def _record(self) -> None:
        results: Sequence[AttemptResult] = ()
        while not (self._drained.is_set() and not results and self._results.empty()):
            results = self._write_results(results or self._next_results())

    def _next_results(self) -> list[AttemptResult]:
        results: list[AttemptResult] = []
        with suppress(queue.Empty):
            results += self._results.get(timeout=0.2)
            self._drained.wait(THROTTLE_SECONDS if self._database.is_ingest_burst else FLUSH_INTERVAL)
            limit = SMALL_BATCH if self._database.prefer_short_transactions else MAX_BATCH
            while len(results) < limit:
                results += self._results.get_nowait()
        return results

    def _write_results(
        self, results: Sequence[AttemptResult], *, without_details: bool = False
    ) -> Sequence[AttemptResult]:
        """Record results, one by one if the batch fails; return those that are still to be recorded."""
        if not results:
            return ()
        try:
            self._record_results(results)
            clear_outage("result writer")
        except StoreUnavailable as error:
            log_and_back_off(error, "result writer", self._drained)
            return () if self._drained.is_set() else results
        except Exception as error:
            if len(results) > 1:
                for index, result in enumerate(results):
                    if self._write_results([result]):
                        return results[index:]
                return ()
            [result] = results
            log.error(
                "failed to record attempt result"
                if without_details
                else "failed to record attempt result, retrying without its details",
                delivery=result.delivery.id,
                outcome=result.outcome,
                exc_info=error,
            )
            if not without_details:
                return self._write_results([_strip_details(result)], without_details=True)
        self._on_recorded(results)
        return ()

    def _record_results(self, results: Sequence[AttemptResult]) -> None:
        for late in record_results(self._database, results, self._fingerprint):
            log.warning(
                "attempt returned after its lease was taken over",
                delivery=late.id,
                fencing_token=late.fencing_token,
            )

    def _fingerprint(self, name: str) -> str:
        return self._accounts[name].fingerprint

    def _on_recorded(self, results: Sequence[AttemptResult]) -> None:
        """Log recorded results, and remove their claims."""
        self._log_results(results)
        with self._wake:
            self._unrecorded -= len(results)
            self._in_flight.remove(result.delivery for result in results)
            self._wake.notify_all()

    def _log_results(self, results: Sequence[AttemptResult]) -> None:
        """Count and log the results of attempts."""
        counts: Counter[tuple[str, str]] = Counter()
        with buffered_logging():
            logger = log.bind()
            for result in results:
                delivery = result.delivery
                reason = result.failure.reason if result.failure else None
                counts[delivery.connection, reason or result.outcome] += 1
                write = logger.info if result.state == "succeeded" else logger.warning
                write(
                    "attempt finished",
                    delivery=delivery.id, rule=delivery.rule, action=delivery.action, kind=delivery.kind,
                    outcome=result.outcome, state=result.state, reason=reason, detail=result.detail or None,
                    recipient=mask_address(delivery.recipient) or None,
                )  # fmt: skip
        for labels, count in counts.items():
            self._metrics.attempts.labels(*labels).inc(count)

    # Maintenance

    def _run_maintenance(self) -> None:
        next_heartbeat = next_prune = 0.0
        while not self._stopping.wait(MAINTENANCE_INTERVAL):
            with survive_errors("maintenance", self._stopping):
                self._rules.reload_if_changed()
                self._take_over()
                if uptime() >= next_heartbeat:
                    record_heartbeat(self._database, self.worker_id, __version__)
                    next_heartbeat = uptime() + HEARTBEAT_INTERVAL
                if uptime() >= next_prune:
                    pruned = prune_batch(self._database, self._settings.retention, self._rules.current)
                    if pruned == EMPTY:
                        next_prune = uptime() + PRUNE_INTERVAL
                    else:
                        log.info("pruned data older than BRIDGE_RETENTION", **vars(pruned))

    def _take_over(self) -> None:
        """Record a result for attempts whose process is dead or suspended: their outcome is unknown."""
        read_started = uptime()
        expired, now = find_expired_leases(self._database, self.worker_id, connections=self._accounts)
        steady_seconds = self._clock_jumps.observe(now, read_started)
        if steady_seconds < LEASE.total_seconds() and not self._database.is_sqlite:
            return  # after a clock jump, another worker's lease may have expired early
        # An attempt of this process is taken over only when its lease is over by this process's own uptime.
        abandoned = [delivery for delivery in expired if not self._in_flight.holds(delivery, LEASE)]
        for delivery in abandoned:
            log.warning(
                "attempt taken over",
                delivery=delivery.id,
                action=delivery.action,
                fencing_token=delivery.fencing_token,
            )
        if abandoned:
            record_results(self._database, [self._classify_abandoned(each, now) for each in abandoned])

    def _classify_abandoned(self, delivery: ClaimedDelivery, now: datetime) -> AttemptResult:
        action = self._action_of(delivery)
        if self._in_flight.waits_for_thread(delivery):  # the attempt never starts: its deadline is over
            return classify_result(delivery, action, NotStarted(), now)
        return classify_interrupted(delivery, action, now)


def _next_call(calls: deque[Sequence[ClaimedDelivery]]) -> Sequence[ClaimedDelivery]:
    """Take the next call from the queue that several threads share; return nothing if it is empty."""
    try:
        return calls.popleft()
    except IndexError:
        return ()


def _strip_details(result: AttemptResult) -> AttemptResult:
    """Return the same result without the provider's texts."""
    if result.failure is not None:
        result.failure.detail = ""
    return replace(result, detail="", external_id=None)
