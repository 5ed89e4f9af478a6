"""Results: records the results of attempts, many in one transaction.

Only the newest claim of a delivery may change it. If a worker returns a result after another worker has claimed the
delivery again, the attempt is recorded for operators to see, and nothing else changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Row, select, text

from bridge.errors import DeliveryError
from bridge.lifecycle import AttemptOutcome
from bridge.policy import event_precedence
from bridge.store import schema
from bridge.store.bulk import bulk_update
from bridge.store.claim import ClaimedDelivery, claimed_delivery_from_row, events_by_delivery
from bridge.store.connections import log_state_change, record_outcomes
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.idempotency import completed_row, mark_completed, release_keys
from bridge.store.opt_outs import OptOutChange, save_opt_outs

KeyAction = Literal["complete", "release", "keep"]

UNDELIVERED_STATUSES: Final = ("undelivered", "failed")
"""Message statuses that mean that the recipient did not get the message."""
OTHER_WORKERS_GRACE: Final = timedelta(minutes=2)
"""How long an expired lease is left to a worker that has the connection."""
CONFIRMED_BY_STATUS: Final = "confirmed by its message status"
"""The `detail` of a delivery whose outcome only the message status confirmed."""
_STATUS_ORDER: Final = {"queued": 0, "sent": 1, "delivered": 2, "undelivered": 2, "failed": 2}


def latest_status(current: str | None, reported: str | None) -> str | None:
    """Return the status that counts: providers repeat and reorder statuses, and the first final one stays."""
    if current is None or reported is None:
        return current or reported
    return reported if _STATUS_ORDER[reported] > _STATUS_ORDER[current] else current


@dataclass(slots=True)
class AttemptResult:
    """The result of one attempt, and the state that its delivery changes to. Read-only once classified."""

    delivery: ClaimedDelivery
    outcome: AttemptOutcome
    state: Literal["succeeded", "retrying", "needs_review", "failed"]
    key_action: KeyAction
    failure: DeliveryError | None = None
    detail: str = ""
    wait: timedelta = timedelta(0)
    """Delay until the next attempt, if there is one."""
    consumed: int = 1
    """Attempts of the retry schedule that this one used up."""
    outcome_unknown_since: datetime | None = None
    """Set while it is unknown whether an attempt took effect; the next attempt is then a lookup."""
    external_id: str | None = None
    message_status: str | None = None
    opt_out: bool = False
    """The provider reports that the recipient opted out of this channel."""
    affects_connection: bool = True
    """False if the result says nothing about the provider: the attempt never started, or the bridge interrupted it."""


def record_results(
    database: Database, results: Sequence[AttemptResult], fingerprint_of: Callable[[str], str] = lambda _: ""
) -> list[ClaimedDelivery]:
    """Record results in one transaction; return the deliveries whose claim is no longer the newest.

    `fingerprint_of` returns the fingerprint of a connection's settings in this process. If the provider refuses them,
    a process with other settings ends the pause.
    """
    table = schema.deliveries
    with database.write() as conn:
        now = database.now(conn)
        by_connection: dict[str, list[DeliveryError | None]] = defaultdict(list)
        for item in results:
            if item.affects_connection:
                by_connection[item.delivery.connection].append(item.failure)
        # Locked before the deliveries, as `claim` does.
        changed_columns = {
            name: record_outcomes(database, conn, name, by_connection[name], now, fingerprint_of)
            for name in sorted(by_connection)
        }
        rows = {
            row.id: row
            for row in conn.execute(
                select(*table.c["id", "state", "fencing_token", "external_id", "message_status", "detail"])
                .where(
                    table.c.id.in_([item.delivery.id for item in results]),
                    table.c.state.in_(("running", "retrying", "needs_review")),
                )
                .order_by(table.c.id)
                .with_for_update()
            )
        }
        outdated: list[ClaimedDelivery] = []
        current: list[AttemptResult] = []
        for item in results:
            row = rows.get(item.delivery.id)
            if (
                row is not None
                and row.fencing_token == item.delivery.fencing_token
                and _is_current(item, row.state)
            ):
                current.append(_with_reported_status(item, row))
            else:
                outdated.append(item.delivery)
        bulk_update(
            conn,
            schema.attempts,
            ["delivery_id", "fencing_token"],
            [_attempt_row(item, now) for item in results],
        )
        if current:
            bulk_update(conn, table, ["id"], [_delivery_row(item, now) for item in current])
            save_opt_outs(database, conn, [_opt_out(item) for item in current if item.opt_out], now)
            mark_completed(
                conn, [_completed_key_row(item, now) for item in current if item.key_action == "complete"]
            )
            release_keys(
                conn,
                {
                    item.delivery.id: item.delivery.idempotency_key
                    for item in current
                    if item.key_action == "release"
                },
            )
        follow_up = any(columns.get("alert_due") for columns in changed_columns.values()) or any(
            _needs_follow_up(item) for item in current
        )
        connections = {item.delivery.connection for item in results}
        database.publish(conn, [*connections, *([EVENTS_TOPIC] if follow_up else [])])
    for name, columns in changed_columns.items():
        log_state_change(name, columns)
    return outdated


def _is_current(item: AttemptResult, state: str) -> bool:
    """Whether a result of the newest claim still counts: once its lease has expired, only a success does."""
    return state == "running" or item.state == "succeeded"


def _with_reported_status(item: AttemptResult, row: Row[Any]) -> AttemptResult:
    """Merge the message status that a callback stored during the attempt; a status confirms the action."""
    if row.message_status is None or item.external_id not in (None, row.external_id):
        return item
    status = latest_status(row.message_status, item.message_status)
    merged = replace(item, external_id=row.external_id, message_status=status)
    if merged.key_action == "keep":
        merged = replace(
            merged,
            state="succeeded",
            key_action="complete",
            failure=None,
            outcome_unknown_since=None,
            detail=CONFIRMED_BY_STATUS,
        )
    return replace(merged, detail=row.detail or "") if status in UNDELIVERED_STATUSES else merged


def _needs_follow_up(item: AttemptResult) -> bool:
    """Whether the rule's `on_failure` or an alert applies to this result."""
    is_failure = item.state in ("failed", "needs_review") or item.message_status in UNDELIVERED_STATUSES
    return is_failure and item.delivery.trigger == "rule"


