"""The one transaction before every attempt.

`claim` takes what is due on one connection and decides about each delivery with the facts that hold at that
moment: whether its lane is free, what came in since, opt-outs, caps, who holds its effect. For those that go it
reserves the effect and writes the attempt, all in one transaction. What commits before an opt-out commits is the
last message.

What must not be decided twice at once is locked by name first: the recipient, the lane and the effect. Replicas
that want the same name wait for each other, in one order.
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
from bridge.policy import Cancel, Decision, Allow, Suppress, Defer, event_precedence
from bridge.store import schema
from bridge.store.bulk import bulk_insert, bulk_update
from bridge.store.connections import RequestBudget, lock_connection_row, acquire_budget
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.idempotency import release_keys
from bridge.store.opt_outs import recipient_lock_key
from bridge.store.policy_inputs import PolicyConfig, decide_all, load_policy_data, parse_options
from bridge.store.routing import read_events

LEASE = timedelta(seconds=30)
"""How long an attempt is ours; every attempt's deadline is shorter."""
MIN_CANDIDATES, MAX_CANDIDATES = 32, 400
"""Due deliveries that one look takes in. After so many no further look is made: PostgreSQL has room for only so
many locks at once."""
MAX_LOOKS = 4
_TABLE = schema.deliveries
_BUSY_LANE = timedelta(milliseconds=200)
"""How soon to look again when something is due whose lane runs in another process."""


@dataclass(slots=True)
class ClaimedDelivery:
    """One attempt that is ours to make: its delivery, and what was decided about it. Nobody changes it."""

    id: str
    fencing_token: int
    """Which claim of this delivery it is; who holds an older one can record nothing."""
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
    """The partner's id of the record that the effect already made."""
    channel: str | None
    recipient: str | None
    attempts: int
    """Attempts consumed before this one."""
    started_at: datetime
    first_attempt_at: datetime
    outcome_unknown_since: datetime | None
    expires_at: datetime | None
    trigger: str
    quiet_hours_start: datetime | None = None
    """For a message: when the person's quiet hours begin."""
    probe: bool = False
    """It tries whether a partner behind an open circuit answers again; failing uses up no attempt."""


@dataclass(frozen=True)
class Capacity:
    """How much one connection can take on now."""

    connection: str
    slots: int
    """Calls that may start."""
    batch_of: Callable[[str], int]
    """How many deliveries of an action go into one call."""
    per_second: float | None = None
    largest_batch: int = 1


@dataclass(frozen=True)
class ClaimedBatch:
    """The calls to make now, each a group of one action's deliveries; and when to look again."""

    calls: Sequence[Sequence[ClaimedDelivery]] = ()
    look_again_in: timedelta | None = None
    """How soon something may be due; None: not before something changes."""


def claim(database: Database, room: Capacity, policy_config: PolicyConfig, worker_id: str) -> ClaimedBatch:
    """Begin what is due on a connection."""
    with database.write() as conn:
        account = lock_connection_row(database, conn, room.connection)
        now = database.now(conn)  # after the lock: who waited for it must not come with an older clock
        gate = acquire_budget(conn, account, now, room.slots, room.per_second)
        chosen = _choose(database, conn, room, gate, now) if gate.calls else []
        if not chosen:
            return ClaimedBatch((), _look_again(conn, room.connection, gate, now))
        events = events_by_delivery(conn, chosen)
        facts = load_policy_data(conn, chosen, policy_config.messaging, now, policy_config.erased_as)
        decisions = decide_all(chosen, events, facts, policy_config, now)
        going = [row for row in chosen if isinstance(decisions.get(row.id), Allow | None)]
        if len(going) < len(chosen):
            _hold_back(database, conn, chosen, decisions, now)
        _begin(conn, going, events, worker_id, now)
        calls = _group(going, room)
        gate.take(conn, len(calls), now)

    def begun(row: Row[Any]) -> ClaimedDelivery:
        quiet_hours_start = getattr(decisions.get(row.id), "quiet_hours_start", None)
        return claimed_delivery_from_row(
            row, events[row.id], facts.existing_id(row), now, gate.probing, quiet_hours_start
        )

    return ClaimedBatch([[begun(row) for row in call] for call in calls], timedelta(0))


