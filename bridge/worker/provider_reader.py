"""Reading from a provider before a delivery is claimed: what its decision or its params need from an account.

The reads run in the threads of the account, within its limits. They are repeatable, so a process that dies during one
leaves nothing but a row that is claimed again.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from bridge.clock import uptime
from bridge.connector.deadline import count_requests
from bridge.errors import (
    AccountError,
    DeliveryError,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    StoreUnavailable,
)
from bridge.store.database import Database
from bridge.store.request_budget import take_requests
from bridge.telemetry import log
from bridge.worker.account import Account, Accounts

RETRY_INTERVAL = timedelta(seconds=10)
"""How soon a provider is asked again that did not answer."""
REJECTED_RETRY_INTERVAL = timedelta(minutes=5)
"""How soon a provider is asked again that rejected the request."""

Query = TypeVar("Query")
Claimable = TypeVar("Claimable", covariant=True)


class Claimed(Protocol[Claimable]):
    """The query to make now, if any, and when to poll again."""

    @property
    def query(self) -> Claimable | None:
        """The query to make now."""

    @property
    def next_poll_in(self) -> timedelta | None:
        """When to poll again. None: not before something changes."""


class ProviderReader(ABC, Generic[Query]):
    """Makes the queries of the accounts that are asked for something. Its methods are thread-safe."""

    what: str
    """What is read, for log lines."""
    max_running: int
    """Queries of one account at the same time, at most."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts
        self._running: Counter[str] = Counter()
        self._running_lock = threading.Lock()

    @abstractmethod
    def asks(self, account: Account) -> bool:
        """Return whether anything is read from this account."""

    @abstractmethod
    def claim(self, account: Account) -> Claimed[Query]:
        """Claim the query of an account that is due."""

    @abstractmethod
    def answer(self, account: Account, query: Query, deadline: float) -> None:
        """Make a query before `deadline` (an `uptime()`), and record its answer or its failure."""

    def poll(self, account: Account) -> None:
        """Start the queries of an account that are due, as far as it has free slots."""
        if not self.asks(account):
            return
        while self._running[account.name] < self.max_running and account.free_slots:
            started_at = uptime()
            claimed = self.claim(account)
            if claimed.query is None:
                if claimed.next_poll_in is not None:
                    self._accounts.poll_at(account, started_at + claimed.next_poll_in.total_seconds())
                return
            self._submit(account, claimed.query, started_at)

    def _submit(self, account: Account, query: Query, claimed_at: float) -> None:
        account.occupy(1)
        with self._running_lock:
            self._running[account.name] += 1
        try:
            account.submit(lambda: self._run(account, query, claimed_at))
        except RuntimeError as error:  # the machine cannot start another thread
            self._release(account, account.average_call_seconds)
            log.error(
                "failed to start reading thread", what=self.what, connection=account.name, error=str(error)
            )

    def _release(self, account: Account, seconds: float) -> None:
        with self._running_lock:
            self._running[account.name] -= 1
        self._accounts.release(account, 1, seconds)
        self._accounts.poll_now([account.name])

    def _run(self, account: Account, query: Query, claimed_at: float) -> None:
        started_at = uptime()
        try:
            with count_requests() as count:
                self.answer(account, query, claimed_at + account.limits.timeout)
            if count.sent > 1:  # the claim took one request from the budget
                with self._database.write() as conn:
                    take_requests(conn, account.name, count.sent - 1)
        except StoreUnavailable:
            # The rows are claimed again once their lease is over.
            log.warning("failed to record what a provider returned", what=self.what, connection=account.name)
        except Exception as error:
            log.error(
                "failed to read from a provider", what=self.what, connection=account.name, exc_info=error
            )
        finally:
            self._release(account, uptime() - started_at)


def retry_in(failure: DeliveryError) -> timedelta:
    """Return when to ask again. A pause of the connection decides by itself."""
    if isinstance(failure, AccountError | RateLimited | QuotaExhausted):
        return timedelta(0)
    if isinstance(failure, PermanentError):
        return REJECTED_RETRY_INTERVAL
    return failure.retry_after or RETRY_INTERVAL
