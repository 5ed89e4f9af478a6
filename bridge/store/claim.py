"""Claim: the transaction before every attempt.

`claim` selects the due deliveries of one connection and decides about each of them on the data of that moment:
whether its concurrency key is free, newer events, opt-outs, caps, and the state of its idempotency key. For the
deliveries that may be sent, the same transaction reserves the idempotency key and writes the attempt. A message that
was claimed before an opt-out is committed is the last one.

Decisions that must not be made twice concurrently are protected by locks: on the recipient, the concurrency key, the
idempotency key and the `once` count. Workers that need the same lock wait for each other, in one order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    text,
    update,
)

from bridge.events import Event
from bridge.policy import Allow, Cancel, Decision, Defer, Suppress, event_precedence
from bridge.store import schema
from bridge.store.bulk import bulk_insert, bulk_update
from bridge.store.connections import RequestBudget, acquire_budget, lock_connection_row
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.idempotency import release_keys
from bridge.store.opt_outs import recipient_lock_key
from bridge.store.policy_inputs import PolicyConfig, decide_all, load_policy_data, parse_options
from bridge.store.routing import read_events

LEASE = timedelta(seconds=30)
"""How long a claimed delivery belongs to its worker; the deadline of every attempt is shorter."""
MIN_CANDIDATES, MAX_CANDIDATES = 32, 400
"""Due deliveries that one query selects, at least and at most. The maximum also ends the selection, because
PostgreSQL can hold only a limited number of locks."""
MAX_QUERIES = 4
"""How often one claim queries for more due deliveries."""
_TABLE = schema.deliveries
_MIN_POLL_DELAY = timedelta(milliseconds=200)
"""How soon to poll again if a due delivery waits for its concurrency key, which another worker is using."""


@dataclass(slots=True)
class ClaimedDelivery:
    """A delivery that this worker has claimed for one attempt. Read-only after it was created."""

    id: str
    fencing_token: int
    """The number of this claim; a result with an older number is not recorded."""
    kind: Literal["send", "lookup"]
    rule: str
    action: str
    connection: str
    params: Mapping[str, Any]
    options: Mapping[str, Any]
    event: Event
    occurred_at: datetime
    idempotency_key: str
    existing_id: str | None
    """The external ID of the record that the idempotency key already created."""
    channel: str | None
    recipient: str | None
    attempts: int
    """Attempts of the retry schedule used up before this one."""
    started_at: datetime
    first_attempt_at: datetime
    outcome_unknown_since: datetime | None
    expires_at: datetime | None
    trigger: str
    quiet_hours_start: datetime | None = None
    """For a message: when the recipient's quiet hours start."""
    probe: bool = False
    """True for the probe of an open circuit breaker; a failed probe uses up no attempt."""


@dataclass(frozen=True)
class Capacity:
    """The number of calls that one connection can start now."""

    connection: str
    slots: int
    """Free slots for calls."""
    batch_size: Callable[[str], int]
    """Returns how many deliveries of an action one call can carry."""
    per_second: float | None = None
    max_batch_size: int = 1


@dataclass(frozen=True)
class ClaimedBatch:
    """The calls to make now, each a batch of deliveries of one action, and when to poll again."""

    calls: Sequence[Sequence[ClaimedDelivery]] = ()
    next_poll_in: timedelta | None = None
    """How soon a delivery may be due; None: not before something changes."""


