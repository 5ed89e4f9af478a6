"""Connections: the state that workers share about each one: its pause and circuit breaker.

A pause is an instant in the row, so waiting deliveries hold no thread. `pause_cause` determines how the pause ends:
`operator` and `total_cap` by an operator, `auth` and `account` by an operator or changed settings, `rate_limit` and
`quota` automatically, `circuit_open` by a successful probe.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from bridge.connector.callbacks import Channel
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.ids import new_id
from bridge.lifecycle import PauseCause, StopScope
from bridge.policy import MessageCounts
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.bulk import json_values, select_in
from bridge.store.database import Database
from bridge.store.pause_history import end_pause, record_pause_change
from bridge.store.pauses import ALL_CONNECTIONS, INDEFINITELY, Pause
from bridge.telemetry import log, mask

PROBE_INTERVAL = timedelta(seconds=10)
"""How long an open circuit breaker waits before the next probe."""
CIRCUIT_WINDOW = timedelta(seconds=60)
"""The period over which the circuit breaker counts attempts."""
CIRCUIT_FAILURES = 5
"""The circuit breaker opens at this many failures within the window, if they are at least half of all attempts."""
RATE_PAUSE, MAX_RATE_PAUSE = timedelta(seconds=1), timedelta(minutes=5)
"""The first and the longest pause after a 429 without `Retry-After`; it doubles until a request is answered. Each is up
to a fifth shorter, so that several connections of one account do not come back together."""
QUOTA_PAUSE = timedelta(hours=1)
"""The pause for an exhausted quota, if the provider does not report when it is reset."""

_ENDED_BY_NEW_SETTINGS = (PauseCause.AUTH, PauseCause.ACCOUNT)

_TABLE = schema.connections


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """A row of `connections`. `schema.connections` describes the columns."""

    name: str
    paused_until: datetime | None
    pause_reason: str | None
    pause_cause: str | None
    pause_id: str | None
    failures: int
    successes: int
    window_started_at: datetime | None
    consecutive_rate_limits: int
    tokens: float | None
    tokens_refilled_at: datetime | None
    message_counts: str | None
    stop_scope: str | None
    """What an operator has stopped by pausing all connections (`bridge.store.pause_all`), a `StopScope`; or None."""

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> ConnectionState:
        """Build the state from a row with the `CONNECTION_COLUMNS`."""
        return cls(*row)

    @property
    def all_are_paused(self) -> bool:
        """True while an operator has paused all connections, for more than messages to people."""
        return self.stop_scope not in (None, StopScope.MESSAGES)

    @property
    def pause(self) -> Pause | None:
        """The pause, which may be over; None if there is none."""
        return Pause.from_columns(asdict(self))

    def is_paused(self, now: datetime) -> bool:
        """Return True if no call may start now. An open circuit breaker lets one probe through between its pauses."""
        return self.paused_until is not None and self.paused_until > now


_ALL = _TABLE.alias("all_connections")
_STOP_SCOPE = (
    # A row that is older than the column has no scope.
    select(func.coalesce(_ALL.c.pause_scope, StopScope.DELIVERIES.value))
    .where(_ALL.c.name == ALL_CONNECTIONS)
    .scalar_subquery()
    .label("stop_scope")
)
CONNECTION_COLUMNS = (*(_TABLE.c[field.name] for field in fields(ConnectionState)[:-1]), _STOP_SCOPE)
"""The columns of a `ConnectionState`, in the order of its fields."""
_IS_CONNECTION = _TABLE.c.name == bindparam("connection")
_LOCK = select(*CONNECTION_COLUMNS).where(_IS_CONNECTION).with_for_update()
_LOCKED = _LOCK.subquery()
_LOCK_AND_TIME = select(*_LOCKED.c, func.clock_timestamp()).select_from(_LOCKED)
"""Of PostgreSQL: the outer query reads the clock when the inner one has the lock."""
_CHANGED_BY_SUCCESS = select_in(
    _TABLE.c.name,
    [_TABLE.c.name],
    "(pause_cause = 'circuit_open' OR failures > 0 OR consecutive_rate_limits > 0)",
)
"""Built once, because every claim and every batch of results use them."""


def register_accounts(database: Database, fingerprints: Mapping[str, str]) -> None:
    """Create the rows of these connections, and end pauses by the account whose settings have changed."""
    with database.write() as conn:
        for name, fingerprint in sorted(fingerprints.items()):
            row = {
                "name": name,
                "settings_fingerprint": fingerprint,
                "failures": 0,
                "successes": 0,
                "alert_due": False,
            }
            conn.execute(database.insert_new(_TABLE), [row])
            resumed = conn.execute(
                update(_TABLE)
                .where(
                    _TABLE.c.name == name,
                    _TABLE.c.settings_fingerprint != fingerprint,
                    _TABLE.c.pause_cause.in_(_ENDED_BY_NEW_SETTINGS),
                )
                .values(NOT_PAUSED)
            )
            if resumed.rowcount:
                end_pause(conn, name, database.now(conn))
                log_state_change(name, NOT_PAUSED)
            conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(settings_fingerprint=fingerprint))


NOT_PAUSED: Mapping[str, Any] = {
    "paused_until": None,
    "pause_reason": None,
    "pause_cause": None,
    "pause_id": None,
    "alert_due": False,
    "failures": 0,
    "successes": 0,
    "window_started_at": None,
}
"""The columns of a connection that is not paused, with no counted failures."""


def stored_message_counts(conn: Connection, name: str) -> MessageCounts:
    """Return the messages that count toward `caps.total` of a connection, without locking it."""
    query = select(_TABLE.c.message_counts).where(_TABLE.c.name == name)
    return MessageCounts.from_json(conn.execute(query).scalar_one_or_none())


def lock_connection(database: Database, conn: Connection, name: str) -> ConnectionState:
    """Return the connection's state, locked until the transaction ends; create its row if it does not exist."""
    row = conn.execute(_LOCK, {"connection": name}).one_or_none()
    if row is None:
        initial = {"name": name, "failures": 0, "successes": 0, "alert_due": False}
        conn.execute(database.insert_new(_TABLE), [initial])
        row = conn.execute(_LOCK, {"connection": name}).one()
    return ConnectionState.from_row(row)