def _choose(
    database: Database, conn: Connection, room: Capacity, gate: RequestBudget, now: datetime
) -> list[Row[Any]]:
    """As many due deliveries as fill the calls that may start, no two of which share a name."""
    chosen: list[Row[Any]] = []
    names: set[str] = set()
    concurrency_keys: set[str] = set()
    sizes: dict[str, int] = {}
    calls = 0
    window = min(MAX_CANDIDATES, gate.calls * room.largest_batch + MIN_CANDIDATES)
    for _ in range(MAX_LOOKS):
        due = {
            "name": room.connection,
            "now": now,
            "concurrency_keys": list(concurrency_keys),
            "most": window,
        }
        rows = conn.execute(_DUE, due).all()
        for row in rows:
            call = _call(row)
            batch = 1 if row.outcome_unknown_since else room.batch_of(row.action)
            starts_call = sizes.get(call, 0) % batch == 0
            own_names = lock_keys(row)
            if not names.isdisjoint(own_names) or (starts_call and calls == gate.calls):
                continue
            calls += starts_call
            sizes[call] = sizes.get(call, 0) + 1
            names |= own_names
            if row.concurrency_key is not None:
                concurrency_keys.add(row.concurrency_key)
            chosen.append(row)
        if len(rows) < window or calls == gate.calls or len(chosen) >= MAX_CANDIDATES:
            break
    database.lock(conn, names)
    return chosen if database.is_sqlite else _still_free(conn, chosen)


_NEEDED = (
    "id", "event_id", "trigger", "rule", "action", "connection", "channel", "recipient", "contact", "conversation",
    "params", "options", "concurrency_key", "idempotency_key", "occurred_at", "reason", "detail", "run_at", "expires_at", "attempts",
    "fencing_token", "first_attempt_at", "outcome_unknown_since", "possibly_sent_at",
)  # fmt: skip
"""The columns of a delivery that deciding and attempting read."""


def _due_statement() -> Select[*tuple[Any, ...]]:
    """What is due, whose lane is neither running nor among `lanes`; the longest-waiting first."""
    running = _TABLE.alias("running")
    is_running = (
        select(literal(1))
        .where(text("running.state = 'running'"), running.c.concurrency_key == _TABLE.c.concurrency_key)
        .correlate(_TABLE)
        .exists()
    )
    concurrency_keys: BindParameter[str] = bindparam("concurrency_keys", expanding=True)
    return (
        select(*_TABLE.c[_NEEDED])
        .where(
            _TABLE.c.connection == bindparam("name"),
            text("deliveries.state IN ('pending', 'retrying')"),  # spelt out, for the partial index
            _TABLE.c.run_at <= bindparam("now"),
            or_(
                _TABLE.c.concurrency_key.is_(None),
                and_(~is_running, _TABLE.c.concurrency_key.not_in(concurrency_keys)),
            ),
        )
        .order_by(_TABLE.c.run_at)
        .limit(bindparam("most"))
        .with_for_update(of=_TABLE, skip_locked=True)
    )


_DUE = _due_statement()


def lock_keys(row: Row[Any]) -> set[str]:
    """What must not be decided twice at once: the lane, the effect, the recipient, and what `once` counts."""
    names = {f"idempotency {row.idempotency_key}"}
    if row.concurrency_key is not None:
        names.add(f"concurrency {row.concurrency_key}")
    if row.recipient is not None:
        names.add(recipient_lock_key(row.channel, row.recipient))
    once = parse_options(row).get("once")
    if once:
        names.add(f"once {row.rule} {row.action} {getattr(row, once['per'])}")
    return names


def _call(row: Row[Any]) -> str:
    """Deliveries of one call: those of one action; a lookup is a call of its own."""
    return f"lookup of {row.id}" if row.outcome_unknown_since else row.action


