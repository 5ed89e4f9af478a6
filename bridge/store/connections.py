"""What is shared about a connection: its pause, its circuit and its budget of requests.

A pause is an instant in the row: nothing that waits holds a thread. `pause_cause` says what ends it: `operator` and
`auth` end by a person or a changed secret, `rate_limit` and `quota` by themselves, `circuit_open` by a probe that
succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, select, update

from bridge.errors import (
    AccountError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.ids import new_id
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.telemetry import log

PauseCause = Literal["operator", "rate_limit", "quota", "auth", "circuit_open"]

INDEFINITELY = datetime(9999, 1, 1, tzinfo=UTC)
"""Until a person or a changed secret ends it."""
PROBE_INTERVAL = timedelta(seconds=10)
CIRCUIT_WINDOW = timedelta(seconds=60)
CIRCUIT_FAILURES = 5
"""The circuit opens at this many failures within the window, when they are at least half of all attempts."""
RATE_PAUSE, MAX_RATE_PAUSE = timedelta(seconds=1), timedelta(minutes=5)
"""How long a 429 without `Retry-After` pauses the connection: twice as long each time, until a request is answered."""
QUOTA_PAUSE = timedelta(hours=1)

_TABLE = schema.connections


@dataclass
class RequestBudget:
    """What may leave on a connection now."""

    name: str
    calls: int
    """How many calls may start; 0 while it is paused or out of budget."""
    reopens_at: datetime | None = None
    """When to ask again, while `calls` is 0."""
    tokens: float | None = None
    probing: bool = False
    """The circuit is half open: one call tries, and until it has answered nobody else does."""

    def take(self, conn: Connection, calls: int, now: datetime) -> None:
        """Spend the budget of `calls` calls, and close the gate behind a probe."""
        values: dict[str, Any] = {}
        if self.tokens is not None:
            values |= {"tokens": self.tokens - calls, "tokens_refilled_at": now}
        if self.probing:
            values["paused_until"] = now + 3 * PROBE_INTERVAL
        if values and calls:
            conn.execute(update(_TABLE).where(_TABLE.c.name == self.name).values(values))


def register_accounts(database: Database, fingerprints: Mapping[str, str]) -> None:
    """Make the rows of these connections; one whose settings changed is freed from a pause for credentials."""
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
            mended = conn.execute(
                update(_TABLE)
                .where(
                    _TABLE.c.name == name,
                    _TABLE.c.settings_fingerprint != fingerprint,
                    _TABLE.c.pause_cause == "auth",
                )
                .values(_OPEN)
            )
            if mended.rowcount:
                log_state_change(name, _OPEN)
            conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(settings_fingerprint=fingerprint))


_OPEN: dict[str, Any] = {
    "paused_until": None,
    "pause_reason": None,
    "pause_cause": None,
    "pause_id": None,
    "alert_due": False,
    "failures": 0,
    "successes": 0,
    "window_started_at": None,
}


def acquire_budget(
    conn: Connection, row: Row[Any], now: datetime, calls: int, per_second: float | None
) -> RequestBudget:
    """Say how many of `calls` may start; `row` is the connection's, locked before `now` was read."""
    name = row.name
    if row.paused_until is not None and row.paused_until > now:
        return RequestBudget(name, 0, row.paused_until)
    probing = row.pause_cause == "circuit_open"
    if probing:
        calls = min(calls, 1)
    elif row.pause_cause is not None:
        conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(_OPEN))
        log_state_change(name, _OPEN)
    if per_second is None:
        return RequestBudget(name, calls, probing=probing)
    burst = max(1.0, per_second)
    # A clock that was put back would refill nothing until it has caught up.
    elapsed = abs((now - row.tokens_refilled_at).total_seconds()) if row.tokens_refilled_at else burst
    tokens = min(burst, (row.tokens if row.tokens is not None else burst) + elapsed * per_second)
    if tokens < 1:
        return RequestBudget(name, 0, now + timedelta(seconds=(1 - tokens) / per_second), tokens)
    return RequestBudget(name, min(calls, int(tokens)), None, tokens, probing)


def lock_connection_row(database: Database, conn: Connection, name: str) -> Row[Any]:
    """The connection's row, locked until the transaction ends; made if need be."""
    query = select(_TABLE).where(_TABLE.c.name == name).with_for_update()
    row = conn.execute(query).one_or_none()
    if row is None:
        fresh = {"name": name, "failures": 0, "successes": 0, "alert_due": False}
        conn.execute(database.insert_new(_TABLE), [fresh])
        row = conn.execute(query).one()
    return row


def record_outcomes(
    database: Database,
    conn: Connection,
    name: str,
    outcomes: Sequence[DeliveryError | None],
    now: datetime,
    refused_by: Callable[[str], str],
) -> Mapping[str, Any]:
    """What these attempts say about their connection: None for one that took effect.

    Returns the columns that change: for `tell`, once the transaction has committed.
    """
    row = lock_connection_row(database, conn, name)
    answered = any(outcome is None or isinstance(outcome, PermanentError) for outcome in outcomes)
    consecutive_rate_limits = 0 if answered else row.consecutive_rate_limits
    pauses = [
        pause
        for outcome in outcomes
        if (pause := _pause(row, outcome, consecutive_rate_limits, now)) is not None
    ]
    values = max(pauses, key=lambda pause: pause["paused_until"], default=None)
    if values is None:
        values = _circuit(row, outcomes, now)
        if consecutive_rate_limits != row.consecutive_rate_limits:
            values |= {"consecutive_rate_limits": consecutive_rate_limits}
    elif row.pause_cause not in (None, "circuit_open") and row.paused_until >= values["paused_until"]:
        return {}  # calls that were under way meet the same wall: the longest pause holds, and was alerted
    if not values or (row.pause_cause == "operator" and row.paused_until and row.paused_until > now):
        return {}
    if values.get("pause_cause") == "auth":
        # Not those that were registered last: during a rolling restart a process may still have the old ones.
        values |= {"settings_fingerprint": refused_by(name)}
    conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(values))
    return values