def lock_connection_and_time(
    database: Database, conn: Connection, name: str
) -> tuple[ConnectionState, datetime]:
    """Return the connection's state, locked as by `lock_connection`, and the time, read while it is locked.

    On PostgreSQL, that is one round trip, as a rule. Read before the lock, the time could go back for this row.
    """
    row = None
    if not database.is_sqlite:
        row = conn.execute(_LOCK_AND_TIME, {"connection": name}).one_or_none()
    if row is None:
        return lock_connection(database, conn, name), database.now(conn)
    *columns, instant = row
    return ConnectionState.from_row(columns), instant + database.clock.shift


def changed_by_success(conn: Connection, names: Collection[str]) -> set[str]:
    """Return those of these connections that a success changes: failures are counted, or the circuit breaker is open.

    Their rows are not locked. A failure that another worker records at the same time counts as one after the success.
    """
    if not names:
        return set()
    return set(conn.execute(_CHANGED_BY_SUCCESS[conn.dialect.name], json_values(names)).scalars())


def record_outcomes(
    database: Database,
    conn: Connection,
    name: str,
    outcomes: Sequence[DeliveryError | None],
    now: datetime,
    fingerprint_of: Callable[[str], str] | None = None,
) -> Mapping[str, Any]:
    """Update a connection's pause and circuit breaker after attempts; an outcome of None is a success.

    `fingerprint_of` returns the fingerprint of the settings that were used, if that is known: a process that starts
    with other settings ends a pause by the account.

    Return the changed columns, to be passed to `log_state_change` once the transaction has committed.
    """
    connection = lock_connection(database, conn, name)
    answered = any(
        outcome is None or isinstance(outcome, PermanentError) or limits_object(outcome)
        for outcome in outcomes
    )
    consecutive_rate_limits = 0 if answered else connection.consecutive_rate_limits
    pauses = [
        pause
        for outcome in outcomes
        if (pause := _pause(connection, outcome, consecutive_rate_limits, now)) is not None
    ]
    values = max(pauses, key=lambda pause: pause["paused_until"], default=None)
    if values is None:
        values = _circuit(connection, outcomes, now)
        if consecutive_rate_limits != connection.consecutive_rate_limits:
            values |= {"consecutive_rate_limits": consecutive_rate_limits}
    elif (
        connection.pause_cause not in (None, "circuit_open")
        and connection.paused_until >= values["paused_until"]
    ):
        return {}  # calls that were already running failed likewise: the longest pause applies, and was alerted
    if not values or (connection.pause_cause in ("operator", "total_cap") and connection.is_paused(now)):
        return {}
    if fingerprint_of is not None and values.get("pause_cause") in _ENDED_BY_NEW_SETTINGS:
        # Not the last registered one: during a rolling restart a process may still use the old settings.
        values |= {"settings_fingerprint": fingerprint_of(name)}
    record_pause_change(conn, connection, values, now)
    conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(values))
    return values


