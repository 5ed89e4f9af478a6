"""Attempts: a connection's client and thread pool, and the calls that run on it.

Each connection has its own threads, so a provider that hangs delays only its own deliveries. A thread that is past its
deadline counts as running until it returns.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import inspect
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from bridge.clock import uptime
from bridge.connector import Action, BatchItem, Connector, ConnectorSettings, Context, Success
from bridge.connector.deadline import attempt_deadline
from bridge.errors import ConfigError, DeliveryError, LookupInconclusive, OutcomeUnknown, PermanentError
from bridge.store.claim import ClaimedDelivery
from bridge.store.contact_cache import StoredContactCache
from bridge.store.database import Database
from bridge.store.queries import external_ids_in_use
from bridge.telemetry import log
from bridge.worker.result_policy import NotStarted, UnsupportedByThisVersion, to_delivery_error

CallResult = Success | Exception | None
"""What a call returned or raised for one delivery; None from a lookup: the provider does not have it."""

PREFETCH_SECONDS = 0.5
"""Seconds of work that may wait for a thread."""
MAX_PREFETCH = 32.0
"""Calls per thread that may be claimed at the same time, however short they are."""


@dataclass
class Account:
    """One connection in this process: its settings, its client, built on first use, and its threads."""

    name: str
    connector: Connector
    settings: ConnectorSettings
    running: int = 0
    """Calls that were claimed and have not returned."""
    average_call_seconds: float = 1.0
    """Moving average of the duration of a call."""
    _client: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: ThreadPoolExecutor | None = None

    @cached_property
    def fingerprint(self) -> str:
        """A hash that changes with the settings and does not reveal them."""
        text = json.dumps(self.settings.model_dump(), default=_serialize_secret, sort_keys=True)
        return hashlib.scrypt(text.encode(), salt=self.name.encode(), n=1024, r=8, p=1, dklen=12).hex()

    def client(self) -> Any:
        """Return the connector's client for this account. The first call builds it."""
        with self._lock:
            if self._client is None:
                build = self.connector.build_client
                self._client = build(self.settings) if build else self.settings
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
        return int(self.connector.limits.concurrency * calls_per_thread)

    @property
    def free_slots(self) -> int:
        """The number of calls that may be claimed now; 0 until enough have returned to justify a transaction."""
        slots = self.capacity - self.running
        return slots if slots >= self.capacity // 4 or self.running < self.connector.limits.concurrency else 0

    def release(self, calls: int, seconds: float) -> None:
        """Free the slots of `calls` that have returned, each after `seconds`."""
        self.running -= calls
        self.average_call_seconds = max(1e-4, 0.8 * self.average_call_seconds + 0.2 * seconds)

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in one of this account's threads."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self.connector.limits.concurrency, thread_name_prefix=f"bridge-{self.name}"
            )
        self._pool.submit(contextvars.Context().run, work)

    def close(self) -> None:
        """Stop the threads once they are idle, and close the client unless calls are still running."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        close = getattr(self._client, "close", None)
        if self.running == 0 and callable(close):
            try:
                close()
            except Exception as error:
                log.warning("failed to close client", connection=self.name, exc_info=error)


@dataclass(frozen=True)
class AttemptRunner:
    """Runs calls, with what every attempt needs from the service."""

    database: Database
    public_url: str | None = None
    unsubscribe_url: Callable[[str, str], str | None] = lambda _channel, _address: None
    """Return a signed link that opts an address out of a channel."""

    def run(
        self, account: Account, deliveries: Sequence[ClaimedDelivery], deadline: float
    ) -> list[CallResult]:
        """Make one call before `deadline` (an `uptime()`); return one result per delivery, in order.

        Never raise: every error is a result.
        """
        action_name = deliveries[0].action
        action = account.connector.actions.get(action_name.partition(".")[2])
        if action is None:
            message = f"this version has no action `{action_name}`; left for a worker of a newer version"
            return [UnsupportedByThisVersion(message)] * len(deliveries)
        try:
            with attempt_deadline(deadline):
                if uptime() >= deadline:
                    return [NotStarted()] * len(deliveries)
                return self._call(account, action, deliveries)
        except LookupInconclusive as error:
            return [error]
        except Exception as error:
            return [to_delivery_error(error, account.connector.classify)] * len(deliveries)
        except BaseException as error:
            # A connector that exits or is cancelled must not end its thread.
            return [OutcomeUnknown(f"{type(error).__name__}: {error}", reason="internal_error")] * len(
                deliveries
            )

    def _call(
        self, account: Account, action: Action, deliveries: Sequence[ClaimedDelivery]
    ) -> list[CallResult]:
        prepared = [self._batch_item(action, delivery) for delivery in deliveries]
        items = [item for item in prepared if isinstance(item, BatchItem)]
        if not items:
            return [item if isinstance(item, Exception) else None for item in prepared]
        client = account.client()
        if deliveries[0].kind == "lookup":
            return [_checked(_await(_lookup_of(action)(client, items[0].params, items[0].context)))]
        if action.batch == 1:
            return [_checked(_await(action.run(client, items[0].params, items[0].context)))]
        results = iter(_run_batch(account.connector, action, client, items))
        return [next(results) if isinstance(item, BatchItem) else item for item in prepared]

    def _batch_item(
        self, action: Action, delivery: ClaimedDelivery
    ) -> BatchItem[Any] | UnsupportedByThisVersion:
        """Build the params and the context of one delivery."""
        try:
            params = action.params.model_validate(dict(delivery.params))
        except ValidationError as error:
            invalid = ", ".join(
                ".".join(map(str, detail["loc"])) for detail in error.errors(include_input=False)
            )
            return UnsupportedByThisVersion(
                f"this version of {delivery.action} does not accept the stored params ({invalid}); "
                "left for a worker of a newer version"
            )
        channel, recipient = delivery.channel, delivery.recipient
        link = self.unsubscribe_url(channel, recipient) if channel and recipient else None
        return BatchItem(
            params,
            Context(
                delivery=delivery.id,
                connection=delivery.connection,
                event=delivery.event,
                idempotency_key=delivery.idempotency_key,
                now=delivery.started_at,
                first_attempt_at=delivery.first_attempt_at,
                attempt=delivery.attempts + 1,
                expires_at=delivery.expires_at,
                quiet_hours_start=delivery.quiet_hours_start,
                existing_id=delivery.existing_id,
                contact_cache=StoredContactCache(self.database, delivery.connection),
                public_url=self.public_url,
                unsubscribe_url=link,
                ids_used_by_others=lambda ids: external_ids_in_use(
                    self.database, delivery.connection, delivery.id, ids
                ),
            ),
        )


def _run_batch(
    connector: Connector, action: Action, client: Any, items: Sequence[BatchItem[Any]]
) -> list[CallResult]:
    """Return one result per item. If the provider rejects a batch, split it until the rejected items are alone."""
    try:
        results = list(_await(action.run(client, items)))
        if len(results) != len(items):
            raise OutcomeUnknown(
                f"{len(results)} results for {len(items)} deliveries", reason="internal_error"
            )
        return [_checked(result) for result in results]
    except LookupInconclusive as error:
        return [error] * len(items)
    except Exception as error:
        failure = to_delivery_error(error, connector.classify)
        if not isinstance(failure, PermanentError) or len(items) == 1:
            return [failure] * len(items)
    half = len(items) // 2
    return [
        result
        for part in (items[:half], items[half:])
        for result in _run_batch(connector, action, client, part)
    ]


def _lookup_of(action: Action) -> Callable[..., Any]:
    if action.run_lookup is None:
        raise OutcomeUnknown("this action no longer has a lookup", reason="internal_error")
    return action.run_lookup


def _checked(returned: object) -> CallResult:
    """Return the action's result, or an unknown outcome if it has the wrong type."""
    if returned is None or isinstance(returned, Success | DeliveryError | LookupInconclusive):
        return returned
    return OutcomeUnknown(
        f"the action returned {type(returned).__name__}, not Success", reason="internal_error"
    )


def _await(value: Any) -> Any:
    """Return the value; run a coroutine to completion in a new event loop."""
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def _serialize_secret(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Path) and value.is_file():
        return value.read_text("utf-8", "replace")
    return str(value)


def open_accounts(connectors: Mapping[str, Connector], environ: Mapping[str, str]) -> dict[str, Account]:
    """Open an account for each connection name. Raise ConfigError naming every missing variable."""
    accounts: dict[str, Account] = {}
    errors = []
    for name, connector in sorted(connectors.items()):
        try:
            settings = connector.settings.from_environment(environ, connector.settings.prefix(name))
            accounts[name] = Account(name, connector, settings)
        except ConfigError as error:
            errors.append(f"connection {name}: {error}")
    if errors:
        raise ConfigError("\n".join(errors))
    return accounts
