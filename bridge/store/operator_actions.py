"""Operator actions on deliveries: retry, cancel, dismiss, resolve.

Each action is one transaction that includes its audit entries, under the same locks as the worker's transactions. An
action that could contact a recipient twice for one cause is rejected, with a message that says what to do instead.

A page passes what it showed of a delivery (`seen_version`). If the delivery has changed since, nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, select, update

from bridge.lifecycle import ALLOWED, DeliveryState, Transition, is_unresolved
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.connection_status import active_pause
from bridge.store.database import Database
from bridge.store.deliveries import DELIVERY_COLUMNS, Delivery, lock_deliveries
from bridge.store.earlier_results import uses_results
from bridge.store.schema import ERASED
from bridge.store.transitions import Change, apply_transitions

Action = Literal["retry", "cancel", "dismiss", "undismiss"]
Resolution = Literal["delivered", "retry", "discard"]
"""How an operator resolves a review: the action took effect; it did not, so retry it; do not retry it."""

STATES: Final[Mapping[Action, tuple[DeliveryState, ...]]] = {
    "retry": (DeliveryState.RETRYING, DeliveryState.FAILED),
    "cancel": tuple(state for state in DeliveryState if DeliveryState.CANCELLED in ALLOWED[state]),
    "dismiss": (DeliveryState.FAILED,),
    "undismiss": (DeliveryState.FAILED,),
}
"""The states in which each action is possible."""

UNKNOWN_DELIVERY = "there is no such delivery"
"""The message of an action on an unknown ID."""

Seen = Mapping[str, str]
"""What the operator saw: delivery ID -> `seen_version`."""


@dataclass(frozen=True)
class ActionResult:
    """The result of an action on one ID."""

    id: str
    done: bool
    text: str
    """A description of what was done, or of why nothing was done and what to do instead."""


def seen_version(delivery: Delivery | Mapping[str, Any]) -> str:
    """Return what changes whenever a delivery is attempted or changes its state."""
    if isinstance(delivery, Delivery):
        return f"{delivery.state}.{delivery.fencing_token}"
    return f"{delivery['state']}.{delivery['fencing_token']}"


def change_deliveries(
    database: Database,
    actor: str,
    action: Action,
    delivery_ids: Sequence[str],
    *,
    seen: Seen | None = None,
    states: Collection[str] | None = None,
    part_of: str | None = None,
    before_commit: Callable[[Connection, Sequence[ActionResult]], None] = lambda *_: None,
) -> list[ActionResult]:
    """Carry out an action on deliveries in one transaction; return the result for each.

    `states` are those that the operator has agreed to: a delivery that is in another one by now is left alone.
    `part_of` is the audit entry of an action on many deliveries; `before_commit` may write more in the transaction.
    """
    with database.write() as conn:
        now = database.now(conn)
        deliveries = _locked(conn, delivery_ids)
        results, possible = {}, []
        for delivery_id in delivery_ids:
            delivery = deliveries.get(delivery_id)
            if delivery is None:
                results[delivery_id] = ActionResult(delivery_id, False, _unknown_id(delivery_id))
                continue
            problem = _changed(delivery, seen, states) or obstacle(action, delivery, now)
            if problem is None:
                possible.append(delivery)
            else:
                results[delivery_id] = ActionResult(delivery_id, False, problem)
        texts = _APPLY[action](database, conn, possible, actor, now)
        results |= {delivery_id: ActionResult(delivery_id, True, text) for delivery_id, text in texts.items()}
        ordered = [results[delivery_id] for delivery_id in dict.fromkeys(delivery_ids)]
        _finish(database, conn, actor, action, ordered, deliveries, now, part_of=part_of)
        before_commit(conn, ordered)
        return ordered


def retry(
    database: Database, actor: str, delivery_ids: Sequence[str], seen: Seen | None = None
) -> list[ActionResult]:
    """Attempt failed deliveries again, and deliveries that wait for their next attempt immediately."""
    return change_deliveries(database, actor, "retry", delivery_ids, seen=seen)


def cancel(
    database: Database, actor: str, delivery_ids: Sequence[str], seen: Seen | None = None
) -> list[ActionResult]:
    """Cancel pending deliveries. If one may have been sent, its idempotency key is kept, so it is not sent again."""
    return change_deliveries(database, actor, "cancel", delivery_ids, seen=seen)


def dismiss(
    database: Database,
    actor: str,
    delivery_ids: Sequence[str],
    *,
    undo: bool = False,
    seen: Seen | None = None,
) -> list[ActionResult]:
    """Dismiss failed deliveries: they stay failed, and no longer need attention. `undo` takes that back."""
    action: Action = "undismiss" if undo else "dismiss"
    return change_deliveries(database, actor, action, delivery_ids, seen=seen)


def obstacle(action: Action, delivery: Delivery, now: datetime) -> str | None:
    """Return why an action on a delivery is not possible and what to do instead; None if it is possible."""
    if action == "retry":
        return _retry_obstacle(delivery, now)
    if action == "cancel" and delivery.state not in STATES["cancel"]:
        return f"it is {delivery.state}; only deliveries that wait or need review can be cancelled"
    if action in ("dismiss", "undismiss") and delivery.state is not DeliveryState.FAILED:
        return f"it is {delivery.state}; only failed deliveries can be dismissed"
    return None


def preview_action(
    database: Database, action: Action, delivery_ids: Sequence[str]
) -> list[tuple[Delivery | None, str | None]]:
    """Return for each ID its delivery, None if there is none, and why the action is not possible, if so."""
    table = schema.deliveries
    with database.read() as conn:
        now = database.now(conn)
        rows = conn.execute(select(*DELIVERY_COLUMNS).where(table.c.id.in_(delivery_ids)))
        deliveries = {row.id: Delivery.from_row(row) for row in rows}
    found = (deliveries.get(delivery_id) for delivery_id in delivery_ids)
    return [(item, obstacle(action, item, now) if item else UNKNOWN_DELIVERY) for item in found]


def _retry(
    database: Database, conn: Connection, deliveries: Sequence[Delivery], actor: str, now: datetime
) -> dict[str, str]:
    del actor
    failed = [item for item in deliveries if item.state is DeliveryState.FAILED]
    waiting = [item for item in deliveries if item.state is not DeliveryState.FAILED]
    # The retry schedule starts again: the last one is used up, or the provider rejected the action.
    apply_transitions(database, conn, [_requeue(item, item.detail) for item in failed], now)
    apply_transitions(
        database,
        conn,
        [Change(item, Transition.rescheduled(item, now, item.detail)) for item in waiting],
        now,
    )
    kinds = {(item.connection, item.channel is not None) for item in deliveries}
    starts = {kind: _when(conn, *kind, now) for kind in kinds}
    return {
        item.id: f"retry starts {starts[item.connection, item.channel is not None]}" for item in deliveries
    }


def _requeue(delivery: Delivery, detail: str | None) -> Change:
    """Start the retry schedule again. The message that was not delivered is remembered as such."""
    of_message = ("external_id", "message_status", "message_status_at")
    cleared = ("first_attempt_at", "possibly_sent_at", "dismissed_at", *of_message)
    options = delivery.options
    if delivery.external_id is not None:
        options = replace(options, undelivered_ids=(*options.undelivered_ids, delivery.external_id))
    columns = {"attempts": 0, "options": options.to_json(), **dict.fromkeys(cleared)}
    return Change(delivery, Transition.requeued(delivery, detail), columns)


def _when(conn: Connection, name: str, is_message: bool, now: datetime) -> str:
    """Return when a due delivery is attempted: now, unless its connection or all messages are paused."""
    pause = active_pause(conn, name, now, is_message=is_message)
    if pause is None:
        return "now"
    return f"when {name} is resumed ({pause}); {pause.hint}"


def _retry_obstacle(delivery: Delivery, now: datetime) -> str | None:
    """Return why a delivery cannot be retried; None if it can."""
    if delivery.state == "needs_review":
        return f"its outcome is unknown: ask the provider, then `bridge resolve {delivery.id} delivered|retry|discard`"
    if delivery.state not in ("failed", "retrying"):
        return f"it is {delivery.state}; only failed and retrying deliveries can be retried{_force_hint(delivery)}"
    if delivery.outcome_unknown_since is not None:
        # An earlier lookup could miss an action that took effect, and it would be done twice.
        return (
            f"its outcome is unknown: a lookup runs at {delivery.run_at:%H:%M:%S} UTC; "
            "if the action did not take effect, it is retried automatically"
        )
    if delivery.params == ERASED:
        return "its parameters are no longer kept (BRIDGE_RETENTION)"
    if delivery.reason == "render_error" and not uses_results(delivery):
        replay = f"`bridge replay {delivery.event_id} --rule {delivery.rule}`"
        return f"a template could not be rendered: fix the rule, then {replay}"
    return _expired(delivery, now)


def _force_hint(delivery: Delivery) -> str:
    """Return how to send a delivery that succeeded once more."""
    if delivery.state != "succeeded" or delivery.trigger != "rule" or delivery.event_id is None:
        return ""
    return f"; `bridge replay {delivery.event_id} --rule {delivery.rule} --force` sends it once more"


def _expired(delivery: Delivery, now: datetime) -> str | None:
    if delivery.expires_at is not None and delivery.expires_at <= now:
        return f"it expired at {delivery.expires_at:%Y-%m-%d %H:%M} UTC (the rule's `expires`)"
    return None


def _cancel(
    database: Database, conn: Connection, deliveries: Sequence[Delivery], actor: str, now: datetime
) -> dict[str, str]:
    return _discard(database, conn, deliveries, f"cancelled by {actor}", now)


def _discard(
    database: Database, conn: Connection, deliveries: Sequence[Delivery], detail: str, now: datetime
) -> dict[str, str]:
    """Cancel deliveries, and complete or release their idempotency keys."""
    changes = [Change(item, Transition.cancelled(item, detail)) for item in deliveries]
    apply_transitions(database, conn, changes, now)
    return {
        item.id: "cancelled; it may have been sent before" if is_unresolved(item) else "cancelled"
        for item in deliveries
    }


def _set_dismissed(
    conn: Connection, deliveries: Iterable[Delivery], dismissed_at: datetime | None, text: str
) -> dict[str, str]:
    ids, table = [item.id for item in deliveries], schema.deliveries
    conn.execute(update(table).where(table.c.id.in_(ids)).values(dismissed_at=dismissed_at))
    return dict.fromkeys(ids, text)


def _dismiss(
    database: Database, conn: Connection, deliveries: Sequence[Delivery], actor: str, now: datetime
) -> dict[str, str]:
    del database, actor
    return _set_dismissed(conn, deliveries, now, "dismissed")


def _undismiss(
    database: Database, conn: Connection, deliveries: Sequence[Delivery], actor: str, now: datetime
) -> dict[str, str]:
    del database, actor, now
    return _set_dismissed(conn, deliveries, None, "no longer dismissed")


_APPLY: Final[
    Mapping[Action, Callable[[Database, Connection, Sequence[Delivery], str, datetime], dict[str, str]]]
] = {"retry": _retry, "cancel": _cancel, "dismiss": _dismiss, "undismiss": _undismiss}
"""Carries out each action on deliveries that have no obstacle; returns what was done by ID."""


def resolve(
    database: Database,
    actor: str,
    delivery_id: str,
    resolution: Resolution,
    external_id: str | None = None,
    seen: Seen | None = None,
) -> ActionResult:
    """Resolve a review by what an operator found at the provider."""
    return resolve_all(database, actor, [delivery_id], resolution, external_id, seen)[0]


def resolve_all(
    database: Database,
    actor: str,
    delivery_ids: Sequence[str],
    resolution: Resolution,
    external_id: str | None = None,
    seen: Seen | None = None,
) -> list[ActionResult]:
    """Resolve reviews that have the same answer, in one transaction."""
    with database.write() as conn:
        now = database.now(conn)
        deliveries = _locked(conn, delivery_ids)
        results = []
        for delivery_id in delivery_ids:
            delivery = deliveries.get(delivery_id)
            if delivery is None:
                results.append(ActionResult(delivery_id, False, _unknown_id(delivery_id)))
            elif problem := _changed(delivery, seen) or _resolve_obstacle(delivery, resolution, now):
                results.append(ActionResult(delivery_id, False, problem))
            else:
                text = _resolve(database, conn, delivery, resolution, external_id, actor, now)
                results.append(ActionResult(delivery_id, True, text))
        _finish(database, conn, actor, "resolve", results, deliveries, now, {"resolution": resolution})
        return results


def _resolve_obstacle(delivery: Delivery, resolution: Resolution, now: datetime) -> str | None:
    if delivery.state is not DeliveryState.NEEDS_REVIEW:
        return f"it is {delivery.state}; only a delivery that needs review can be resolved"
    expired = _expired(delivery, now) if resolution == "retry" else None
    return f"{expired}; resolve it as `delivered` or `discard`" if expired else None


def _resolve(
    database: Database,
    conn: Connection,
    delivery: Delivery,
    resolution: Resolution,
    external_id: str | None,
    actor: str,
    now: datetime,
) -> str:
    if resolution == "discard":
        return _discard(database, conn, [delivery], f"discarded by {actor}", now)[delivery.id]
    if resolution == "delivered":
        transition = Transition.confirmed(delivery, f"resolved as delivered by {actor}")
        apply_transitions(database, conn, [Change(delivery, transition, {"external_id": external_id})], now)
        return "marked as delivered"
    apply_transitions(database, conn, [_requeue(delivery, f"resolved as not delivered by {actor}")], now)
    return f"retry starts {_when(conn, delivery.connection, delivery.channel is not None, now)}"


def _changed(delivery: Delivery, seen: Seen | None, states: Collection[str] | None = None) -> str | None:
    """Return what has become of a delivery since the operator saw it; None if nothing."""
    is_as_seen = seen is None or seen.get(delivery.id) == seen_version(delivery)
    if is_as_seen and (states is None or delivery.state in states):
        return None
    detail = f" ({delivery.detail})" if delivery.detail else ""
    return f"{CHANGED}: it is {delivery.state} now{detail}"


CHANGED: Final = "it has changed since the page was opened"
"""The start of the message if the delivery is not as the operator saw it."""


def _locked(conn: Connection, delivery_ids: Collection[str]) -> dict[str, Delivery]:
    return lock_deliveries(conn, schema.deliveries.c.id.in_(delivery_ids))


def _finish(
    database: Database,
    conn: Connection,
    actor: str,
    action: str,
    results: Sequence[ActionResult],
    deliveries: Mapping[str, Delivery],
    now: datetime,
    detail: Mapping[str, Any] | None = None,
    part_of: str | None = None,
) -> None:
    """Record the audit entries, and notify the connections that are affected."""
    done = [result.id for result in results if result.done]
    record_audit(conn, now, actor, action, done, detail, part_of)
    if done:
        database.publish(conn, {deliveries[delivery_id].connection for delivery_id in done})


def _unknown_id(delivery_id: str) -> str:
    if delivery_id.startswith("evt_"):
        return "this is an event ID; expected a delivery ID (dlv_...). `bridge replay` takes events"
    return UNKNOWN_DELIVERY