def claim(
    database: Database, capacity: Capacity, policy_config: PolicyConfig, worker_id: str
) -> ClaimedBatch:
    """Claim the due deliveries of a connection that may be sent now, as far as its capacity and budget allow."""
    with database.write() as conn:
        account = lock_connection_row(database, conn, capacity.connection)
        now = database.now(conn)  # read after waiting for the lock, so that time never goes back for this row
        budget = acquire_budget(conn, account, now, capacity.slots, capacity.per_second)
        selected = _select_due(database, conn, capacity, budget, now) if budget.calls else []
        if not selected:
            return ClaimedBatch((), _next_poll_delay(conn, capacity.connection, budget, now))
        events = events_by_delivery(conn, selected)
        data = load_policy_data(conn, selected, policy_config.messaging, now, policy_config.hash_address)
        decisions = decide_all(selected, events, data, policy_config, now)
        allowed = [row for row in selected if isinstance(decisions.get(row.id), Allow | None)]
        if len(allowed) < len(selected):
            _apply_other_decisions(database, conn, selected, decisions, now)
        _start_attempts(conn, allowed, events, worker_id, now)
        calls = _split_into_batches(allowed, capacity)
        budget.spend(conn, len(calls), now)

    def claimed(row: Row[Any]) -> ClaimedDelivery:
        quiet_hours_start = getattr(decisions.get(row.id), "quiet_hours_start", None)
        return claimed_delivery_from_row(
            row, events[row.id], data.existing_id(row), now, budget.is_probe, quiet_hours_start
        )

    return ClaimedBatch([[claimed(row) for row in call] for call in calls], timedelta(0))


def _select_due(
    database: Database, conn: Connection, capacity: Capacity, budget: RequestBudget, now: datetime
) -> list[Row[Any]]:
    """Select and lock enough due deliveries to fill the calls that may start; no two share a lock key."""
    selected: list[Row[Any]] = []
    keys: set[str] = set()
    concurrency_keys: set[str] = set()
    sizes: dict[str, int] = {}
    calls = 0
    limit = min(MAX_CANDIDATES, budget.calls * capacity.max_batch_size + MIN_CANDIDATES)
    for _ in range(MAX_QUERIES):
        parameters = {
            "connection": capacity.connection,
            "now": now,
            "concurrency_keys": list(concurrency_keys),
            "limit": limit,
        }
        rows = conn.execute(_DUE, parameters).all()
        for row in rows:
            batch_key = _batch_key(row)
            batch_size = 1 if row.outcome_unknown_since else capacity.batch_size(row.action)
            starts_call = sizes.get(batch_key, 0) % batch_size == 0
            row_keys = lock_keys(row)
            if not keys.isdisjoint(row_keys) or (starts_call and calls == budget.calls):
                continue
            calls += starts_call
            sizes[batch_key] = sizes.get(batch_key, 0) + 1
            keys |= row_keys
            if row.concurrency_key is not None:
                concurrency_keys.add(row.concurrency_key)
            selected.append(row)
        if len(rows) < limit or calls == budget.calls or len(selected) >= MAX_CANDIDATES:
            break
    database.lock(conn, keys)
    return selected if database.is_sqlite else _drop_busy(conn, selected)


_COLUMNS = (
    "id", "event_id", "trigger", "rule", "action", "connection", "channel", "recipient", "contact", "conversation",
    "params", "options", "concurrency_key", "idempotency_key", "occurred_at", "reason", "detail", "run_at",
    "expires_at", "attempts", "fencing_token", "first_attempt_at", "outcome_unknown_since", "possibly_sent_at",
)  # fmt: skip
"""The columns that the decision and the attempt need."""


def _due_statement() -> Select[*tuple[Any, ...]]:
    """Select due deliveries whose concurrency key is neither running nor in `concurrency_keys`, oldest first."""
    running = _TABLE.alias("running")
    is_running = (
        select(literal(1))
        .where(text("running.state = 'running'"), running.c.concurrency_key == _TABLE.c.concurrency_key)
        .correlate(_TABLE)
        .exists()
    )
    concurrency_keys: BindParameter[str] = bindparam("concurrency_keys", expanding=True)
    return (
        select(*_TABLE.c[_COLUMNS])
        .where(
            _TABLE.c.connection == bindparam("connection"),
            text("deliveries.state IN ('pending', 'retrying')"),  # literal, so that the partial index is used
            _TABLE.c.run_at <= bindparam("now"),
            or_(
                _TABLE.c.concurrency_key.is_(None),
                and_(~is_running, _TABLE.c.concurrency_key.not_in(concurrency_keys)),
            ),
        )
        .order_by(_TABLE.c.run_at)
        .limit(bindparam("limit"))
        .with_for_update(of=_TABLE, skip_locked=True)
    )


