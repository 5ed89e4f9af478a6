"""Results: records the results of attempts, many in one transaction.

Only the newest claim of a delivery may change it. If a worker returns a result after another worker has claimed the
delivery again, the attempt is recorded for operators to see, and nothing else changes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select, text, update

from bridge.connector.callbacks import Channel
from bridge.connector.deadline import Quota
from bridge.errors import DeliveryError
from bridge.lifecycle import AttemptOutcome, DeliveryState, KeyEffect, Transition
from bridge.policy import event_precedence
from bridge.store import schema
from bridge.store.action_steps import deliveries_with_steps
from bridge.store.bulk import bulk_update, json_values, select_in
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.connection_stats import FinishedAttempt, count_attempts
from bridge.store.connections import (
    changed_by_success,
    limits_object,
    lock_connection,
    log_state_change,
    record_outcomes,
    take_back_messages,
)
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import DELIVERY_COLUMNS, DELIVERY_STATES, Delivery
from bridge.store.opt_outs import OptOutChange, save_opt_outs
from bridge.store.repeated_attempts import Probe, fold_repeats
from bridge.store.request_budget import take_requests
from bridge.store.routing import events_by_delivery
from bridge.store.transitions import Change, apply_transitions
from bridge.store.undeliverable import DeliveryProblem, save_undeliverable

UNDELIVERED_STATUSES: Final = ("undelivered", "failed")
"""Message statuses that mean that the recipient did not get the message."""
OTHER_WORKERS_GRACE: Final = timedelta(minutes=2)
"""How long an expired lease is left to a worker that has the connection."""
MAX_HELD_BACK: Final = 1000
"""Deliveries of a connection, those due next, that are searched for the concurrency key of a limited record."""
SAME_RECORD: Final = "waits: the provider limits the requests for the same record"
"""The `detail` of a delivery that waits because another one with its concurrency key was limited."""
CONFIRMED_BY_STATUS: Final = "confirmed by its message status"
"""The `detail` of a delivery whose outcome only the message status confirmed."""
_TABLE: Final = schema.deliveries
_ATTEMPTED: Final = select_in(
    _TABLE.c.id,
    _TABLE.c["id", "state", "fencing_token", "external_id", "message_status", "detail"],
    "state IN ('running', 'retrying', 'needs_review')",
    lock=True,
)
"""The deliveries whose results are recorded, locked. Built once, because every batch uses it."""
_STATUS_ORDER: Final = {"queued": 0, "sent": 1, "delivered": 2, "undelivered": 2, "failed": 2}


def latest_status(current: str | None, reported: str | None) -> str | None:
    """Return the status that counts: providers repeat and reorder statuses, and the first final one stays."""
    if current is None or reported is None:
        return current or reported
    return reported if _STATUS_ORDER[reported] > _STATUS_ORDER[current] else current


@dataclass(slots=True)
class AttemptResult:
    """The result of one attempt, and the transition of its delivery. Read-only once classified."""

    claimed: ClaimedDelivery
    outcome: AttemptOutcome
    transition: Transition
    failure: DeliveryError | None = None
    consumed: int = 1
    """Attempts of the retry schedule that this one used up."""
    external_id: str | None = None
    message_status: str | None = None
    opt_out: bool = False
    """The provider reports that the recipient opted out of this channel."""
    undeliverable: bool = False
    """The provider reports that the address cannot get messages on this channel."""
    extra_requests: int = 0
    """Requests that the call made beyond those that its claim took from the connection's budget. Set on the first
    result of a batch."""
    quota: Quota | None = None
    """How much of the account's quota is used up, if the provider said so and it has not been recorded lately. Set on
    the first result of a batch."""
    is_rerun: bool = False
    """The action was run, although the claim was one for a lookup."""
    affects_connection: bool = True
    """False if the result says nothing about the provider: the attempt never started, or the bridge interrupted it."""

    @property
    def delivery(self) -> Delivery:
        """The delivery as it was before the attempt."""
        return self.claimed.delivery

    def without_texts(self) -> AttemptResult:
        """Return the same result without the provider's texts, which the database may reject."""
        if self.failure is not None:
            self.failure.detail = ""
        return replace(self, transition=replace(self.transition, detail=None), external_id=None)


