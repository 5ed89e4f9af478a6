"""Dispatcher: claims due deliveries, as far as each account has free slots, and hands them to the call runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from bridge.clock import uptime
from bridge.store.claim import Capacity, claim
from bridge.store.claimed_delivery import DELIVERIES_PER_TRANSACTION
from bridge.store.database import Database
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.work import with_work
from bridge.worker.account import POLL_INTERVAL, Account, Accounts, DueAccounts
from bridge.worker.background_thread import BackgroundThread
from bridge.worker.call_runner import CallRunner
from bridge.worker.clock_jumps import ClockJumpDetector
from bridge.worker.in_flight import InFlight
from bridge.worker.provider_reader import ProviderReader


class Dispatcher(BackgroundThread):
    """Thread that never waits for a provider: the calls run in the threads of their account."""

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        calls: CallRunner,
        in_flight: InFlight,
        clock_jumps: ClockJumpDetector,
        readers: Sequence[ProviderReader[Any]],
        policy_config: Callable[[], PolicyConfig],
        worker_id: str,
    ) -> None:
        super().__init__("dispatcher")
        self._database = database
        self._accounts = accounts
        self._calls = calls
        self._in_flight = in_flight
        self._clock_jumps = clock_jumps
        self._readers = readers
        self._policy_config = policy_config
        self._worker_id = worker_id

    def stop(self) -> None:
        """Tell the thread to end after its current claim."""
        super().stop()
        self._accounts.stop()

    def run(self) -> None:
        """Claim whenever an account is due for a poll."""
        while not self.stopping.is_set():
            self.poll(self._accounts.wait_due())

    def poll(self, due: DueAccounts) -> None:
        """Claim for the accounts that are due for a poll; of those nothing was heard of, for those with work."""
        for account in due.called:
            self._try(partial(self.claim, account), [account])
        if due.unheard_of:
            self._try(partial(self._call_those_with_work, due.unheard_of), due.unheard_of)

    def _try(self, work: Callable[[], None], accounts: Sequence[Account]) -> None:
        """Do the work; after an error, poll the accounts again."""
        if self.stopping.is_set():
            return
        with self.survive_errors():
            try:
                work()
            except Exception:
                self._accounts.poll_now(account.name for account in accounts)
                raise

    def _call_those_with_work(self, accounts: Sequence[Account]) -> None:
        """Poll the accounts for which something is due before the next look, with one query for all of them."""
        names = [account.name for account in accounts]
        self._accounts.poll_now(with_work(self._database, names, timedelta(seconds=POLL_INTERVAL)))

    def claim(self, account: Account) -> None:
        """Claim due deliveries of an account and hand them to the call runner.

        What deliveries wait for comes first (opt-out flags, details): a backlog of the provider's own deliveries must
        not delay it.
        """
        for reader in self._readers:
            reader.poll(account)
        if not account.free_slots:
            self._accounts.poll_at(account, uptime())  # as soon as a call returns
            return
        connector = account.connector
        claimed_at = uptime()
        capacity = Capacity(
            account.name,
            min(account.free_slots, DELIVERIES_PER_TRANSACTION),
            lambda use: action.batch if (action := connector.find_action(use)) else 1,
            account.limits.per_second,
            max((action.batch for action in connector.actions.values()), default=1),
            account.requests_per_call,
        )
        batch = claim(self._database, capacity, self._policy_config(), self._worker_id)
        if batch.calls:
            self._clock_jumps.observe(batch.calls[0][0].started_at, claimed_at)
        account.occupy(len(batch.calls))
        self._in_flight.claimed((delivery for call in batch.calls for delivery in call), claimed_at)
        if batch.next_poll_in is not None:
            self._accounts.poll_at(account, claimed_at + batch.next_poll_in.total_seconds())
        self._calls.submit(account, batch.calls, claimed_at, capacity.requests_per_call)