def _still_free(conn: Connection, chosen: list[Row[Any]]) -> list[Row[Any]]:
    """Those whose lane nobody else took before we held its lock."""
    concurrency_keys = [row.concurrency_key for row in chosen if row.concurrency_key is not None]
    if not concurrency_keys:
        return chosen
    table = schema.deliveries
    busy = set(
        conn.execute(
            select(table.c.concurrency_key).where(
                text("deliveries.state = 'running'"), table.c.concurrency_key.in_(concurrency_keys)
            )
        ).scalars()
    )
    return [row for row in chosen if row.concurrency_key not in busy]


def _look_again(conn: Connection, name: str, gate: RequestBudget, now: datetime) -> timedelta | None:
    """How soon something may be due on this connection, as far as is known now."""
    if gate.reopens_at is not None:
        return gate.reopens_at - now
    table = schema.deliveries
    next_at: datetime | None = conn.execute(
        select(table.c.run_at)
        .where(table.c.connection == name, text("deliveries.state IN ('pending', 'retrying')"))
        .order_by(table.c.run_at)
        .limit(1)
    ).scalar_one_or_none()
    return None if next_at is None else max(next_at - now, _BUSY_LANE)


def events_by_delivery(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, Event]:
    """The events behind these deliveries, by delivery."""
    found = read_events(conn, {row.event_id for row in rows if row.event_id})
    return {row.id: found.get(row.event_id) or Event({}, row.id, row.occurred_at) for row in rows}


def _hold_back(
    database: Database,
    conn: Connection,
    rows: Sequence[Row[Any]],
    decisions: Mapping[str, Decision],
    now: datetime,
) -> None:
    """Write what becomes of the deliveries that do not go now."""
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
                # It was tried in vain until it was no longer worth it: given up on, and for the last failure's reason.
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
        ended = {change["id"] for change in changes if change["finished_at"] is not None}
        release_keys(conn, {row.id: row.idempotency_key for row in rows if row.id in ended})
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


def _begin(
    conn: Connection,
    rows: Sequence[Row[Any]],
    events: Mapping[str, Event],
    worker_id: str,
    now: datetime,
) -> None:
    """Take the lease, reserve the effect and write the attempt."""
    if not rows:
        return
    table = schema.deliveries
    begun = literal(now, schema.Instant())
    conn.execute(
        update(table)
        .where(table.c.id.in_([row.id for row in rows]))
        .values(
            state="running",
            fencing_token=table.c.fencing_token + 1,
            lease_expires_at=now + LEASE,
            worker_id=worker_id,
            first_attempt_at=func.coalesce(table.c.first_attempt_at, begun),
            possibly_sent_at=func.coalesce(table.c.possibly_sent_at, begun),
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
    begun_at: datetime | None = None,
    probe: bool = False,
    quiet_hours_start: datetime | None = None,
) -> ClaimedDelivery:
    """A delivery's claim: the one that the row tells of, or the next one, when it begins now at `begun_at`."""
    started_at = begun_at or row.possibly_sent_at or row.occurred_at
    outcome_unknown_since = row.outcome_unknown_since
    if begun_at is not None and outcome_unknown_since is not None:
        # While it was due and nobody could ask (a pause, a service that was down), no time for looking counted.
        outcome_unknown_since += max(begun_at - row.run_at, timedelta(0))
    return ClaimedDelivery(
        id=row.id,
        fencing_token=row.fencing_token + (begun_at is not None),
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


def _group(rows: Sequence[Row[Any]], room: Capacity) -> list[list[Row[Any]]]:
    """The calls: each action's deliveries in groups that it can take, each lookup alone."""
    calls: list[list[Row[Any]]] = []
    sends: dict[str, list[Row[Any]]] = {}
    for row in rows:
        if _kind(row) == "lookup":
            calls.append([row])
        else:
            sends.setdefault(row.action, []).append(row)
    for action, group in sends.items():
        size = room.batch_of(action)
        calls += [group[start : start + size] for start in range(0, len(group), size)]
    return calls
