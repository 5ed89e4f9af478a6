"""The worker as a service: three threads that never wait for a provider or inside a transaction.

    dispatcher     claims due deliveries, as far as each connection has free slots
    result writer  records the results of attempts, in batches
    maintenance    periodic work: expired leases, the rules file, heartbeats, retention

The attempts themselves run in the threads of their connection. Everything that waits is a row with a time.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.events import Event
from bridge.rules.route import consent
from bridge.rules.trace import Truth
from bridge.store.database import Database
from bridge.store.opt_outs import AddressHasher
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.workers import deregister
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics
from bridge.worker.account import Accounts
from bridge.worker.attempt import AttemptRunner
from bridge.worker.call_runner import CallRunner
from bridge.worker.clock_jumps import ClockJumpDetector
from bridge.worker.details_reader import DetailsReader
from bridge.worker.dispatcher import Dispatcher
from bridge.worker.in_flight import InFlight
from bridge.worker.maintenance import Maintenance
from bridge.worker.opt_out_reader import OptOutReader
from bridge.worker.result_renderer import ResultRenderer
from bridge.worker.result_writer import ResultWriter
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.stall_detector import StallDetector


@dataclass(frozen=True)
class WorkerSettings:
    """The worker's settings, other than its connections."""

    allowlist: tuple[str, ...] = ()
    retention: timedelta = timedelta(days=30)
    hash_address: AddressHasher | None = None
    """See `bridge.store.policy_inputs.PolicyConfig`."""
    delete_after: timedelta | None = None
    """Age at which the rows of finished work are deleted; None: never."""


class Worker:
    """Builds, starts and stops the threads that claim deliveries, attempt them and record the results."""

    def __init__(
        self,
        database: Database,
        rules: RulesFile,
        accounts: Accounts,
        attempts: AttemptRunner,
        settings: WorkerSettings | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.worker_id = f"{socket.gethostname()[:40]}-{os.getpid()}-{os.urandom(3).hex()}"
        settings, metrics = settings or WorkerSettings(), metrics or Metrics()
        self._database = database
        self._accounts = accounts
        self._in_flight = InFlight()
        self._stalls = StallDetector()
        clock_jumps = ClockJumpDetector()
        self.result_writer = ResultWriter(database, self._in_flight, self._accounts.fingerprint, metrics)
        calls = CallRunner(
            self._accounts,
            attempts,
            self._in_flight,
            self.result_writer.submit,
            clock_jumps,
            self._stalls,
            metrics,
        )
        self.dispatcher = Dispatcher(
            database,
            self._accounts,
            calls,
            self._in_flight,
            clock_jumps,
            [
                OptOutReader(database, self._accounts, lambda: rules.current.messaging.crm_opt_outs),
                DetailsReader(database, self._accounts, lambda: rules.current),
            ],
            partial(_policy_config, database, rules, accounts, settings),
            self.worker_id,
        )
        self.maintenance = Maintenance(
            database,
            rules,
            self._accounts,
            self._in_flight,
            clock_jumps,
            self._stalls,
            calls.give_up_overdue,
            metrics,
            settings.retention,
            settings.delete_after,
            self.worker_id,
        )

    def start(self) -> None:
        """Take over the attempts of dead processes, and start the threads."""
        self._database.listeners.append(self._accounts.poll_now)
        self.maintenance.start()
        self._stalls.start()
        self.dispatcher.start()
        self.result_writer.start()

    @property
    def is_running(self) -> bool:
        """True unless one of its threads has ended."""
        return all(thread.is_running for thread in (self.dispatcher, self.result_writer, self.maintenance))

    def stop(self, timeout: float = 25.0) -> bool:
        """Stop claiming and let running attempts finish within `timeout` seconds; return True if all of them did.

        Unfinished attempts keep their lease until it expires. Another worker then checks their outcome with the
        provider.
        """
        end = uptime() + timeout
        self.dispatcher.stop()
        self.maintenance.stop()
        # Its last claim has to be counted.
        clean = self.dispatcher.join(timeout) and self._in_flight.wait_idle(end - uptime())
        self.result_writer.stop()
        for thread in (self.dispatcher, self.result_writer, self.maintenance):
            thread.join(max(2.0, end - uptime()))
        self._database.listeners.remove(self._accounts.poll_now)
        self._stalls.stop()
        for account in self._accounts.all().values():
            account.close()
        try:
            deregister(self._database, self.worker_id)
        except StoreUnavailable:
            log.warning("failed to deregister worker", worker_id=self.worker_id)
        return clean


def _policy_config(
    database: Database, rules: RulesFile, accounts: Accounts, settings: WorkerSettings
) -> PolicyConfig:
    """Return the configuration of the policy under the active rules."""
    messaging = rules.current.messaging

    def check_consent(event: Event) -> Truth | None:
        check = consent(event, messaging, database.clock.now())
        return check.result if check else None

    return PolicyConfig(
        messaging,
        check_consent,
        settings.allowlist,
        settings.hash_address,
        ResultRenderer(accounts.action_of, rules.current, database.clock.now()),
    )