def record_results(
    database: Database, results: Sequence[AttemptResult], fingerprint_of: Callable[[str], str] = lambda _: ""
) -> list[ClaimedDelivery]:
    """Record results in one transaction; return the deliveries whose claim is no longer the newest.

    `fingerprint_of` returns the fingerprint of a connection's settings in this process. If the provider refuses them,
    a process with other settings ends the pause.
    """
    with database.write() as conn:
        now = database.now(conn)
        by_connection: dict[str, list[DeliveryError | None]] = defaultdict(list)
        for item in results:
            if item.affects_connection:
                by_connection[item.delivery.connection].append(item.failure)
        # Most successes change nothing there, and then the workers of one connection do not wait for each other.
        changing = {item.delivery.connection for item in results if _changes_connection(item)}
        changing |= changed_by_success(conn, by_connection.keys() - changing)
        changed_columns: dict[str, Mapping[str, Any]] = {}
        for name in sorted(changing):  # locked in one order, and before the deliveries, as `claim` does
            if name in by_connection:
                outcomes = by_connection[name]
                changed_columns[name] = record_outcomes(database, conn, name, outcomes, now, fingerprint_of)
            else:
                lock_connection(database, conn, name)
        _settle_requests(conn, results)
        _record_quotas(conn, results, now)
        _take_back_unsent(database, conn, results)
        ids = json_values({item.delivery.id for item in results})
        rows = {row.id: row for row in conn.execute(_ATTEMPTED[conn.dialect.name], ids)}
        outdated: list[ClaimedDelivery] = []
        current: list[Change] = []
        probes: list[Probe] = []
        opt_outs: list[OptOutChange] = []
        problems: list[DeliveryProblem] = []
        for item in results:
            row = rows.get(item.delivery.id)
            if (
                row is None
                or row.fencing_token != item.claimed.fencing_token
                # Once the lease has expired, only a success of the newest claim counts.
                or not (row.state == "running" or item.transition.state == "succeeded")
            ):
                outdated.append(item.claimed)
                continue
            if row.message_status is not None and item.external_id in (None, row.external_id):
                item = _with_reported_status(item, row.external_id, row.message_status, row.detail)
            current.append(_change(item, DELIVERY_STATES[row.state], now))
            if item.claimed.probe:
                probes.append(_probe(item))
            channel, recipient, connection = (
                item.delivery.channel, item.delivery.recipient, item.delivery.connection
            )  # fmt: skip
            if item.opt_out and channel and recipient:
                opt_outs.append(OptOutChange(channel, recipient, True, f"refused by {connection}"))
            if item.undeliverable and channel and recipient:
                problems.append(DeliveryProblem(channel, recipient, connection, item.transition.detail or ""))
        bulk_update(
            conn,
            schema.attempts,
            ["delivery_id", "fencing_token"],
            [_attempt_row(item, now) for item in results],
        )
        fold_repeats(conn, probes, now)
        save_opt_outs(database, conn, opt_outs, now)
        save_undeliverable(conn, problems, now)
        apply_transitions(database, conn, current, now)
        hold_back_same_keys(database, conn, [item for item in results if limits_object(item.failure)], now)
        # Last, because the workers of one connection add to the same row and wait for each other's commit.
        count_attempts(
            conn,
            [
                FinishedAttempt(item.delivery.connection, item.claimed.started_at, item.failure)
                for item in results
                if item.affects_connection
            ],
            now,
        )
        if any(columns.get("alert_due") for columns in changed_columns.values()):
            database.publish(conn, [EVENTS_TOPIC])
        database.publish(conn, {item.delivery.connection for item in results})
    for name, columns in changed_columns.items():
        log_state_change(name, columns)
    return outdated


def _changes_connection(item: AttemptResult) -> bool:
    """Return True if a result changes the row of its connection, whatever the state of the connection."""
    return bool(
        (item.affects_connection and item.failure is not None)
        or item.extra_requests
        or item.quota
        or _unsent_channel(item)
    )


def _unsent_channel(item: AttemptResult) -> Channel | None:
    """Return the channel of a message that caps counted and that certainly was not sent."""
    is_unsent = item.delivery.kind == "send" and not item.transition.may_have_taken_effect
    return item.delivery.capped_channel if is_unsent else None


def _settle_requests(conn: Connection, results: Sequence[AttemptResult]) -> None:
    """Take from the budgets what the calls needed beyond what their claims took."""
    extra: Counter[str] = Counter()
    for item in results:
        extra[item.delivery.connection] += item.extra_requests
    for name, requests in sorted(extra.items()):
        if requests:
            take_requests(conn, name, requests)


def _record_quotas(conn: Connection, results: Sequence[AttemptResult], now: datetime) -> None:
    """Record what the providers said about the quotas of the accounts."""
    connections = schema.connections
    for item in results:
        if item.quota is not None:
            values = {"quota_used": item.quota.used, "quota_limit": item.quota.limit, "quota_seen_at": now}
            conn.execute(
                update(connections).where(connections.c.name == item.delivery.connection).values(values)
            )


def _take_back_unsent(database: Database, conn: Connection, results: Sequence[AttemptResult]) -> None:
    """Take back what `claim` counted for `caps.total`, if the attempt certainly did not send the message.

    The result of an outdated claim counts as well: it is about the same attempt. A lookup that does not find the
    message takes nothing back, because it is not known when the message was counted.
    """
    unsent: dict[str, list[tuple[Channel, datetime]]] = defaultdict(list)
    for item in results:
        if (channel := _unsent_channel(item)) is not None:
            unsent[item.delivery.connection].append((channel, item.claimed.started_at))
    for name, messages in sorted(unsent.items()):
        take_back_messages(database, conn, name, messages)


