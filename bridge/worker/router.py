"""The router: stored events become deliveries, failures become follow-ups.

It computes, and touches no partner, so it runs in the process that receives; there it leaves the interpreter to
whatever has to be answered.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.events import Event
from bridge.rules.model import Planned
from bridge.rules.route import after_failure, alerts, route
from bridge.store.database import EVENTS, Database
from bridge.store.follow_ups import anything_marked, follow_up_deliveries, follow_up_pauses
from bridge.store.routing import route_unrouted
from bridge.telemetry import log
from bridge.worker.error_backoff import patience
from bridge.worker.rules_reloader import RulesFile

BATCH, SMALL_BATCH = 200, 50
"""Events of one transaction; the smaller one while others come in."""
SLOW_POLL = 5.0
"""Seconds after which it looks for work even if nobody woke it."""


class Router:
    """Routes what is stored, with the rules that run now, on a thread of its own."""

    def __init__(self, database: Database, rules: RulesFile) -> None:
        self._database = database
        self._rules = rules
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._route, name="bridge-router", daemon=True)

    def start(self) -> None:
        """Begin to route."""
        self._database.on_change.append(self._on_change)
        self._thread.start()

    def stop(self) -> None:
        """End after the transaction that runs."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=10)
        self._database.on_change.remove(self._on_change)

    def _on_change(self, topics: frozenset[str]) -> None:
        if EVENTS in topics:
            self._wake.set()

    def _route(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            with patience("router", self._stopping):
                while not self._stopping.is_set():
                    self._database.give_way()
                    if not self.round(SMALL_BATCH if self._database.brief else BATCH):
                        break
                self._wake.wait(SLOW_POLL)

    def round(self, batch: int = BATCH) -> int:
        """Do what is there to do, up to one batch of each; returns how much that was."""
        rules = self._rules.current
        routed, crashed = route_unrouted(
            self._database, rules, lambda event, now: route(event, rules, now), batch
        )
        for event in crashed:
            log.error(
                "routing crashed", event_id=event, advice="see `bridge show` for the rule, and report it"
            )
        return routed + (self._follow_up() if anything_marked(self._database) else 0)

    def _follow_up(self) -> int:
        followed, without = follow_up_deliveries(self._database, self._after_failure)
        alerted, silent = follow_up_pauses(self._database, self._after_pause)
        for cause in (*without, *silent):
            log.error("no follow-up could be made", cause=cause, advice="look at its detail, and report it")
        return followed + alerted

    def _after_failure(
        self, event: Event, delivery: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[Planned]]:
        rules = self._rules.current
        return rules.hash, after_failure(event, rules, delivery, now)

    def _after_pause(
        self, event: Event, delivery: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[Planned]]:
        rules = self._rules.current
        return rules.hash, alerts(event, rules, delivery, now)
