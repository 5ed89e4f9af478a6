"""Result writer: records the results of attempts, many in one transaction, and retries while the database is away."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from bridge.errors import StoreUnavailable
from bridge.store.claimed_delivery import DELIVERIES_PER_TRANSACTION
from bridge.store.database import Database
from bridge.store.results import AttemptResult, record_results
from bridge.telemetry import buffered_logging, log, mask_address
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_thread import BackgroundThread
from bridge.worker.in_flight import InFlight

FLUSH_INTERVAL = 0.005
"""Seconds for which results are collected if a provider is that fast."""


class ResultWriter(BackgroundThread):
    """Thread that records every result that is submitted, also those submitted just before `stop`."""

    def __init__(
        self, database: Database, in_flight: InFlight, fingerprint_of: Callable[[str], str], metrics: Metrics
    ) -> None:
        super().__init__("result-writer")
        self._database = database
        self._in_flight = in_flight
        self._fingerprint_of = fingerprint_of
        self._metrics = metrics
        self._submitted: queue.SimpleQueue[Sequence[AttemptResult]] = queue.SimpleQueue()

    def submit(self, results: Sequence[AttemptResult]) -> None:
        """Have these results recorded soon."""
        self._in_flight.result_known(result.claimed for result in results)
        self._submitted.put(results)

    def stop(self) -> None:
        """Tell the thread to end once it has recorded what was submitted."""
        super().stop()
        self._submitted.put(())  # ends its wait

    def run(self) -> None:
        """Record results until the thread is stopped and none is left, or the database is away."""
        results: Sequence[AttemptResult] = ()
        while not (self.stopping.is_set() and not results and self._submitted.empty()):
            results = self.record(results or self.next_batch())

    def next_batch(self, timeout: float | None = None) -> list[AttemptResult]:
        """Wait for results, and return those that go into one transaction; none after `timeout` seconds or `stop`."""
        results: list[AttemptResult] = []
        with suppress(queue.Empty):
            results += self._submitted.get(timeout=timeout)
            self.stopping.wait(FLUSH_INTERVAL)
            while len(results) < DELIVERIES_PER_TRANSACTION:
                results += self._submitted.get_nowait()
        return results

    def record(
        self, results: Sequence[AttemptResult], *, without_details: bool = False
    ) -> Sequence[AttemptResult]:
        """Record results, one by one if the batch fails; return those that are still to be recorded."""
        if not results:
            return ()
        try:
            late = record_results(self._database, results, self._fingerprint_of)
            self.note_success()
        except StoreUnavailable as error:
            self.back_off(error)
            return () if self.stopping.is_set() else results
        except Exception as error:
            if len(results) > 1:
                for index, result in enumerate(results):
                    if self.record([result]):
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
                return self.record([result.without_texts()], without_details=True)
            late = []
        self._in_flight.recorded(result.claimed for result in results)
        for claimed in late:
            log.warning(
                "attempt returned after its lease was taken over",
                delivery=claimed.delivery.id,
                fencing_token=claimed.fencing_token,
            )
        self._log_results(results)
        return ()

    def _log_results(self, results: Sequence[AttemptResult]) -> None:
        """Count and log the results of attempts."""
        counts: Counter[tuple[str, str]] = Counter()
        with buffered_logging():
            logger = log.bind()
            for result in results:
                delivery, transition = result.delivery, result.transition
                reason = result.failure.reason if result.failure else None
                counts[delivery.connection, reason or result.outcome] += 1
                (logger.info if transition.state == "succeeded" else logger.warning)(
                    "attempt finished",
                    delivery=delivery.id, rule=delivery.rule, action=delivery.action, kind=delivery.kind,
                    outcome=result.outcome, state=transition.state, reason=reason, detail=transition.detail or None,
                    recipient=mask_address(delivery.recipient) or None,
                )  # fmt: skip
        for labels, count in counts.items():
            self._metrics.worker.attempts.labels(*labels).inc(count)