def take_back_messages(
    database: Database, conn: Connection, name: str, messages: Iterable[tuple[Channel, datetime]]
) -> None:
    """Subtract messages that certainly were not sent: the channel of each, and when it was counted."""
    counts = MessageCounts.from_json(lock_connection(database, conn, name).message_counts)
    for channel, sent_at in messages:
        counts.remove(channel, sent_at)
    conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(message_counts=counts.to_json()))


def log_state_change(name: str, changed_columns: Mapping[str, Any]) -> None:
    """Log that a connection was paused or resumed, if `changed_columns` include its pause."""
    if "pause_cause" not in changed_columns:
        return
    pause = Pause.from_columns({"name": name, **changed_columns})
    if pause is None:
        log.info("connection resumed", connection=name)
        return
    (log.info if pause.cause == "rate_limit" else log.warning)(
        "connection paused", connection=name, cause=pause.cause, until=pause.until and pause.until.isoformat(),
        reason=pause.reason, advice=pause.hint,
    )  # fmt: skip


def _pause(
    connection: ConnectionState, outcome: DeliveryError | None, consecutive_rate_limits: int, now: datetime
) -> dict[str, Any] | None:
    """Return the pause that a single failure causes, given the number of earlier 429s in a row."""
    if isinstance(outcome, AccountError):
        cause = PauseCause.AUTH if isinstance(outcome, AuthenticationError) else PauseCause.ACCOUNT
        return pause_columns(cause, INDEFINITELY, mask(outcome.pause_reason), alert=True)
    if isinstance(outcome, QuotaExhausted):
        return pause_columns(
            PauseCause.QUOTA, outcome.until or now + QUOTA_PAUSE, mask(outcome.detail), alert=True
        )
    if isinstance(outcome, RateLimited) and not outcome.per_object:
        if outcome.retry_after:  # some send `Retry-After: 0` with every 429
            return pause_columns(PauseCause.RATE_LIMIT, now + outcome.retry_after, mask(outcome.detail))
        if connection.pause_cause == "rate_limit" and connection.paused_until and connection.is_paused(now):
            # The call was already running when the pause started.
            return pause_columns(PauseCause.RATE_LIMIT, connection.paused_until, mask(outcome.detail))
        wait = min(RATE_PAUSE * 2 ** min(consecutive_rate_limits, 16), MAX_RATE_PAUSE) * random.uniform(
            0.8, 1
        )
        return pause_columns(PauseCause.RATE_LIMIT, now + wait, mask(outcome.detail)) | {
            "consecutive_rate_limits": consecutive_rate_limits + 1
        }
    return None


