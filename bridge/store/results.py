"""Writing down what became of attempts, in groups.

Only who holds the delivery's newest claim may write: an attempt that comes back after its delivery was claimed anew
is recorded for people to see, and changes nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from sqlalchemy import Row, select, text

from bridge.errors import DeliveryError
from bridge.policy import event_precedence
from bridge.store import schema
from bridge.store.bulk import bulk_update
from bridge.store.claim import ClaimedDelivery, claimed_delivery_from_row, events_by_delivery
from bridge.store.connections import record_outcomes, log_state_change
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.idempotency import completed_row, mark_completed, release_keys
from bridge.store.opt_outs import OptOutChange, save_opt_outs

KeyAction = Literal["complete", "release", "keep"]

UNDELIVERED_STATUSES: Final = ("undelivered", "failed")
"""Receipts that say that the person did not get the message."""
LEFT_TO_OTHERS: Final = timedelta(minutes=2)
"""How long an abandoned attempt waits for a process that has its connection."""
CONFIRMED_BY_STATUS: Final = "its receipt proves that it took effect"
_STATUS_ORDER: Final = {"queued": 0, "sent": 1, "delivered": 2, "undelivered": 2, "failed": 2}


def latest_status(known: str | None, reported: str | None) -> str | None:
    """The receipt that counts: partners repeat themselves and speak out of order, and the first final word stays."""
    if known is None or reported is None:
        return known or reported
    return reported if _STATUS_ORDER[reported] > _STATUS_ORDER[known] else known


class AttemptOutcome(StrEnum):
    """How an attempt ended, as stored in `attempts.outcome`."""

    SUCCEEDED = "succeeded"
    """The provider confirmed the action."""
    FAILED = "failed"
    """The action certainly did not happen; a retry may help."""
    REJECTED = "rejected"
    """The provider refused the action permanently."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The request left, and nothing proves whether the action happened."""
    INCONCLUSIVE = "inconclusive"
    """An operator has to decide: the provider cannot tell what happened, or what to act on."""
    NOT_STARTED = "not_started"
    """The provider was not contacted; the delivery went back to the queue."""
    LOOKUP_FOUND = "lookup_found"
    """The provider confirmed that an earlier attempt took effect."""
    LOOKUP_NOT_FOUND = "lookup_not_found"
    """The provider confirmed that no earlier attempt took effect."""
    LOOKUP_FAILED = "lookup_failed"
    """The provider could not be asked; the lookup is repeated."""


@dataclass(slots=True)
class AttemptResult:
    """One attempt's end, and what its delivery becomes. Nobody changes it once it is concluded."""

    claimed: ClaimedDelivery
    outcome: AttemptOutcome
    state: Literal["succeeded", "retrying", "needs_review", "failed"]
    key_action: KeyAction
    failure: DeliveryError | None = None
    detail: str = ""
    wait: timedelta = timedelta(0)
    """How long until the next attempt, for a delivery that has one."""
    consumed: int = 1
    """How many attempts of the retry schedule this one used up."""
    outcome_unknown_since: datetime | None = None
    """Set while it is not known whether it took effect: the next claim looks it up."""
    external_id: str | None = None
    message_status: str | None = None
    opt_out: bool = False
    """The partner says that the person wants no messages on this channel."""
    affects_connection: bool = True
    """Whether it ended by what the partner did: what never began, or ended with our own process, says nothing of it."""


def record_results(
    database: Database, group: Sequence[AttemptResult], refused_by: Callable[[str], str] = lambda _: ""
) -> list[ClaimedDelivery]:
    """Write the ends of these attempts in one transaction; returns those whose claim was no longer the newest.

    `refused_by` gives the fingerprint of a connection's settings in this process: when they are refused, a process
    with others ends the pause.
    """
    table = schema.deliveries
    with database.write() as conn:
        now = database.now(conn)
        by_connection: dict[str, list[DeliveryError | None]] = defaultdict(list)
        for item in group:
            if item.affects_connection:
                by_connection[item.claimed.connection].append(item.failure)
        # Before the deliveries, in the order of `claim`.
        turns = {
            name: record_outcomes(database, conn, name, by_connection[name], now, refused_by)
            for name in sorted(by_connection)
        }
        newest = {
            row.id: row
            for row in conn.execute(
                select(*table.c["id", "state", "fencing_token", "external_id", "message_status", "detail"])
                .where(
                    table.c.id.in_([item.claimed.id for item in group]),
                    table.c.state.in_(("running", "retrying", "needs_review")),
                )
                .order_by(table.c.id)
                .with_for_update()
            )
        }
        late: list[ClaimedDelivery] = []
        ours: list[AttemptResult] = []
        for item in group:
            row = newest.get(item.claimed.id)
            if (
                row is not None
                and row.fencing_token == item.claimed.fencing_token
                and _counts(item, row.state)
            ):
                ours.append(_with_receipt(item, row))
            else:
                late.append(item.claimed)
        bulk_update(
            conn,
            schema.attempts,
            ["delivery_id", "fencing_token"],
            [_attempt_end(item, now) for item in group],
        )
        if ours:
            bulk_update(conn, table, ["id"], [_delivery_end(item, now) for item in ours])
            save_opt_outs(database, conn, [_opt_out(item) for item in ours if item.opt_out], now)
            mark_completed(
                conn, [_completed_key_row(item, now) for item in ours if item.key_action == "complete"]
            )
            release_keys(
                conn,
                {
                    item.claimed.id: item.claimed.idempotency_key
                    for item in ours
                    if item.key_action == "release"
                },
            )
        follow_up = any(turn.get("alert_due") for turn in turns.values()) or any(
            _is_followed_up(item) for item in ours
        )
        names = {item.claimed.connection for item in group}
        database.publish(conn, [*names, *([EVENTS_TOPIC] if follow_up else [])])
    for name, turn in turns.items():
        log_state_change(name, turn)
    return late