_DUE = _due_statement()


def lock_keys(row: Row[Any]) -> set[str]:
    """Return the keys to lock: concurrency key, idempotency key, recipient, and the count of `once`."""
    keys = {f"idempotency {row.idempotency_key}"}
    if row.concurrency_key is not None:
        keys.add(f"concurrency {row.concurrency_key}")
    if row.recipient is not None:
        keys.add(recipient_lock_key(row.channel, row.recipient))
    once = parse_options(row).get("once")
    if once:
        keys.add(f"once {row.rule} {row.action} {getattr(row, once['per'])}")
    return keys


def _batch_key(row: Row[Any]) -> str:
    """Return the key of the batches that a delivery may join: its action; a lookup is a call of its own."""
    return f"lookup of {row.id}" if row.outcome_unknown_since else row.action


def _drop_busy(conn: Connection, selected: list[Row[Any]]) -> list[Row[Any]]:
    """Drop deliveries whose concurrency key another worker has used since, before this one held its lock."""
    concurrency_keys = [row.concurrency_key for row in selected if row.concurrency_key is not None]
    if not concurrency_keys:
        return selected
    table = schema.deliveries
    busy = set(
        conn.execute(
            select(table.c.concurrency_key).where(
                text("deliveries.state = 'running'"), table.c.concurrency_key.in_(concurrency_keys)
            )
        ).scalars()
    )
    return [row for row in selected if row.concurrency_key not in busy]


def _next_poll_delay(conn: Connection, name: str, budget: RequestBudget, now: datetime) -> timedelta | None:
    """Return how soon a delivery may be due on this connection, as far as known now."""
    if budget.available_at is not None:
        return budget.available_at - now
    table = schema.deliveries
    next_at: datetime | None = conn.execute(
        select(table.c.run_at)
        .where(table.c.connection == name, text("deliveries.state IN ('pending', 'retrying')"))
        .order_by(table.c.run_at)
        .limit(1)
    ).scalar_one_or_none()
    return None if next_at is None else max(next_at - now, _MIN_POLL_DELAY)


def events_by_delivery(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, Event]:
    """Return the events of these deliveries, by delivery ID."""
    events = read_events(conn, {row.event_id for row in rows if row.event_id})
    return {row.id: events.get(row.event_id) or Event({}, row.id, row.occurred_at) for row in rows}


def _apply_other_decisions(
    database: Database,
    conn: Connection,
    rows: Sequence[Row[Any]],
    decisions: Mapping[str, Decision],
    now: datetime,
) -> None:
    """Defer, suppress or cancel the deliveries that may not be sent now."""
    changes = []
    for row in rows:
        decision = decisions.get(row.id)
        match decision:
            case Defer():
                state = "retrying" if row.attempts else "pending"
                changes.append(_change(row, state, row.reason, decision.detail, run_at=decision.until))
            case Cancel():
                changes.append(_change(row, "cancelled", None, decision.detail, finished_at=now))
            case Suppress() if decision.reason == "expired" and row.attempts:
                # Its attempts failed until it expired: it failed, for the reason of the last attempt.
                changes.append(
                    _change(
                        row, "failed", row.reason, f"{row.detail or ''} ({decision.detail})", finished_at=now
                    )
                )
            case Suppress():
                changes.append(_change(row, "suppressed", decision.reason, decision.detail, finished_at=now))
            case _:
                pass
    if changes:
        bulk_update(conn, _TABLE, ["id"], changes)
        finished = {change["id"] for change in changes if change["finished_at"] is not None}
        release_keys(conn, {row.id: row.idempotency_key for row in rows if row.id in finished})
        if any(change["needs_follow_up"] for change in changes):
            database.publish(conn, [EVENTS_TOPIC])