def _circuit(
    connection: ConnectionState, outcomes: Sequence[DeliveryError | None], now: datetime
) -> dict[str, Any]:
    """Count outcomes; open the circuit breaker at too many failures, close it at a success.

    A failed request counts as one failure, regardless of how many deliveries it carried: they share its exception.
    """
    failed = [outcome for outcome in outcomes if outcome is not None and is_provider_failure(outcome)]
    details = [outcome.detail for outcome in {id(outcome): outcome for outcome in failed}.values()]
    answered = len(outcomes) - len(failed)
    if connection.pause_cause == "circuit_open":
        return dict(NOT_PAUSED) if answered else {"paused_until": now + PROBE_INTERVAL}
    if not details and not connection.failures:
        return {}
    is_expired = connection.window_started_at is None or now - connection.window_started_at > CIRCUIT_WINDOW
    failures = (0 if is_expired else connection.failures) + len(details)
    successes = (0 if is_expired else connection.successes) + answered
    if details and failures >= CIRCUIT_FAILURES and failures >= successes:
        reason = f"{failures} of {failures + successes} attempts failed; the last error: {mask(details[-1])}"
        return pause_columns(PauseCause.CIRCUIT_OPEN, now + PROBE_INTERVAL, reason, alert=True)
    return {
        "failures": failures,
        "successes": successes,
        "window_started_at": now if is_expired else connection.window_started_at,
    }


def limits_object(outcome: DeliveryError | None) -> bool:
    """True if a provider limits the requests for one record, and the connection as a whole can go on."""
    return isinstance(outcome, RateLimited) and outcome.per_object


def is_provider_failure(outcome: DeliveryError | None) -> bool:
    """True if a failure shows that the provider is down or slow, rather than a fault of one delivery."""
    return isinstance(outcome, (TransientError, OutcomeUnknown)) and outcome.reason in (
        "server_error",
        "timeout",
        "network",
    )


def pause_columns(cause: PauseCause, until: datetime, reason: str, *, alert: bool = False) -> dict[str, Any]:
    """Return the columns of a pause."""
    values: dict[str, Any] = {"pause_cause": cause, "paused_until": until, "pause_reason": reason[:500]}
    if alert:
        values |= {"pause_id": new_id("pau"), "alert_due": True}
    return values


def total_cap_pause(reason: str) -> dict[str, Any]:
    """Return the columns of the pause that `messaging.caps.total` causes."""
    return pause_columns(PauseCause.TOTAL_CAP, INDEFINITELY, reason, alert=True)


def operator_pause(reason: str) -> dict[str, Any]:
    """Return the columns of an operator's pause."""
    return pause_columns(PauseCause.OPERATOR, INDEFINITELY, reason)


def pause(database: Database, name: str, reason: str, actor: str) -> None:
    """Pause a connection for an operator, until `resume`."""
    with database.write() as conn:
        connection, columns = lock_connection(database, conn, name), operator_pause(reason)
        now = database.now(conn)
        record_audit(conn, now, actor, "pause", [name], {"reason": reason} if reason else None)
        record_pause_change(conn, connection, columns, now, actor)
        conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(columns))


def resume(database: Database, name: str, actor: str) -> None:
    """End any pause, and reset the counted failures and messages."""
    with database.write() as conn:
        connection = lock_connection(database, conn, name)
        now = database.now(conn)
        record_audit(conn, now, actor, "resume", [name])
        record_pause_change(conn, connection, NOT_PAUSED, now, actor)
        conn.execute(
            update(_TABLE)
            .where(_TABLE.c.name == name)
            .values({**NOT_PAUSED, "consecutive_rate_limits": 0, "message_counts": None})
        )
        database.publish(conn, [name])


def probe_now(database: Database, name: str, actor: str) -> bool:
    """Let the next probe of an open circuit breaker start at once; return False if the circuit is not open."""
    with database.write() as conn:
        if lock_connection(database, conn, name).pause_cause != PauseCause.CIRCUIT_OPEN:
            return False
        now = database.now(conn)
        record_audit(conn, now, actor, "probe", [name])
        conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(paused_until=now))
        database.publish(conn, [name])
    return True