def _counts(item: AttemptResult, state: str) -> bool:
    """Whether an end is news: once the lease ran out, and while nobody has claimed it anew, only success is."""
    return state == "running" or item.state == "succeeded"


def _with_receipt(item: AttemptResult, row: Row[Any]) -> AttemptResult:
    """What a callback wrote down while the attempt ran: a receipt proves the effect, and never goes back."""
    if row.message_status is None or item.external_id not in (None, row.external_id):
        return item
    receipt = latest_status(row.message_status, item.message_status)
    found = replace(item, external_id=row.external_id, message_status=receipt)
    if found.key_action == "keep":
        found = replace(
            found,
            state="succeeded",
            key_action="complete",
            failure=None,
            outcome_unknown_since=None,
            detail=CONFIRMED_BY_STATUS,
        )
    return replace(found, detail=row.detail or "") if receipt in UNDELIVERED_STATUSES else found


def _is_followed_up(item: AttemptResult) -> bool:
    """Whether the rule's `on_failure`, or an alert, has something to say about this end."""
    ended_badly = item.state in ("failed", "needs_review") or item.message_status in UNDELIVERED_STATUSES
    return ended_badly and item.claimed.trigger == "rule"


def _attempt_end(item: AttemptResult, now: datetime) -> dict[str, Any]:
    return {
        "delivery_id": item.claimed.id,
        "fencing_token": item.claimed.fencing_token,
        "finished_at": now,
        "outcome": item.outcome,
        "reason": item.failure.reason if item.failure else None,
        "detail": item.detail or None,
    }


def _delivery_end(item: AttemptResult, now: datetime) -> dict[str, Any]:
    final = item.state in ("succeeded", "failed")
    may_have_reached = item.state in ("succeeded", "needs_review") or item.outcome_unknown_since is not None
    return {
        "id": item.claimed.id,
        "state": item.state,
        "reason": item.failure.reason if item.failure else None,
        "detail": item.detail or None,
        "run_at": now + item.wait,
        "attempts": item.claimed.attempts + item.consumed,
        "outcome_unknown_since": item.outcome_unknown_since,
        "external_id": item.external_id,
        "message_status": item.message_status,
        "message_status_at": now if item.message_status else None,
        "possibly_sent_at": item.claimed.started_at if may_have_reached else None,
        "finished_at": now if final else None,
        "needs_follow_up": _is_followed_up(item),
        "lease_expires_at": None,
        "worker_id": None,
    }


def _completed_key_row(item: AttemptResult, now: datetime) -> dict[str, Any]:
    claimed = item.claimed
    return completed_row(
        claimed.idempotency_key,
        claimed.id,
        item.external_id,
        event_precedence(claimed.event.type),
        claimed.occurred_at,
        now,
    )


def _opt_out(item: AttemptResult) -> OptOutChange:
    claimed = item.claimed
    return OptOutChange(
        claimed.channel or "", claimed.recipient or "", True, f"refused by {claimed.connection}"
    )


def find_expired_leases(
    database: Database,
    own: str | None = None,
    limit: int = 200,
    *,
    of: Collection[str] | None = None,
) -> tuple[list[ClaimedDelivery], datetime]:
    """Attempts whose lease ran out, and the present: their process is gone or frozen, what became of them unknown.

    On SQLite, where one process serves, everything that another process (not `own`) left behind is abandoned at once.
    `of` are the connections that this process has: those of others are left for a while to a process that can ask
    the partner about them.
    """
    table = schema.deliveries
    with database.read() as conn:
        now = database.now(conn)
        left = table.c.lease_expires_at < now
        if database.is_sqlite and own is not None:
            left = left | (table.c.worker_id != own)
        if of is not None:
            left = left & (table.c.connection.in_(of) | (table.c.lease_expires_at < now - LEFT_TO_OTHERS))
        rows: Sequence[Row[Any]] = conn.execute(
            select(table)
            .where(text("deliveries.state = 'running'"), left)
            .order_by(table.c.lease_expires_at)
            .limit(limit)
        ).all()
        events: Mapping[str, Any] = events_by_delivery(conn, rows)
        return [claimed_delivery_from_row(row, events[row.id]) for row in rows], now
