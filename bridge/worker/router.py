"""The router: turns stored events into deliveries, and their results into follow-ups.

The router only computes and does not contact providers, so it runs in the process of the receiver. While webhook
requests wait there, it yields the interpreter to them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.events import Event
from bridge.rules.counting import History
from bridge.rules.model import PlannedDelivery, Routing
from bridge.rules.route import after_delivery, alerts, route
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.follow_ups import (
    follow_up_alert_groups,
    follow_up_deliveries,
    follow_up_pauses,
    has_pending_follow_ups,
)
from bridge.store.routing import route_unrouted
from bridge.telemetry import log, tracing
from bridge.telemetry.metrics import ProcessMetrics
from bridge.worker.background_thread import BackgroundThread
from bridge.worker.rules_reloader import RulesFile

POLL_INTERVAL = 5.0
"""Seconds between two polls if there is no notification."""
BATCH_SIZE = 128
"""Events that one transaction routes. On SQLite, every other writer waits for it: about 6 ms."""


class Router(BackgroundThread):
    """Thread that routes stored events by the active rules."""

    def __init__(self, database: Database, rules: RulesFile, metrics: ProcessMetrics | None = None) -> None:
        super().__init__("router")
        self._database = database
        self._seconds = (metrics or ProcessMetrics()).routing_seconds
        self._rules = rules
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._database.listeners.append(self._on_change)
        super().start()

    def stop(self) -> None:
        """Stop the thread after its current transaction."""
        super().stop()
        self._wake.set()
        self.join(timeout=10)
        self._database.listeners.remove(self._on_change)

    def _on_change(self, topics: frozenset[str]) -> None:
        if EVENTS_TOPIC in topics:
            self._wake.set()

    def run(self) -> None:
        """Route whenever there is something to route."""
        while not self.stopping.is_set():
            self._wake.clear()
            with self.survive_errors():
                while not self.stopping.is_set():
                    self._database.ingest_priority.pause_if_busy(self.stopping)
                    if not self.run_once():
                        break
                self._wake.wait(POLL_INTERVAL)

    def run_once(self) -> int:
        """Route up to one batch of events and follow up on one batch of results; return how many were processed."""
        rules = self._rules.current
        routings: list[tuple[Event, Routing]] = []

        def route_event(event: Event, now: datetime, history: History) -> Routing:
            routing = route(event, rules, now, history)
            routings.append((event, routing))
            return routing

        started_at = time.time_ns()
        routed, failed_events = route_unrouted(self._database, rules, route_event, BATCH_SIZE)
        if routed:
            self._observe(routings, rules.hash, started_at)
        for event_id in failed_events:
            log.error(
                "routing failed unexpectedly",
                event_id=event_id,
                advice="`bridge show` names the rule; please report this bug",
            )
        return routed + (self._follow_up() if has_pending_follow_ups(self._database) else 0)

    def _observe(self, routings: Sequence[tuple[Event, Routing]], rules_hash: str, started_at: int) -> None:
        """Count how long events waited for their deliveries, and export their spans."""
        now, tracer = self._database.clock.now(), tracing.tracer()
        for event, routing in routings:
            self._seconds.observe(max(0.0, (now - event.received_at).total_seconds()))
            if tracer is not None:
                fired = sum(trace.fired for trace in routing.traces)
                tracer.routed(event.id, fired, len(routing.planned), rules_hash, started_at, time.time_ns())

    def _follow_up(self) -> int:
        followed_up, failed_deliveries = follow_up_deliveries(self._database, self._after_delivery)
        alerted, failed_pauses = follow_up_pauses(self._database, self._alert)
        summarized, failed_groups = follow_up_alert_groups(self._database, self._alert)
        for delivery_id in failed_deliveries:
            log.error(
                "follow-up failed unexpectedly",
                delivery=delivery_id,
                advice="`bridge show` names the error; please report this bug",
            )
        for connection in failed_pauses:
            log.error(
                "alert failed unexpectedly",
                connection=connection,
                advice="`bridge connections` names the error; please report this bug",
            )
        for group in failed_groups:
            log.error(
                "alert failed unexpectedly",
                group=group,
                advice="`bridge deliveries` lists the problems; please report this bug",
            )
        return followed_up + alerted + summarized

    def _after_delivery(
        self, event: Event, delivery: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        rules = self._rules.current
        return rules.hash, after_delivery(event, rules, delivery, now)

    def _alert(
        self, event: Event, delivery: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        rules = self._rules.current
        return rules.hash, alerts(event, rules, delivery, now)
