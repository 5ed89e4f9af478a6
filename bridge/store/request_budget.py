"""Request budget: the requests that may leave over a connection now, shared by all workers.

A bucket in the row of the connection (`tokens`) holds the requests. A claim takes what its calls are expected to need,
and their results settle what they took. See docs/decisions/0047-request-budget.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, update

from bridge.lifecycle import PauseCause, StopScope
from bridge.store import schema
from bridge.store.connections import NOT_PAUSED, PROBE_INTERVAL, ConnectionState, log_state_change
from bridge.store.pause_history import end_pause

Due = Literal["all", "no_messages", "alerts"]
"""Due deliveries: all, all but messages to people, or alerts only."""
STOPPED_POLL = timedelta(hours=1)
"""When to ask again while everything is stopped; the end of the stop wakes the workers."""
MAX_DEBT_SECONDS = 10
"""How long calls that took more requests than expected delay the next ones, at most."""

_TABLE = schema.connections
_WRITE = update(_TABLE).where(_TABLE.c.name == bindparam("connection"))
"""Built once, because every claim uses it; sets the columns that are passed as its parameters."""


@dataclass
class RequestBudget:
    """The number of calls that may start on a connection now."""

    name: str
    calls: int
    """0 while the connection is paused or out of budget."""
    available_at: datetime | None = None
    """When to ask again, if `calls` is 0."""
    tokens: float | None = None
    requests_per_call: int = 1
    is_probe: bool = False
    """True while the circuit breaker is half-open: one call probes the provider, and all others wait for its result."""
    due: Due = "all"
    """Which due deliveries may leave. Alerts leave while all connections are paused, or this one by
    `messaging.caps.total`, because it may be the only way to alert."""

    def spend(self, conn: Connection, calls: int, now: datetime, columns: Mapping[str, Any]) -> None:
        """Deduct `calls` calls from the budget, and write other `columns` of the connection.

        A probe pauses the connection until its result is known.
        """
        values: dict[str, Any] = {}
        if calls and self.tokens is not None:
            tokens = self.tokens - calls * self.requests_per_call
            values |= {"tokens": tokens, "tokens_refilled_at": now}
        if calls and self.is_probe:
            values["paused_until"] = now + 3 * PROBE_INTERVAL
        values |= columns
        if values:
            conn.execute(_WRITE, {"connection": self.name, **values})


def acquire_budget(
    conn: Connection,
    connection: ConnectionState,
    now: datetime,
    calls: int,
    per_second: float | None,
    requests_per_call: int = 1,
) -> RequestBudget:
    """Return how many of `calls` may start; `connection` was locked before `now` was read.

    A call may start if the budget has all the requests that it is expected to take, or is full.
    """
    name = connection.name
    is_capped = connection.pause_cause == PauseCause.TOTAL_CAP
    if connection.stop_scope == StopScope.EVERYTHING:
        return RequestBudget(name, 0, now + STOPPED_POLL)
    if connection.is_paused(now) and not is_capped:
        return RequestBudget(name, 0, connection.paused_until)
    due: Due = "all" if connection.stop_scope is None else "no_messages"
    if is_capped or connection.all_are_paused:
        due = "alerts"
    is_probe = connection.pause_cause == "circuit_open"
    if is_probe:
        calls = min(calls, 1)
    elif connection.pause_cause is not None and not is_capped:
        end_pause(conn, name, connection.paused_until or now)
        conn.execute(update(_TABLE).where(_TABLE.c.name == name).values(NOT_PAUSED))
        log_state_change(name, NOT_PAUSED)
    if per_second is None:
        return RequestBudget(name, calls, is_probe=is_probe, due=due)
    burst = max(1.0, per_second)
    # If the clock was set back, a negative difference would stop the refill until the clock has caught up.
    elapsed = (
        abs((now - connection.tokens_refilled_at).total_seconds()) if connection.tokens_refilled_at else burst
    )
    stored = burst if connection.tokens is None else max(connection.tokens, -MAX_DEBT_SECONDS * burst)
    tokens = min(burst, stored + elapsed * per_second)
    needed = min(requests_per_call, burst)
    if tokens < needed:
        return RequestBudget(name, 0, now + timedelta(seconds=(needed - tokens) / per_second), tokens)
    return RequestBudget(
        name, min(calls, int(tokens / needed)), None, tokens, requests_per_call, is_probe, due
    )


def take_requests(conn: Connection, name: str, requests: int) -> None:
    """Take requests from the budget of a connection that calls made beyond those that their claim took.

    A negative number gives back requests that were not made.
    """
    conn.execute(
        update(_TABLE)
        .where(_TABLE.c.name == name, _TABLE.c.tokens.is_not(None))
        .values(tokens=_TABLE.c.tokens - requests)
    )