_ADVICE: dict[PauseCause, str] = {
    "auth": "mend the account's variables and restart; `bridge check --online` names them",
    "quota": "it goes on by itself when the partner says so, or after `bridge resume`",
    "circuit_open": "one call tries every 10 s, and it goes on by itself when one succeeds",
    "rate_limit": "it goes on by itself",
}


def log_state_change(name: str, turn: Mapping[str, Any]) -> None:
    """Log that a connection was paused or goes on; `turn` are the columns that changed."""
    by = turn.get("pause_cause")
    if by is not None:
        say = log.info if by == "rate_limit" else log.warning
        until = turn["paused_until"]
        say(
            "connection paused", connection=name, by=by, until=None if until == INDEFINITELY else until.isoformat(),
            reason=turn["pause_reason"], advice=_ADVICE[by],
        )  # fmt: skip
    elif "pause_cause" in turn:
        log.info("connection goes on", connection=name)


def _pause(
    row: Row[Any], outcome: DeliveryError | None, consecutive_rate_limits: int, now: datetime
) -> dict[str, Any] | None:
    """The pause that one failure asks for by itself, after so many 429s in a row."""
    if isinstance(outcome, AccountError):
        return pause_columns("auth", INDEFINITELY, outcome.detail, alert=True)
    if isinstance(outcome, QuotaExhausted):
        return pause_columns("quota", outcome.until or now + QUOTA_PAUSE, outcome.detail, alert=True)
    if isinstance(outcome, RateLimited):
        if outcome.retry_after is not None:
            return pause_columns("rate_limit", now + outcome.retry_after, outcome.detail)
        if row.pause_cause == "rate_limit" and row.paused_until > now:
            return pause_columns(
                "rate_limit", row.paused_until, outcome.detail
            )  # it was under way when the pause began
        wait = min(RATE_PAUSE * 2 ** min(consecutive_rate_limits, 16), MAX_RATE_PAUSE)
        return pause_columns("rate_limit", now + wait, outcome.detail) | {
            "consecutive_rate_limits": consecutive_rate_limits + 1
        }
    return None


def _circuit(row: Row[Any], outcomes: Sequence[DeliveryError | None], now: datetime) -> dict[str, Any]:
    """Count; open the circuit at too many failures, close it at a success.

    A request that failed is one failure, however many deliveries it carried: they share its exception.
    """
    failed = [outcome for outcome in outcomes if outcome is not None and is_provider_failure(outcome)]
    details = [outcome.detail for outcome in {id(outcome): outcome for outcome in failed}.values()]
    answered = len(outcomes) - len(failed)
    if row.pause_cause == "circuit_open":
        return dict(_OPEN) if answered else {"paused_until": now + PROBE_INTERVAL}
    if not details and not row.failures:
        return {}
    fresh = row.window_started_at is None or now - row.window_started_at > CIRCUIT_WINDOW
    failures = (0 if fresh else row.failures) + len(details)
    successes = (0 if fresh else row.successes) + answered
    if details and failures >= CIRCUIT_FAILURES and failures >= successes:
        reason = f"{failures} of {failures + successes} attempts failed, the last one: {details[-1]}"
        return pause_columns("circuit_open", now + PROBE_INTERVAL, reason, alert=True)
    return {
        "failures": failures,
        "successes": successes,
        "window_started_at": now if fresh else row.window_started_at,
    }


def is_provider_failure(outcome: DeliveryError | None) -> bool:
    """Whether a failure says that the partner is down or slow, rather than something about one delivery."""
    return isinstance(outcome, (TransientError, OutcomeUnknown)) and outcome.reason in (
        "server_error",
        "timeout",
        "network",
    )


def pause_columns(by: PauseCause, until: datetime, reason: str, *, alert: bool = False) -> dict[str, Any]:
    """The columns of a pause."""
    values: dict[str, Any] = {"pause_cause": by, "paused_until": until, "pause_reason": reason[:500]}
    if alert:
        values |= {"pause_id": new_id("pau"), "alert_due": True}
    return values


def pause(database: Database, name: str, reason: str, actor: str) -> None:
    """Pause by a person, until `resume`."""
    with database.write() as conn:
        lock_connection_row(database, conn, name)
        record_audit(
            conn,
            database.now(conn),
            actor,
            "pause",
            [name],
            {"reason": reason} if reason else None,
        )
        conn.execute(
            update(_TABLE)
            .where(_TABLE.c.name == name)
            .values(pause_columns("operator", INDEFINITELY, reason))
        )


def resume(database: Database, name: str, actor: str) -> None:
    """End any pause, and forget the failures that led to it."""
    with database.write() as conn:
        lock_connection_row(database, conn, name)
        record_audit(conn, database.now(conn), actor, "resume", [name])
        conn.execute(
            update(_TABLE).where(_TABLE.c.name == name).values(_OPEN | {"consecutive_rate_limits": 0})
        )
        database.publish(conn, [name])


def all_connections(database: Database) -> list[dict[str, Any]]:
    """Every connection's row."""
    with database.read() as conn:
        return [dict(row._mapping) for row in conn.execute(select(_TABLE).order_by(_TABLE.c.name))]
