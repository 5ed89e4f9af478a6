"""Making attempts: a connection's client, its thread pool, and one call from begin to end.

Each connection has threads of its own, so a partner that hangs starves only itself. A thread that is past its
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
from bridge.store.claim import Claimed
from bridge.store.contact_cache import StoredContactCache
from bridge.store.database import Database
from bridge.store.queries import external_ids_in_use
from bridge.telemetry import log
from bridge.worker.result_policy import NotBegun, Unfamiliar, failure_of

Result = Success | Exception | None

PORTION = 0.5
"""Seconds of work that may wait for its threads."""
MAX_PORTION = 32.0
"""Calls for each thread that may be claimed at once, however quick they are."""


@dataclass
class Connection:
    """One account of a connector in this process: its client, made on first use, and its threads."""

    name: str
    connector: Connector
    settings: ConnectorSettings
    running: int = 0
    """Calls that were claimed and have not returned."""
    pace: float = 1.0
    """Seconds that a call takes, as of late."""
    _client: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: ThreadPoolExecutor | None = None

    @cached_property
    def fingerprint(self) -> str:
        """What tells these settings from changed ones, and from which nobody can tell the settings."""
        text = json.dumps(self.settings.model_dump(), default=_revealed, sort_keys=True)
        return hashlib.scrypt(text.encode(), salt=self.name.encode(), n=1024, r=8, p=1, dklen=12).hex()

    def client(self) -> Any:
        """The connector's client for this account; built once, by the first call."""
        with self._lock:
            if self._client is None:
                build = self.connector.build_client
                self._client = build(self.settings) if build else self.settings
            return self._client

    @property
    def capacity(self) -> int:
        """How many calls may be claimed at once: those that can run, and for a quick partner the next portion too.

        A portion is worth at most `PORTION` seconds of work, so that none waits long for its thread; without it, a
        quick partner's threads would idle while the next few deliveries are claimed. Where nobody could find out
        after a crash whether what waits for its thread had begun, nothing waits.
        """
        found_out = all(action.idempotent or action.finder for action in self.connector.actions.values())
        portion = max(1.0, min(MAX_PORTION, PORTION / self.pace)) if found_out else 1.0
        return int(self.connector.limits.concurrency * portion)

    @property
    def free(self) -> int:
        """How many calls may be claimed now; 0 until enough have returned to be worth a transaction."""
        room = self.capacity - self.running
        return room if room >= self.capacity // 4 or self.running < self.connector.limits.concurrency else 0

    def returned(self, calls: int, seconds: float) -> None:
        """Note that so many calls have returned, each after so long."""
        self.running -= calls
        self.pace = max(1e-4, 0.8 * self.pace + 0.2 * seconds)

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in one of this connection's threads."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self.connector.limits.concurrency, thread_name_prefix=f"bridge-{self.name}"
            )
        self._pool.submit(contextvars.Context().run, work)

    def close(self) -> None:
        """Let the threads end, and close the client when it can be."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        close = getattr(self._client, "close", None)
        if self.running == 0 and callable(close):
            try:
                close()
            except Exception as error:
                log.warning("a client could not be closed", connection=self.name, exc_info=error)


@dataclass(frozen=True)
class Attempts:
    """What every attempt needs to know of the service."""

    database: Database
    public_url: str | None = None
    unsubscribe_url: Callable[[str, str], str | None] = lambda _channel, _address: None
    """A signed link that opts an address out of a channel."""

    def run(self, connection: Connection, call: Sequence[Claimed], deadline: float) -> list[Result]:
        """Make one call before `deadline` (an `uptime()`); one result for each of its deliveries, in order.

        Never raises: whatever goes wrong is a result.
        """
        action = connection.connector.actions.get(call[0].action.partition(".")[2])
        if action is None:
            words = f"this version's connector has no action `{call[0].action}`; left to a newer one, if there is one"
            return [Unfamiliar(words)] * len(call)
        try:
            with attempt_deadline(deadline):
                if uptime() >= deadline:
                    return [NotBegun()] * len(call)
                return self._call(connection, action, call)
        except LookupInconclusive as error:
            return [error]
        except Exception as error:
            return [failure_of(error, connection.connector.classify)] * len(call)
        except BaseException as error:
            # A connector that exits or is cancelled must not take its thread along.
            return [OutcomeUnknown(f"{type(error).__name__}: {error}", reason="internal_error")] * len(call)

    def _call(self, connection: Connection, action: Action, call: Sequence[Claimed]) -> list[Result]:
        jobs = [self._job(action, item) for item in call]
        ready = [job for job in jobs if isinstance(job, BatchItem)]
        if not ready:
            return [job if isinstance(job, Exception) else None for job in jobs]
        client = connection.client()
        if call[0].kind == "lookup":
            return [_result(_await(_finder(action)(client, ready[0].params, ready[0].context)))]
        if action.batch == 1:
            return [_result(_await(action.run(client, ready[0].params, ready[0].context)))]
        answers = iter(_run_batch(connection.connector, action, client, ready))
        return [next(answers) if isinstance(job, BatchItem) else job for job in jobs]

    def _job(self, action: Action, item: Claimed) -> BatchItem[Any] | Unfamiliar:
        """The params and the context of one delivery."""
        try:
            params = action.params.model_validate(dict(item.params))
        except ValidationError as error:
            places = ", ".join(
                ".".join(map(str, problem["loc"])) for problem in error.errors(include_input=False)
            )
            return Unfamiliar(
                f"this version of {item.action} does not take the stored params ({places}); left to a newer one, "
                "if there is one"
            )
        channel, recipient = item.channel, item.recipient
        link = self.unsubscribe_url(channel, recipient) if channel and recipient else None
        return BatchItem(
            params,
            Context(
                delivery=item.id,
                connection=item.connection,
                event=item.event,
                idempotency_key=item.idempotency_key,
                now=item.started_at,
                first_attempt_at=item.first_attempt_at,
                attempt=item.attempts + 1,
                expires_at=item.expires_at,
                quiet_hours_start=item.quiet_hours_start,
                existing_id=item.existing_id,
                contact_cache=StoredContactCache(self.database, item.connection),
                public_url=self.public_url,
                unsubscribe_url=link,
                ids_used_by_others=lambda ids: external_ids_in_use(
                    self.database, item.connection, item.id, ids
                ),
            ),
        )


def _run_batch(
    connector: Connector, action: Action, client: Any, jobs: Sequence[BatchItem[Any]]
) -> list[Result]:
    """One answer per job. A refusal of the whole batch is split until the one that earned it stands alone."""
    try:
        answers = list(_await(action.run(client, jobs)))
        if len(answers) != len(jobs):
            raise OutcomeUnknown(f"{len(answers)} answers to {len(jobs)} deliveries", reason="internal_error")
        return [_result(answer) for answer in answers]
    except LookupInconclusive as error:
        return [error] * len(jobs)
    except Exception as error:
        failure = failure_of(error, connector.classify)
        if not isinstance(failure, PermanentError) or len(jobs) == 1:
            return [failure] * len(jobs)
    half = len(jobs) // 2
    return [
        result
        for part in (jobs[:half], jobs[half:])
        for result in _run_batch(connector, action, client, part)
    ]


def _finder(action: Action) -> Callable[..., Any]:
    if action.finder is None:
        raise OutcomeUnknown("this action has no lookup any more", reason="internal_error")
    return action.finder


def _result(answer: object) -> Result:
    """What an action returned, or an unknown outcome when it is nothing of the kind."""
    if answer is None or isinstance(answer, Success | DeliveryError | LookupInconclusive):
        return answer
    return OutcomeUnknown(
        f"the action returned {type(answer).__name__}, not Success", reason="internal_error"
    )


def _await(value: Any) -> Any:
    """The value, or what a coroutine function gives on an event loop of its own."""
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Path) and value.is_file():
        return value.read_text("utf-8", "replace")
    return str(value)


def open_connections(names: Mapping[str, Connector], environ: Mapping[str, str]) -> dict[str, Connection]:
    """A connection for each name; raises ConfigError that names every variable that is missing."""
    found: dict[str, Connection] = {}
    problems = []
    for name, connector in sorted(names.items()):
        try:
            settings = connector.settings.from_environment(environ, connector.settings.prefix(name))
            found[name] = Connection(name, connector, settings)
        except ConfigError as error:
            problems.append(f"connection {name}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return found