def _change(
    row: Row[Any],
    state: str,
    reason: str | None,
    detail: str,
    *,
    run_at: datetime | None = None,
    finished_at: datetime | None = None,
) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": state,
        "reason": reason,
        "detail": detail,
        "run_at": run_at or row.run_at,
        "finished_at": finished_at,
        "needs_follow_up": state == "failed" and row.trigger == "rule",
    }


def _start_attempts(
    conn: Connection,
    rows: Sequence[Row[Any]],
    events: Mapping[str, Event],
    worker_id: str,
    now: datetime,
) -> None:
    """Take the lease, reserve the idempotency key and write the attempt."""
    if not rows:
        return
    table = schema.deliveries
    started_at = literal(now, schema.Instant())
    conn.execute(
        update(table)
        .where(table.c.id.in_([row.id for row in rows]))
        .values(
            state="running",
            fencing_token=table.c.fencing_token + 1,
            lease_expires_at=now + LEASE,
            worker_id=worker_id,
            first_attempt_at=func.coalesce(table.c.first_attempt_at, started_at),
            possibly_sent_at=func.coalesce(table.c.possibly_sent_at, started_at),
        )
    )
    bulk_insert(
        conn,
        schema.attempts,
        [
            {
                "delivery_id": row.id,
                "fencing_token": row.fencing_token + 1,
                "kind": _kind(row),
                "started_at": now,
                "worker_id": worker_id,
            }
            for row in rows
        ],
    )
    bulk_insert(
        conn,
        schema.idempotency_keys,
        [
            {
                "key": row.idempotency_key,
                "reserved_by": row.id,
                "precedence": event_precedence(events[row.id].type),
                "occurred_at": row.occurred_at,
                "changed_at": now,
            }
            for row in rows
        ],
        "ON CONFLICT (key) DO UPDATE SET reserved_by = excluded.reserved_by, changed_at = excluded.changed_at",
    )


def _kind(row: Row[Any]) -> Literal["send", "lookup"]:
    return "lookup" if row.outcome_unknown_since else "send"


def claimed_delivery_from_row(
    row: Row[Any],
    event: Event,
    existing_id: str | None = None,
    claimed_at: datetime | None = None,
    probe: bool = False,
    quiet_hours_start: datetime | None = None,
) -> ClaimedDelivery:
    """Return the claim that a running row describes, or the next claim if the row is claimed now (`claimed_at`)."""
    started_at = claimed_at or row.possibly_sent_at or row.occurred_at
    outcome_unknown_since = row.outcome_unknown_since
    if claimed_at is not None and outcome_unknown_since is not None:
        # Time in which the lookup was due but could not run (a pause, a stopped service) does not count.
        outcome_unknown_since += max(claimed_at - row.run_at, timedelta(0))
    return ClaimedDelivery(
        id=row.id,
        fencing_token=row.fencing_token + (claimed_at is not None),
        kind=_kind(row),
        trigger=row.trigger,
        rule=row.rule,
        action=row.action,
        connection=row.connection,
        params=json.loads(row.params),
        options=parse_options(row),
        event=event,
        occurred_at=row.occurred_at,
        idempotency_key=row.idempotency_key,
        existing_id=existing_id,
        channel=row.channel,
        recipient=row.recipient,
        attempts=row.attempts,
        started_at=started_at,
        first_attempt_at=row.first_attempt_at or started_at,
        outcome_unknown_since=outcome_unknown_since,
        expires_at=row.expires_at,
        probe=probe,
        quiet_hours_start=quiet_hours_start,
    )


def _split_into_batches(rows: Sequence[Row[Any]], capacity: Capacity) -> list[list[Row[Any]]]:
    """Split deliveries into calls: batches of one action, up to its batch size, and each lookup alone."""
    calls: list[list[Row[Any]]] = []
    sends: dict[str, list[Row[Any]]] = {}
    for row in rows:
        if _kind(row) == "lookup":
            calls.append([row])
        else:
            sends.setdefault(row.action, []).append(row)
    for action, action_rows in sends.items():
        size = capacity.batch_size(action)
        calls += [action_rows[start : start + size] for start in range(0, len(action_rows), size)]
    return calls
