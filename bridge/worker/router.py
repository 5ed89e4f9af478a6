"""The router: stored events become deliveries, failures become follow-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.events import Event
from bridge.rules.model import Planned
from bridge.rules.route import after_failure, alerts, route
from bridge.store.database import Database
from bridge.store.followups import follow_up_deliveries, follow_up_pauses
from bridge.store.routing import route_unrouted
from bridge.telemetry import log
from bridge.worker.rulesfile import RulesFile

BATCH, SMALL_BATCH = 200, 25


class Router:
    """Routes what is stored, with the rules that run now."""

    def __init__(self, database: Database, rules: RulesFile) -> None:
        self._database = database
        self._rules = rules

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
        followed = follow_up_deliveries(self._database, self._after_failure)
        return routed + followed + follow_up_pauses(self._database, self._after_pause)

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
