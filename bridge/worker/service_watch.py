"""Service watch: alerts the team to problems of the service itself, by the steps of `alerts:`.

Every process with rules has one, except the worker process of a server. It checks once a minute. A problem must be seen
by two checks, so that a restart or a half-saved file alerts nobody.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from bridge.clock import uptime
from bridge.events import Event
from bridge.policy.service_problems import (
    LOCAL_CAUSES,
    Announcement,
    Outage,
    ProblemCause,
    ServiceProblem,
    Watched,
    find_problems,
)
from bridge.rules.model import PlannedDelivery
from bridge.rules.route import alerts
from bridge.store.database import Database
from bridge.store.service_problems import announce, announce_outage, read_facts
from bridge.telemetry import log
from bridge.worker.background_thread import BackgroundThread
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.worker_exits import WorkerExits

CHECK_INTERVAL: Final = 60.0
SEEN_FOR: Final = timedelta(seconds=50)
"""The time between the first and the second check that see a problem."""


class ServiceWatch(BackgroundThread):
    """Thread that looks for problems of the service."""

    def __init__(
        self,
        database: Database,
        rules: RulesFile,
        worker_exits: WorkerExits | None = None,
        *,
        only_receives: bool = False,
    ) -> None:
        """A process that `only_receives` knows neither the settings of connections nor a worker."""
        super().__init__("service-watch")
        self._worker_exits = worker_exits or WorkerExits()
        self._database = database
        self._rules = rules
        self._only_receives = only_receives
        self._host = socket.gethostname()
        self._started_at = database.clock.now()
        self._seen: dict[tuple[str, str], datetime] = {}
        """Problems that exist, and when they were first seen."""
        self._own: set[tuple[str, str]] = set()
        """Problems of this host that this process has had, and of which it therefore knows when they are over."""
        self._last_event_at: datetime | None = None
        self._past_outage: Outage | None = None
        """An outage that is over, and about which the team has not been told."""

    def run(self) -> None:
        """Check until the thread is stopped."""
        while not self.stopping.wait(CHECK_INTERVAL):
            with self.survive_errors():
                self.check()

    def check(self) -> None:
        """Alert the team to new problems, to those that are over, and to outages. Raise StoreUnavailable."""
        self._note_outages()
        if not self._rules.current.alerts:
            return
        problems = find_problems(self._facts(), self._rules.current.alert_settings)
        for message in announce(self._database, self._confirmed(problems), self._is_judged, self._plan):
            log.warning("service problem alerted", message=message)
        if self._past_outage and announce_outage(self._database, self._past_outage, self._host, self._plan):
            log.warning("service problem alerted", message=self._past_outage.message)
            self._past_outage = None

    def _facts(self) -> Watched:
        settings = self._rules.current.alert_settings
        facts = read_facts(self._database, settings, self._host)
        self._last_event_at = facts.last_event_at
        file = self._database.file
        return replace(
            facts,
            disk_free=shutil.disk_usage(file.resolve().parent).free if file else None,
            rules_error=self._rules_error(),
            worker_exits=self._worker_exits.recent(facts.now),
        )

    def _rules_error(self) -> str | None:
        """Return the first error of the rules file, in one line."""
        if self._rules.load_error is None:
            return None
        [first, *_] = self._rules.load_error.strip().splitlines() or [""]
        return first[:300]

    def _confirmed(self, problems: Sequence[ServiceProblem]) -> list[ServiceProblem]:
        """Return the problems that the check before has seen too."""
        now = self._database.clock.now()
        self._seen = {problem.key: self._seen.get(problem.key, now) for problem in problems}
        self._own |= {problem.key for problem in problems if problem.cause in LOCAL_CAUSES}
        return [problem for problem in problems if now - self._seen[problem.key] >= SEEN_FOR]

    def _is_judged(self, announcement: Announcement) -> bool:
        """Return whether this process knows that a problem is over: it has not just seen it."""
        if announcement.cause is ProblemCause.NO_EVENTS and not self._has_event_since(announcement.since):
            return False  # it is only no longer unusual at this time
        if (announcement.subject, announcement.cause) in self._seen:
            return False
        return announcement.cause not in LOCAL_CAUSES or self._knows(announcement)

    def _knows(self, announcement: Announcement) -> bool:
        """Return whether this process knows about a problem that only one process of a host sees.

        It has had the problem, or was started since: after a restart, the new process says that it is over.
        """
        if (announcement.subject, announcement.cause) in self._own:
            return True
        is_restarted = announcement.since is not None and self._started_at > announcement.since
        return is_restarted and not self._only_receives and announcement.subject == self._host

    def _has_event_since(self, since: datetime | None) -> bool:
        return since is not None and self._last_event_at is not None and self._last_event_at > since

    def _note_outages(self) -> None:
        """Remember the outages that are over, as one."""
        now, uptime_now = self._database.clock.now(), uptime()
        for item in self._database.write_health.take_outages():
            outage = Outage(
                item.kind,
                now - timedelta(seconds=uptime_now - item.started_at),
                now - timedelta(seconds=uptime_now - item.ended_at),
                item.refused,
            )
            self._past_outage = outage.joined(self._past_outage)

    def _plan(
        self, event: Event, problem: Mapping[str, Any], now: datetime
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        rules = self._rules.current
        return rules.hash, alerts(event, rules, problem, now)
