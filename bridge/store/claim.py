"""Claim: the transaction before every attempt.

`claim` selects the due deliveries of one connection and decides about each of them on the data of that moment:
whether its concurrency key is free, newer events, opt-outs, caps, and the state of its idempotency key. For the
deliveries that may be sent, the same transaction reserves the idempotency key and writes the attempt. A message that
was claimed before an opt-out is committed is the last one.

Decisions that must not be made twice concurrently are protected by locks: on the recipient, the concurrency key, the
idempotency key and the `once` count. Workers that need the same lock wait for each other, in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    select,
)

from bridge.connector.callbacks import Channel
from bridge.lifecycle import SuppressReason, Transition
from bridge.policy import (
    RECHECK_INTERVAL,
    Allow,
    Cancel,
    Decision,
    Defer,
    Hold,
    MessageCounts,
    Suppress,
    event_precedence,
)
from bridge.rules.model import Cap
from bridge.store import schema
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.connections import (
    lock_connection_and_time,
    log_state_change,
    total_cap_pause,
)
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import Delivery
from bridge.store.details import request_details, waits_for_details
from bridge.store.due_deliveries import IS_CLAIMABLE, DueSelection, select_due
from bridge.store.earlier_results import UseResults, render_results, waits_for_results
from bridge.store.idempotency import reserve_keys
from bridge.store.opt_out_queries import add_queries, waits_for_crm
from bridge.store.pause_history import record_pause_change
from bridge.store.policy_inputs import PolicyConfig, decide_all, load_policy_data
from bridge.store.request_budget import RequestBudget, acquire_budget
from bridge.store.routing import events_by_delivery
from bridge.store.transitions import Change, apply_transitions, start_attempts

LEASE = timedelta(seconds=30)
"""How long a claimed delivery belongs to its worker; the deadline of every attempt is shorter."""
_MIN_POLL_DELAY = timedelta(milliseconds=200)
"""How soon to poll again if a due delivery waits for its concurrency key, which another worker is using."""


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
    requests_per_call: int = 1
    """Requests that a call is expected to take; what it really takes is settled with its result."""


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
        account, now = lock_connection_and_time(database, conn, capacity.connection)
        budget = acquire_budget(
            conn, account, now, capacity.slots, capacity.per_second, capacity.requests_per_call
        )
        selection = DueSelection(
            capacity.connection, budget.due, budget.calls, capacity.batch_size, capacity.max_batch_size
        )
        selected = select_due(database, conn, selection, now) if budget.calls else []
        if not selected:
            return ClaimedBatch((), _next_poll_delay(conn, capacity.connection, budget, now))
        events = events_by_delivery(database, conn, selected)
        data = load_policy_data(
            database, conn, selected, events, policy_config.messaging, now, policy_config.hash_address
        )
        counts, caps = MessageCounts.from_json(account.message_counts), policy_config.messaging.total_caps
        data.message_totals = counts.totals(caps, now)
        decisions = decide_all(selected, events, data, policy_config, now)
        if budget.due == "alerts":
            # They are not selected again at once: the connection polls for other alerts meanwhile.
            decisions = {
                delivery_id: Defer(now + RECHECK_INTERVAL, decision.detail)
                if isinstance(decision, Hold)
                else decision
                for delivery_id, decision in decisions.items()
            }
        allowed = [item for item in selected if isinstance(decisions.get(item.id), Allow | None)]
        if len(allowed) < len(selected):
            _apply_other_decisions(database, conn, selected, decisions, now)
            with_results = [item for item in selected if isinstance(decisions.get(item.id), UseResults)]
            render_results(
                database, conn, with_results, data.earlier_results, events, policy_config.render_results, now
            )
        claimed = [
            ClaimedDelivery.next_claim(
                item,
                events[item.id],
                now,
                existing_id=data.existing_id(item),
                quiet_hours_start=getattr(decisions.get(item.id), "quiet_hours_start", None),
                probe=budget.is_probe,
            )
            for item in allowed
        ]
        _start(conn, claimed, worker_id, now)
        calls = _split_into_batches(claimed, capacity)
        columns = _count_messages(allowed, counts, caps, now)
        held = next((decision for decision in decisions.values() if isinstance(decision, Hold)), None)
        if held is not None:
            pause = total_cap_pause(held.detail)
            record_pause_change(conn, account, pause, now)
            columns |= pause
            database.publish(conn, [EVENTS_TOPIC])
        budget.spend(conn, len(calls), now, columns)
    log_state_change(capacity.connection, columns)
    return ClaimedBatch(calls, timedelta(0))


def _next_poll_delay(conn: Connection, name: str, budget: RequestBudget, now: datetime) -> timedelta | None:
    """Return how soon a delivery may be due on this connection, as far as known now."""
    if budget.available_at is not None:
        return budget.available_at - now
    table = schema.deliveries
    next_at: datetime | None = conn.execute(
        select(table.c.run_at)
        .where(table.c.connection == name, IS_CLAIMABLE[budget.due])
        .order_by(table.c.run_at)
        .limit(1)
    ).scalar_one_or_none()
    return None if next_at is None else max(next_at - now, _MIN_POLL_DELAY)


def _apply_other_decisions(
    database: Database,
    conn: Connection,
    deliveries: Sequence[Delivery],
    decisions: Mapping[str, Decision | UseResults],
    now: datetime,
) -> None:
    """Defer, suppress or cancel the deliveries that may not be sent now."""
    changes = []
    crms: dict[str, Sequence[str]] = {}
    without_details: list[Delivery] = []
    for delivery in deliveries:
        match decisions.get(delivery.id):
            case Defer(until, detail, ask, needs_details):
                if ask:
                    crms[delivery.id] = ask
                elif needs_details:
                    without_details.append(delivery)
                if (ask and waits_for_crm(delivery)) or (needs_details and waits_for_details(delivery)):
                    detail = delivery.detail or detail  # the last error, while it waits
                transition = Transition.rescheduled(delivery, until, detail)
            case Cancel(_, detail):
                transition = Transition.cancelled(delivery, detail)
            case Suppress(SuppressReason.EXPIRED, detail) if delivery.attempts:
                # Its attempts failed until it expired: it failed, for the reason of the last attempt.
                transition = Transition.failed(delivery.reason, f"{delivery.detail or ''} ({detail})")
            case Suppress(SuppressReason.EXPIRED, detail) if _waits_for_provider(delivery):
                transition = Transition.suppressed(SuppressReason.EXPIRED, f"{detail}; {delivery.detail}")
            case Suppress(reason, detail):
                transition = Transition.suppressed(reason, detail)
            case _:
                continue
        changes.append(Change(delivery, transition))
    apply_transitions(database, conn, changes, now)
    if crms:
        add_queries(database, conn, deliveries[0].connection, crms, now)
    if without_details:
        request_details(database, conn, without_details, now)


def _waits_for_provider(delivery: Delivery) -> bool:
    """Return whether a pending delivery was deferred until a provider answers, or until earlier actions have ended."""
    return waits_for_crm(delivery) or waits_for_details(delivery) or waits_for_results(delivery)


def _start(conn: Connection, claimed: Sequence[ClaimedDelivery], worker_id: str, now: datetime) -> None:
    """Take the lease, write the attempt and reserve the idempotency key."""
    if not claimed:
        return
    start_attempts(conn, [item.delivery for item in claimed], worker_id, now, LEASE)
    precedences = [event_precedence(item.event.type) for item in claimed]
    reserve_keys(conn, [item.delivery for item in claimed], precedences, now)


def _count_messages(
    allowed: Sequence[Delivery], counts: MessageCounts, caps: Mapping[Channel, Cap], now: datetime
) -> dict[str, Any]:
    """Count the messages that are about to be sent; return the changed columns of the connection."""
    channels = [item.capped_channel for item in allowed if item.kind == "send"]
    capped = [channel for channel in channels if channel is not None and channel in caps]
    for channel in capped:
        counts.add(channel, caps[channel], now)
    return {"message_counts": counts.to_json()} if capped else {}


def _split_into_batches(
    claimed: Sequence[ClaimedDelivery], capacity: Capacity
) -> list[list[ClaimedDelivery]]:
    """Split deliveries into calls: batches of one action, up to its batch size, and each lookup alone."""
    calls: list[list[ClaimedDelivery]] = []
    sends: dict[str, list[ClaimedDelivery]] = {}
    for item in claimed:
        if item.delivery.kind == "lookup":
            calls.append([item])
        else:
            sends.setdefault(item.delivery.action, []).append(item)
    for action, items in sends.items():
        size = capacity.batch_size(action)
        calls += [items[start : start + size] for start in range(0, len(items), size)]
    return calls
