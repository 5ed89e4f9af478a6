"""Prometheus metrics.

Every series whose labels are known at the start exists from the start with the value 0, because `rate()` of a series
that appears later misses its first increase. Labels have few values: names of connections and fixed words, never an
event, a rule or a person. What is read from the database is in `bridge.store.gauges`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase

from bridge import __version__
from bridge.lifecycle import AttemptOutcome, DeliveryState, FailureReason

disable_created_metrics()  # type: ignore[no-untyped-call]

WEBHOOK_STATUSES: Final = ("200", "duplicate", "conflict", "400", "401", "404", "405", "413", "503")
LOGIN_RESULTS: Final = ("succeeded", "wrong_token", "too_many", "cross_site")
CALLBACK_STATUSES: Final = ("200", "400", "403", "413", "503")
REJECTION_REASONS: Final = (
    "signature_missing", "signature_malformed", "signature_wrong", "signature", "timestamp_missing", "timestamp_off",
    "too_large", "not_json", "no_event", "bad_identity", "wrong_path", "form", "bad_request",
    "headers_too_large", "too_slow", "too_many_connections", "connection_evicted", "memory", "wrong_token", "too_many",
    "cross_site",
)  # fmt: skip
STORE_ERROR_KINDS: Final = (
    "disk_full", "disk_error", "read_only", "permission", "cannot_open", "unreachable", "timeout",
    "too_many_connections", "out_of_memory", "damaged", "not_a_database", "unexpected",
)  # fmt: skip
ATTEMPT_REASONS: Final = tuple(
    dict.fromkeys(map(str, (AttemptOutcome.SUCCEEDED, *FailureReason, *AttemptOutcome)))
)
OPEN_STATES: Final = (
    DeliveryState.PENDING,
    DeliveryState.RUNNING,
    DeliveryState.RETRYING,
    DeliveryState.NEEDS_REVIEW,
    DeliveryState.FAILED,
)
"""The states that `bridge_deliveries` counts: those in which something is still to be done."""

_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ATTEMPT_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
_DELAY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class _Group:
    """Metrics that are exported together, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def _counter(
        self, name: str, text: str, labels: Sequence[str] = (), values: Iterable[str] = ()
    ) -> Counter:
        """Return a counter. `values` are the known values of its only label."""
        counter = Counter(name, text, labels, registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str, labels: Sequence[str] = (), *, registered: bool = True) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry if registered else None)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def metrics(self) -> list[MetricWrapperBase]:
        """Return every metric of this group, also those that are not registered here."""
        return [metric for metric in vars(self).values() if isinstance(metric, MetricWrapperBase)]


class ProcessMetrics(_Group):
    """Metrics of every process with an endpoint: `bridge serve` and `bridge worker`."""

    def __init__(self) -> None:
        super().__init__()
        ProcessCollector(registry=self.registry)
        self.build_info = self._gauge("bridge_build_info", "Version of the bridge", ["version", "python"])
        self.build_info.labels(__version__, platform.python_version()).set(1)
        self.database_up = self._gauge(
            "bridge_database_up",
            "1 if the database can be written and read; otherwise the metrics read from it are absent",
        )
        self.store_errors = self._counter(
            "bridge_store_errors",
            "Transactions of this process that failed, by kind (`disk_full`, `read_only`, `unreachable`, ...)",
            ["kind"],
            STORE_ERROR_KINDS,
        )
        self.rules_info = self._gauge("bridge_rules_info", "Hash of the active rules", ["hash"])
        self.rules_reload_ok = self._gauge(
            "bridge_rules_last_reload_successful", "1 if the rules file on disk is the one in use"
        )
        self.rules_reloaded_at = self._gauge(
            "bridge_rules_last_reload_success_timestamp_seconds", "When the active rules were loaded"
        )
        self.routing_seconds = self._histogram(
            "bridge_event_to_delivery_seconds",
            "Time from the arrival of an event until its deliveries are stored",
            _DELAY_BUCKETS,
        )
        self.worker_up = self._gauge(
            "bridge_local_worker_up", "1 if the worker process responds", registered=False
        )
        """Registered only if this process has a worker process."""
        self.worker_restarts = Counter(
            "bridge_worker_restarts", "Worker processes that exited and were replaced", registry=None
        )
        """Registered with `worker_up`."""

    def add_worker_process(self) -> None:
        """Export the metrics of the supervision of a worker process."""
        self.registry.register(self.worker_up)
        self.registry.register(self.worker_restarts)

    def set_rules(self, rules_hash: str, loaded_at: float, load_error: str | None) -> None:
        """Set the gauges of the rules file. `loaded_at` is a Unix time."""
        self.rules_info.clear()
        self.rules_info.labels(rules_hash[:12]).set(1)
        self.rules_reloaded_at.set(loaded_at)
        self.rules_reload_ok.set(0 if load_error else 1)