def _attempt_row(item: AttemptResult, now: datetime) -> dict[str, Any]:
    return {
        "delivery_id": item.delivery.id,
        "fencing_token": item.delivery.fencing_token,
        "finished_at": now,
        "outcome": item.outcome,
        "reason": item.failure.reason if item.failure else None,
        "detail": item.detail or None,
    }


def _delivery_row(item: AttemptResult, now: datetime) -> dict[str, Any]:
    is_final = item.state in ("succeeded", "failed")
    may_have_taken_effect = (
        item.state in ("succeeded", "needs_review") or item.outcome_unknown_since is not None
    )
    return {
        "id": item.delivery.id,
        "state": item.state,
        "reason": item.failure.reason if item.failure else None,
        "detail": item.detail or None,
        "run_at": now + item.wait,
        "attempts": item.delivery.attempts + item.consumed,
        "outcome_unknown_since": item.outcome_unknown_since,
        "external_id": item.external_id,
        "message_status": item.message_status,
        "message_status_at": now if item.message_status else None,
        "possibly_sent_at": item.delivery.started_at if may_have_taken_effect else None,
        "finished_at": now if is_final else None,
        "needs_follow_up": _needs_follow_up(item),
        "lease_expires_at": None,
        "worker_id": None,
    }


def _completed_key_row(item: AttemptResult, now: datetime) -> dict[str, Any]:
    delivery = item.delivery
    return completed_row(
        delivery.idempotency_key,
        delivery.id,
        item.external_id,
        event_precedence(delivery.event.type),
        delivery.occurred_at,
        now,
    )


def _opt_out(item: AttemptResult) -> OptOutChange:
    delivery = item.delivery
    return OptOutChange(
        delivery.channel or "", delivery.recipient or "", True, f"refused by {delivery.connection}"
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
        rows: Sequence[Row[Any]] = conn.execute(
            select(table)
            .where(text("deliveries.state = 'running'"), is_expired)
            .order_by(table.c.lease_expires_at)
            .limit(limit)
        ).all()
        events: Mapping[str, Any] = events_by_delivery(conn, rows)
        return [claimed_delivery_from_row(row, events[row.id]) for row in rows], now
