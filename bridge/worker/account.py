"""Accounts: the connections of this process, each with its settings, its client and its threads.

Each connection has its own threads, so a provider that hangs delays only its own deliveries. A thread that is past its
deadline counts as running until it returns or is replaced (`bridge.worker.running_calls`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from bridge.clock import uptime
from bridge.connector import Action, Connector, ConnectorSettings, Limits
from bridge.connector.deadline import Quota
from bridge.connector.discovery import SEALING_KEY_NEEDED
from bridge.connector.tokens import TokenStore
from bridge.errors import ConfigError
from bridge.store.database import ALL_TOPICS, Database
from bridge.store.deliveries import Delivery
from bridge.store.tokens import StoredTokens
from bridge.telemetry import log
from bridge.worker.account_threads import AccountThreads

PREFETCH_SECONDS = 0.5
"""Seconds of work that may wait for a thread."""
MAX_PREFETCH = 32.0
"""Calls per thread that may be claimed at the same time, however short they are."""
QUOTA_INTERVAL = 60.0
"""Seconds between two records of the quota that a provider reports."""
POLL_INTERVAL = 5.0
"""Seconds between two polls of a connection if there is no notification."""


@dataclass
class Account:
    """One connection in this process: its settings, its client, built on first use, and its threads.

    Its methods are thread-safe.
    """

    name: str
    connector: Connector
    settings: ConnectorSettings
    token_store: TokenStore | None = None
    """Where the processes share the connection's token. None: each process has its own."""
    average_call_seconds: float = 1.0
    """Moving average of the duration of a call."""
    _requests_per_call: float = 1.0
    """Moving average of the requests that a call takes."""
    _quota_recorded_at: float = -QUOTA_INTERVAL
    _running: int = 0
    """Calls that were claimed and have not returned."""
    _slots_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _client: Any = None
    _client_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    threads: AccountThreads = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.threads = AccountThreads(self.limits.concurrency, f"bridge-{self.name}")

    @cached_property
    def limits(self) -> Limits:
        """The load that this account may put on its provider."""
        return self.connector.limits_of(self.settings)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that changes with the settings and does not reveal them."""
        return _fingerprint(self.name, self.settings.model_dump())

    def client(self) -> Any:
        """Return the connector's client for this account. The first call builds it."""
        with self._client_lock:
            if self._client is None:
                self._client = self.connector.open_client(self.settings, self.token_store)
            return self._client

    @property
    def capacity(self) -> int:
        """The number of calls that may be claimed at the same time: those that run, plus prefetched ones.

        Without prefetching, the threads of a fast provider would idle while the next deliveries are claimed. Prefetched
        calls are worth at most `PREFETCH_SECONDS` of work, so that none waits long for its thread. Nothing is
        prefetched if an action is neither idempotent nor has a lookup: after a crash it would be unknown whether a
        waiting call had started.
        """
        recoverable = all(
            action.idempotent or action.run_lookup for action in self.connector.actions.values()
        )
        calls_per_thread = (
            max(1.0, min(MAX_PREFETCH, PREFETCH_SECONDS / self.average_call_seconds)) if recoverable else 1.0
        )
        return int(self.limits.concurrency * calls_per_thread)

    @property
    def free_slots(self) -> int:
        """The number of calls that may be claimed now; 0 until enough have returned to justify a transaction."""
        with self._slots_lock:
            capacity = self.capacity
            slots = capacity - self._running
            return slots if slots >= capacity // 4 or self._running < self.limits.concurrency else 0

    @property
    def requests_per_call(self) -> int:
        """The number of requests that a call is expected to take."""
        return max(1, round(self._requests_per_call))

    def note_requests(self, requests: int) -> None:
        """Learn from a call that took this many requests."""
        with self._slots_lock:
            self._requests_per_call = 0.8 * self._requests_per_call + 0.2 * requests

    def quota_to_record(self, quota: Quota | None) -> Quota | None:
        """Return the quota if the last one was recorded at least `QUOTA_INTERVAL` ago."""
        with self._slots_lock:
            if quota is None or uptime() - self._quota_recorded_at < QUOTA_INTERVAL:
                return None
            self._quota_recorded_at = uptime()
            return quota

    def occupy(self, calls: int) -> None:
        """Take the slots of `calls` that were claimed."""
        with self._slots_lock:
            self._running += calls

    def release(self, calls: int, seconds: float) -> None:
        """Free the slots of `calls` that have returned after `seconds` in total."""
        with self._slots_lock:
            self._running -= calls
            average = 0.8 * self.average_call_seconds + 0.2 * seconds / calls
            self.average_call_seconds = max(1e-4, average)

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in one of this account's threads; raise RuntimeError if that cannot be started."""
        self.threads.submit(work)

    def close(self) -> None:
        """Stop the threads once they are idle, and close the client unless calls are still running."""
        self.threads.close()
        close = getattr(self._client, "close", None)
        with self._slots_lock:
            idle = self._running == 0
        if idle and callable(close):
            try:
                close()
            except Exception as error:
                log.warning("failed to close client", connection=self.name, exc_info=error)