def _with_reported_status(
    item: AttemptResult, external_id: str, reported: str, detail: str | None
) -> AttemptResult:
    """Merge the message status that a callback stored during the attempt; a status confirms the action."""
    status = latest_status(reported, item.message_status)
    transition, failure = item.transition, item.failure
    if transition.key is KeyEffect.KEEP:
        transition, failure = Transition.succeeded(CONFIRMED_BY_STATUS), None
    undelivered = status in UNDELIVERED_STATUSES
    transition = replace(
        transition, detail=detail if undelivered else transition.detail, undelivered=undelivered
    )
    return replace(
        item, transition=transition, failure=failure, external_id=external_id, message_status=status
    )


def hold_back_same_keys(
    database: Database, conn: Connection, limited: Sequence[AttemptResult], now: datetime
) -> None:
    """Let the deliveries that share a concurrency key with these results wait as long as they do.

    Only those that are due next are looked at: any other has its own response when its time comes.
    """
    table = schema.deliveries
    for item in limited:
        key, wait = item.delivery.concurrency_key, item.transition.run_at
        if key is None or item.transition.state != "retrying" or not isinstance(wait, timedelta):
            continue
        is_waiting = text("deliveries.state IN ('pending', 'retrying')")
        is_next = (
            (table.c.connection == item.delivery.connection) & is_waiting & (table.c.run_at < now + wait)
        )
        due_next = select(table.c.id).where(is_next).order_by(table.c.run_at).limit(MAX_HELD_BACK)
        rows = conn.execute(
            select(*DELIVERY_COLUMNS)
            .where(table.c.id.in_(due_next), table.c.concurrency_key == key)
            .with_for_update(skip_locked=True)
        )
        changes = [
            Change(delivery, Transition.rescheduled(delivery, now + wait, SAME_RECORD))
            for delivery in map(Delivery.from_row, rows)
        ]
        apply_transitions(database, conn, changes, now)


def _attempt_row(item: AttemptResult, now: datetime) -> dict[str, Any]:
    return {
        "delivery_id": item.delivery.id,
        "fencing_token": item.claimed.fencing_token,
        "kind": "send" if item.is_rerun else item.delivery.kind,
        "finished_at": now,
        "outcome": item.outcome,
        "reason": item.transition.reason,
        "detail": item.transition.detail or None,
    }


def _probe(item: AttemptResult) -> Probe:
    delivery, transition = item.delivery, item.transition
    return Probe(
        delivery.id, item.claimed.fencing_token, delivery.connection, delivery.kind, item.outcome,
        transition.reason, transition.detail or None,
    )  # fmt: skip


def _change(item: AttemptResult, current_state: DeliveryState, now: datetime) -> Change:
    columns = {
        "attempts": item.delivery.attempts + item.consumed,
        "external_id": item.external_id,
        "message_status": item.message_status,
        "message_status_at": now if item.message_status else None,
        "possibly_sent_at": item.claimed.started_at if item.transition.may_have_taken_effect else None,
        "lease_expires_at": None,
        "worker_id": None,
    }
    return Change(
        item.delivery, item.transition, columns, current_state, event_precedence(item.claimed.event.type)
    )


def find_expired_leases(
    database: Database,
    worker_id: str | None = None,
    limit: int = 200,
    *,
    connections: Collection[str] | None = None,
) -> tuple[list[ClaimedDelivery], datetime]:
    """Return the attempts whose lease has expired, and the current time.

    Their worker died or is frozen, and their outcome is unknown. SQLite has one worker, so there the attempts of any
    other worker than `worker_id` are returned immediately. `connections` are those of this process; attempts over
    other connections are left for a while to a worker that can ask the provider about them.
    """
    table = schema.deliveries
    with database.read() as conn:
        now = database.now(conn)
        is_expired = table.c.lease_expires_at < now
        if database.is_sqlite and worker_id is not None:
            is_expired = is_expired | (table.c.worker_id != worker_id)
        if connections is not None:
            is_ours = table.c.connection.in_(connections)
            is_expired = is_expired & (is_ours | (table.c.lease_expires_at < now - OTHER_WORKERS_GRACE))
        rows = conn.execute(
            select(*DELIVERY_COLUMNS)
            .where(text("deliveries.state = 'running'"), is_expired)
            .order_by(table.c.lease_expires_at)
            .limit(limit)
        )
        deliveries = [Delivery.from_row(row) for row in rows]
        events = events_by_delivery(database, conn, deliveries)
        with_steps = deliveries_with_steps(conn, [item.id for item in deliveries])
        return [
            ClaimedDelivery.running_claim(item, events[item.id], has_steps=item.id in with_steps)
            for item in deliveries
        ], now
