"""Maintenance: heartbeats, expired leases, unclaimed deliveries, changes of the rules file, retention."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count

from bridge import __version__
from bridge.clock import uptime
from bridge.connector.response_limits import overdue_text
from bridge.errors import OutcomeUnknown
from bridge.store.claim import LEASE
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.database import Database
from bridge.store.deletion import delete_batch
from bridge.store.history_upkeep import update_history
from bridge.store.results import AttemptResult, find_expired_leases, record_results
from bridge.store.retention import EMPTY, prune_batch
from bridge.store.unclaimed import explain_unclaimed
from bridge.store.work import is_any_running
from bridge.store.workers import record_heartbeat
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics
from bridge.worker.account import Accounts
from bridge.worker.background_thread import BackgroundThread
from bridge.worker.clock_jumps import ClockJumpDetector
from bridge.worker.in_flight import InFlight
from bridge.worker.result_policy import (
    NotStarted,
    classify_interrupted,
    classify_result,
)
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.stall_detector import StallDetector

MAINTENANCE_INTERVAL = 2.0
TICKS_PER_TAKE_OVER = 2
"""Expired leases are looked for in every second round: this is most of what an idle worker does."""
HEARTBEAT_INTERVAL = 15.0
HISTORY_INTERVAL = 15.0
EXPLAIN_INTERVAL = 60.0
PRUNE_INTERVAL = 3600.0


class Maintenance(BackgroundThread):
    """Thread for the periodic work."""

    def __init__(
        self,
        database: Database,
        rules: RulesFile,
        accounts: Accounts,
        in_flight: InFlight,
        clock_jumps: ClockJumpDetector,
        stalls: StallDetector,
        give_up_overdue: Callable[[], None],
        metrics: Metrics,
        retention: timedelta,
        delete_after: timedelta | None,
        worker_id: str,
    ) -> None:
        super().__init__("maintenance")
        self._database = database
        self._rules = rules
        self._accounts = accounts
        self._in_flight = in_flight
        self._clock_jumps = clock_jumps
        self._stalls = stalls
        self._give_up_overdue = give_up_overdue
        self._metrics = metrics
        self._retention = retention
        self._delete_after = delete_after
        self._worker_id = worker_id

    def start(self) -> None:
        """Record the first heartbeat, take over the attempts of dead processes, and start the thread."""
        self._record_heartbeat()
        self.take_over()
        super().start()

    def run(self) -> None:
        """Do the periodic work until the thread is stopped."""
        next_heartbeat = next_history = next_explanation = next_prune = 0.0
        ticks = count()
        while not self.stopping.wait(MAINTENANCE_INTERVAL):
            with self.survive_errors():
                self._rules.reload_if_changed()
                self._give_up_overdue()
                if next(ticks) % TICKS_PER_TAKE_OVER == 0:
                    self.take_over()
                if uptime() >= next_heartbeat:
                    self._record_heartbeat()
                    next_heartbeat = uptime() + HEARTBEAT_INTERVAL
                if uptime() >= next_history and not update_history(self._database):
                    next_history = uptime() + HISTORY_INTERVAL
                if uptime() >= next_explanation:
                    self.explain_unclaimed()
                    next_explanation = uptime() + EXPLAIN_INTERVAL
                if uptime() >= next_prune and not self._prune():
                    self._metrics.worker.pruned_at.set_to_current_time()
                    next_prune = uptime() + PRUNE_INTERVAL

    def _prune(self) -> bool:
        """Prune and delete one batch; return whether there was anything."""
        pruned = prune_batch(self._database, self._retention, self._rules.current)
        if pruned != EMPTY:
            log.info("pruned data older than BRIDGE_RETENTION", **vars(pruned))
            return True
        if self._delete_after is None:
            return False
        deleted = delete_batch(self._database, self._delete_after, self._rules.current)
        if deleted:
            log.info("deleted rows older than BRIDGE_DELETE_AFTER", rows=deleted)
        return deleted > 0

    def explain_unclaimed(self) -> None:
        """Say of due deliveries that wait for a connection that no process has, that they do."""
        for connection, deliveries in explain_unclaimed(self._database, self._accounts.all()).items():
            log.warning(
                "deliveries wait for a connection that no running process has",
                connection=connection,
                deliveries=deliveries,
                advice=f"set the variables of {connection} and restart, or finish the upgrade",
            )

    def take_over(self) -> None:
        """Record a result for attempts whose process is dead or suspended, or that hang: their outcome is unknown."""
        read_started = uptime()
        expired: list[ClaimedDelivery] = []
        is_any, now = is_any_running(self._database)
        if is_any:
            read_started = uptime()
            expired, now = find_expired_leases(
                self._database, self._worker_id, connections=self._accounts.all()
            )
        steady_seconds = self._clock_jumps.observe(now, read_started)
        if steady_seconds < LEASE.total_seconds() and not self._database.is_sqlite:
            return  # after a clock jump, another worker's lease may have expired early
        # An attempt of this process is taken over only when its lease is over by this process's own uptime.
        abandoned = [claimed for claimed in expired if not self._in_flight.is_alive(claimed, LEASE)]
        for claimed in abandoned:
            log.warning(
                "attempt taken over",
                delivery=claimed.delivery.id,
                action=claimed.delivery.action,
                fencing_token=claimed.fencing_token,
            )
        if abandoned:
            results = [self._classify_abandoned(each, now) for each in abandoned]
            record_results(self._database, results)
            for result in results:
                reason = result.failure.reason if result.failure else result.outcome
                self._metrics.worker.attempts.labels(result.delivery.connection, reason).inc()

    def _classify_abandoned(self, claimed: ClaimedDelivery, now: datetime) -> AttemptResult:
        action = self._accounts.action_of(claimed.delivery)
        if self._in_flight.waits_for_thread(claimed):  # the attempt never starts: its deadline is over
            return classify_result(claimed, action, NotStarted(), now)
        claimed_at = self._in_flight.running_since(claimed)
        account = self._accounts.get(claimed.delivery.connection)
        if claimed_at is not None and account is not None and not self._stalls.was_stalled_since(claimed_at):
            return classify_result(
                claimed, action, OutcomeUnknown(overdue_text(account.limits.timeout), reason="timeout"), now
            )
        return classify_interrupted(claimed, action, now)

    def _record_heartbeat(self) -> None:
        record_heartbeat(self._database, self._worker_id, __version__)