def shared_token_store(
    database: Database,
    connector: Connector,
    connection: str,
    settings: ConnectorSettings,
    keys: Sequence[str],
) -> TokenStore | None:
    """Return where the processes share a connection's token; None if it has none, or if there is no key to seal it.

    Raise ConfigError if the token would be lost without a key. A connection whose refresh token changes keeps it until
    the first one is replaced: after other settings have changed, the first one no longer works.
    """
    first = connector.first_refresh_token
    if connector.obtain_token is None:
        return None
    if not keys:
        if first is None:
            return None
        raise ConfigError(SEALING_KEY_NEEDED)
    values = settings.model_dump()
    fingerprint = _fingerprint(connection, values if first is None else {first: values[first]})
    return StoredTokens(database, connection, fingerprint, keys, required=first is not None)


def _fingerprint(connection: str, values: Mapping[str, Any]) -> str:
    text = json.dumps(values, default=_serialize_secret, sort_keys=True)
    return hashlib.scrypt(text.encode(), salt=connection.encode(), n=1024, r=8, p=1, dklen=12).hex()


def _serialize_secret(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Path) and value.is_file():
        return value.read_text("utf-8", "replace")
    return str(value)


class DueAccounts(NamedTuple):
    """Accounts to poll now."""

    called: Sequence[Account] = ()
    """Something may be due for these: they are new, there was a notification, or a time has come."""
    unheard_of: Sequence[Account] = ()
    """Nothing has been heard of these for POLL_INTERVAL. Usually, nothing is due for them."""


class Accounts:
    """The accounts of a process by name, and when its worker polls each next. Its methods are thread-safe."""

    def __init__(self, accounts: Mapping[str, Account] | None = None) -> None:
        self._changed = threading.Condition()
        self._accounts: dict[str, Account] = {}
        self._next_poll_at: dict[str, float] = {}
        self._called: set[str] = set()
        """Accounts whose next poll has a reason; all others are polled in case a notification was missed."""
        self._stopped = False
        self.add(accounts or {})

    def add(self, accounts: Mapping[str, Account]) -> None:
        """Add accounts, which are due for a poll immediately."""
        with self._changed:
            self._accounts |= accounts
            self._next_poll_at |= dict.fromkeys(accounts, 0.0)
            self._called.update(accounts)
            self._changed.notify_all()

    def all(self) -> dict[str, Account]:
        """Return the accounts by name."""
        with self._changed:
            return dict(self._accounts)

    def get(self, name: str) -> Account | None:
        """Return an account; None if no rule has used it."""
        with self._changed:
            return self._accounts.get(name)

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of an account's settings."""
        with self._changed:
            account = self._accounts[name]
        return account.fingerprint

    def action_of(self, delivery: Delivery) -> Action | None:
        """Return the action of a delivery; None if this version does not have it."""
        account = self.get(delivery.connection)
        return account.connector.find_action(delivery.action) if account else None

    def wait_due(self) -> DueAccounts:
        """Wait until accounts with free slots are due for a poll; return them, or nothing after `stop`.

        All accounts that nothing has been heard of are returned together, so that one query can look for all of them.
        """
        with self._changed:
            while not self._stopped:
                now = uptime()
                polls = {
                    name: at for name, at in self._next_poll_at.items() if self._accounts[name].free_slots
                }
                due = {name for name, at in polls.items() if at <= now}
                if due:
                    called = due & self._called
                    unheard_of = polls.keys() - self._called if due - called else set[str]()
                    self._called -= called
                    self._next_poll_at |= dict.fromkeys(called | unheard_of, now + POLL_INTERVAL)
                    return DueAccounts(self._in_order(called), self._in_order(unheard_of))
                self._changed.wait(min(polls.values(), default=now + POLL_INTERVAL) - now)
            return DueAccounts()

    def _in_order(self, names: Collection[str]) -> list[Account]:
        return [account for name, account in self._accounts.items() if name in names]

    def poll_now(self, topics: Iterable[str]) -> None:
        """Make the accounts of these topics due for a poll."""
        topics = frozenset(topics)
        with self._changed:
            for name in self._accounts:
                if name in topics or ALL_TOPICS in topics:
                    self._next_poll_at[name] = 0.0
                    self._called.add(name)
            self._changed.notify_all()

    def poll_at(self, account: Account, at: float) -> None:
        """Make an account due for a poll at `at` (an `uptime`) at the latest."""
        with self._changed:
            if at < self._next_poll_at[account.name]:
                self._next_poll_at[account.name] = at
                self._called.add(account.name)

    def release(self, account: Account, calls: int, seconds: float) -> None:
        """Free the slots of `calls` that have returned after `seconds` in total, and end `wait_due` if it waits."""
        account.release(calls, seconds)
        if account.free_slots:
            with self._changed:
                self._changed.notify_all()

    def stop(self) -> None:
        """End `wait_due`, now and in the future."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