class WebMetrics(_Group):
    """Metrics of the process that receives events."""

    def __init__(self) -> None:
        super().__init__()
        self.webhook_requests = self._counter(
            "bridge_webhook_requests", "Webhook requests, by response status", ["status"], WEBHOOK_STATUSES
        )
        self.webhook_seconds = self._histogram(
            "bridge_webhook_duration_seconds",
            "Time from the headers of a webhook request to its response",
            _REQUEST_BUCKETS,
        )
        self.store_seconds = self._histogram(
            "bridge_store_duration_seconds",
            "Duration of the transactions that store events, each with one or more events",
            _REQUEST_BUCKETS,
        )
        self.queued_events = self._gauge(
            "bridge_webhook_queued_events", "Events that wait for the transaction that stores them"
        )
        self.rejected_requests = self._counter(
            "bridge_rejected_requests",
            "Requests and connections from outside that were rejected, by reason",
            ["reason"],
            REJECTION_REASONS,
        )
        self.open_connections = self._gauge("bridge_open_connections", "Open connections to the HTTP server")
        self.logins = self._counter(
            "bridge_logins",
            "Logins to the dashboard, and refused tokens, by result",
            ["result"],
            LOGIN_RESULTS,
        )
        self.callbacks = self._counter(
            "bridge_callbacks",
            "Callbacks of providers (message statuses, replies), by connection, name and response status",
            ["connection", "callback", "status"],
        )
        self.unreadable_contact_fields = self._counter(
            "bridge_unreadable_contact_fields",
            "Fields of the contact that stored events had a value for, but none that could be read, by field",
            ["field"],
            ("phone", "email", "name", "time_zone"),
        )
        self.unreadable_event_fields = self._counter(
            "bridge_unreadable_event_fields",
            "Other documented fields of stored events whose value could not be read, by path",
            ["field"],
        )

    def add_callbacks(self, connection: str, callbacks: Iterable[str]) -> None:
        """Export the series of a connection's callbacks."""
        for callback in callbacks:
            for status in CALLBACK_STATUSES:
                self.callbacks.labels(connection, callback, status)


class WorkerMetrics(_Group):
    """Metrics of the process that runs deliveries."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = self._counter(
            "bridge_attempts", "Attempts, by connection and reason (`succeeded` if the action took effect)",
            ["connection", "reason"],
        )  # fmt: skip
        self.attempt_seconds = self._histogram(
            "bridge_attempt_duration_seconds", "Duration of attempts", _ATTEMPT_BUCKETS, ["connection"]
        )
        self.first_attempt_delay = self._histogram(
            "bridge_event_to_first_attempt_seconds",
            "Time from the arrival of an event to the first attempt of a delivery that is due immediately",
            _DELAY_BUCKETS,
        )
        self.attempts_running = self._gauge(
            "bridge_attempts_running", "Attempts that have started and have no result", ["connection"]
        )
        self.attempts_overdue = self._gauge(
            "bridge_attempts_overdue", "Running attempts that are past their deadline: their connector hangs",
            ["connection"],
        )  # fmt: skip
        self.pruned_at = self._gauge(
            "bridge_prune_last_success_timestamp_seconds",
            "When this worker last deleted all data older than BRIDGE_RETENTION; 0 until it has done so",
        )

    def add_connection(self, name: str) -> None:
        """Export the series of a connection."""
        for reason in ATTEMPT_REASONS:
            self.attempts.labels(name, reason)
        for metric in (self.attempt_seconds, self.attempts_running, self.attempts_overdue):
            metric.labels(name)

    def add_process(self) -> None:
        """Export memory, processor time and open files of a worker process, whose server exports its own."""
        ProcessCollector(namespace="bridge_worker", registry=self.registry)


class DatabaseMetrics(_Group):
    """Gauges that are read from the database, which are absent while it is unavailable."""

    def __init__(self) -> None:
        super().__init__()
        self.deliveries = self._gauge(
            "bridge_deliveries",
            "Deliveries that are not finished, or failed, by state; at most 10,000 are counted",
            ["state"],
        )
        self.unrouted = self._gauge(
            "bridge_events_unrouted", "Events not yet routed; at most 10,000 are counted"
        )
        self.oldest_unrouted = self._gauge(
            "bridge_oldest_unrouted_event_age_seconds",
            "Time since the oldest event that is not routed arrived",
        )
        self.last_event_at = self._gauge(
            "bridge_last_event_timestamp_seconds", "When the last event of Heppu arrived; 0 if there is none"
        )
        self.due = self._gauge(
            "bridge_due_deliveries",
            "Deliveries that are due and wait for a worker, by connection; 0 while the connection is paused, and at "
            "most 10,000 are counted",
            ["connection"],
        )
        self.oldest_due = self._gauge(
            "bridge_oldest_due_delivery_age_seconds",
            "Time since the oldest due delivery became due, by connection; 0 while the connection is paused",
            ["connection"],
        )
        self.paused_due = self._gauge(
            "bridge_paused_due_deliveries",
            "Deliveries that are due and wait for the end of a pause, by connection; at most 10,000 are counted",
            ["connection"],
        )
        self.oldest_paused = self._gauge(
            "bridge_oldest_paused_delivery_age_seconds",
            "Time since the oldest delivery that waits for the end of a pause became due, by connection",
            ["connection"],
        )
        self.paused = self._gauge(
            "bridge_connection_paused",
            "1 if a connection is paused or its circuit breaker is open",
            ["connection"],
        )
        self.workers = self._gauge(
            "bridge_workers_alive", "Workers on this database with a heartbeat within the last minute"
        )
        self.database_bytes = self._gauge(
            "bridge_database_size_bytes", "Size of the database", registered=False
        )
        self.wal_bytes = self._gauge(
            "bridge_database_wal_size_bytes",
            "Size of the write-ahead log of the SQLite database",
            registered=False,
        )
        self.disk_free = self._gauge(
            "bridge_database_disk_free_bytes",
            "Free bytes on the disk of the SQLite database",
            registered=False,
        )
        self.disk_size = self._gauge(
            "bridge_database_disk_size_bytes", "Size of the disk of the SQLite database", registered=False
        )
        """The last four are also exported while a SQLite database is unavailable, because its disk may be full."""


class Metrics:
    """The metrics of a process. What its role does not have is not exported."""

    def __init__(self) -> None:
        self.process = ProcessMetrics()
        self.web = WebMetrics()
        self.worker = WorkerMetrics()
        self.database = DatabaseMetrics()
