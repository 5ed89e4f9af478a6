"""Operator actions on stored work: retry, replay, cancel, resolve, accept.

Each action is one transaction that includes its audit entry, under the same locks as the worker's transactions. An
action that could contact a recipient twice for one cause is rejected, with a message that says what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, or_, select, update

from bridge.errors import BridgeError
from bridge.events import Event
from bridge.lifecycle import ALLOWED, DeliveryState, Transition, is_unresolved
from bridge.rules.counting import History
from bridge.rules.model import Rules
from bridge.signing import SignedRequestRejected, read_event
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.connections import active_pause
from bridge.store.contact_history import history_in
from bridge.store.database import Database
from bridge.store.deliveries import DELIVERY_COLUMNS, Delivery, lock_deliveries
from bridge.store.event_rows import event_from_row
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.queries import NotFound
from bridge.store.retention import ERASED
from bridge.store.routing import Route, delivery_row, store_rules_version
from bridge.store.transitions import Change, apply_transitions

Resolution = Literal["delivered", "retry", "discard"]
"""How an operator resolves a review: the action took effect; it did not, so retry it; do not retry it."""

REPLAY_BATCH = 200
"""Events per transaction of a replay."""

UNKNOWN_DELIVERY = "there is no such delivery"
"""The message of an action on an unknown ID."""


@dataclass(frozen=True)
class ActionResult:
    """The result of an action on one ID."""

    id: str
    done: bool
    text: str
    """A description of what was done, or of why nothing was done and what to do instead."""


def retry(database: Database, actor: str, delivery_ids: Sequence[str]) -> list[ActionResult]:
    """Attempt failed deliveries again, and deliveries that wait for their next attempt immediately."""
    with database.write() as conn:
        now = database.now(conn)
        deliveries = _locked(conn, delivery_ids)
        results = [
            _retry(database, conn, deliveries.get(delivery_id), delivery_id, now)
            for delivery_id in delivery_ids
        ]
        _finish(database, conn, actor, "retry", results, deliveries, now)
        return results


def _retry(
    database: Database, conn: Connection, delivery: Delivery | None, delivery_id: str, now: datetime
) -> ActionResult:
    if delivery is None:
        return ActionResult(delivery_id, False, _unknown_id(delivery_id))
    obstacle = _retry_obstacle(delivery, now)
    if obstacle is not None:
        return ActionResult(delivery_id, False, obstacle)
    if delivery.state is DeliveryState.FAILED:
        # The retry schedule starts again: the last one is used up, or the provider rejected the action.
        change = _requeue(delivery, delivery.detail)
    else:
        change = Change(delivery, Transition.rescheduled(delivery, now, delivery.detail))
    apply_transitions(database, conn, [change], now)
    return ActionResult(delivery_id, True, f"retry starts {_when(conn, delivery.connection, now)}")


def _requeue(delivery: Delivery, detail: str | None) -> Change:
    """Start the retry schedule again. The message that was not delivered is remembered as such."""
    of_message = ("external_id", "message_status", "message_status_at")
    cleared = ("first_attempt_at", "possibly_sent_at", *of_message)
    columns: dict[str, Any] = {"attempts": 0} | dict.fromkeys(cleared)
    if delivery.external_id is not None:
        undelivered_ids = (*delivery.options.undelivered_ids, delivery.external_id)
        columns["options"] = replace(delivery.options, undelivered_ids=undelivered_ids).to_json()
    return Change(delivery, Transition.requeued(delivery, detail), columns)


def preview_retry(
    database: Database, delivery_ids: Sequence[str]
) -> list[tuple[Delivery | None, str | None]]:
    """Return for each ID its delivery, None if there is none, and why `retry` would not attempt it, if so."""
    table = schema.deliveries
    with database.read() as conn:
        now = database.now(conn)
        rows = conn.execute(select(*DELIVERY_COLUMNS).where(table.c.id.in_(delivery_ids)))
        deliveries = {row.id: Delivery.from_row(row) for row in rows}
    found = (deliveries.get(delivery_id) for delivery_id in delivery_ids)
    return [(item, _retry_obstacle(item, now) if item else UNKNOWN_DELIVERY) for item in found]


def _when(conn: Connection, name: str, now: datetime) -> str:
    """Return when a due delivery is attempted: now, unless its connection is paused."""
    pause = active_pause(conn, name, now)
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
    if delivery.reason == "render_error":
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


def cancel(database: Database, actor: str, delivery_ids: Sequence[str]) -> list[ActionResult]:
    """Cancel pending deliveries. If one may have been sent, its idempotency key is kept, so it is not sent again."""
    with database.write() as conn:
        now = database.now(conn)
        deliveries = _locked(conn, delivery_ids)
        results = []
        for delivery_id in delivery_ids:
            delivery = deliveries.get(delivery_id)
            if delivery is None:
                results.append(ActionResult(delivery_id, False, _unknown_id(delivery_id)))
            elif DeliveryState.CANCELLED not in ALLOWED[delivery.state]:
                message = f"it is {delivery.state}; only pending deliveries can be cancelled"
                results.append(ActionResult(delivery_id, False, message))
            else:
                results.append(_discard(database, conn, delivery, f"cancelled by {actor}", now))
        _finish(database, conn, actor, "cancel", results, deliveries, now)
        return results


def _discard(
    database: Database, conn: Connection, delivery: Delivery, detail: str, now: datetime
) -> ActionResult:
    """Cancel one delivery, and complete or release its idempotency key."""
    apply_transitions(database, conn, [Change(delivery, Transition.cancelled(delivery, detail))], now)
    note = "; it may have been sent before" if is_unresolved(delivery) else ""
    return ActionResult(delivery.id, True, f"cancelled{note}")


def resolve(
    database: Database, actor: str, delivery_id: str, resolution: Resolution, external_id: str | None = None
) -> ActionResult:
    """Resolve a review by what an operator found at the provider."""
    with database.write() as conn:
        now = database.now(conn)
        deliveries = _locked(conn, [delivery_id])
        result = (
            _resolve(database, conn, deliveries[delivery_id], resolution, external_id, actor, now)
            if deliveries
            else ActionResult(delivery_id, False, _unknown_id(delivery_id))
        )
        _finish(database, conn, actor, "resolve", [result], deliveries, now, {"resolution": resolution})
        return result


def _resolve(
    database: Database,
    conn: Connection,
    delivery: Delivery,
    resolution: Resolution,
    external_id: str | None,
    actor: str,
    now: datetime,
) -> ActionResult:
    if delivery.state is not DeliveryState.NEEDS_REVIEW:
        message = f"it is {delivery.state}; only a delivery that needs review can be resolved"
        return ActionResult(delivery.id, False, message)
    if resolution == "discard":
        return _discard(database, conn, delivery, f"discarded by {actor}", now)
    if resolution == "delivered":
        transition = Transition.confirmed(delivery, f"resolved as delivered by {actor}")
        change = Change(delivery, transition, {"external_id": external_id})
        apply_transitions(database, conn, [change], now)
        return ActionResult(delivery.id, True, "marked as delivered")
    expired = _expired(delivery, now)
    if expired is not None:
        return ActionResult(delivery.id, False, f"{expired}; resolve it as `delivered` or `discard`")
    change = _requeue(delivery, f"resolved as not delivered by {actor}")
    apply_transitions(database, conn, [change], now)
    return ActionResult(delivery.id, True, f"retry starts {_when(conn, delivery.connection, now)}")


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
) -> None:
    """Record the audit entries, and notify the connections that are affected."""
    done = [result.id for result in results if result.done]
    record_audit(conn, now, actor, action, done, detail)
    if done:
        database.publish(conn, {deliveries[delivery_id].connection for delivery_id in done})


def _unknown_id(delivery_id: str) -> str:
    if delivery_id.startswith("evt_"):
        return "this is an event ID; expected a delivery ID (dlv_...). `bridge replay` takes events"
    return UNKNOWN_DELIVERY


@dataclass(frozen=True)
class ReplayResult:
    """The result of a replay of one event."""

    id: str
    deliveries: Sequence[str]
    """The IDs of the new deliveries."""
    skipped: str = ""
    """Why the event was skipped; empty if it was replayed."""


def events_between(database: Database, since: datetime | None, until: datetime | None) -> list[str]:
    """Return the IDs of routed events received in a period whose bodies are kept, oldest first."""
    table = schema.events
    query = select(table.c.id).where(table.c.body.is_not(None), table.c.routed_at.is_not(None))
    if since is not None:
        query = query.where(table.c.received_at >= since)
    if until is not None:
        query = query.where(table.c.received_at < until)
    with database.read() as conn:
        return list(conn.execute(query.order_by(table.c.received_at, table.c.id)).scalars())


def replay(
    database: Database,
    actor: str,
    event_ids: Sequence[str],
    rules: Rules,
    route: Route,
    *,
    rule: str | None = None,
    force: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[ReplayResult]:
    """Route stored events once more with `rules`, or with one `rule` of them.

    A delivery whose idempotency key is completed is suppressed as `duplicate`, or updates its CRM record. With
    `force`, its action is repeated.
    """
    replayed: list[ReplayResult] = []
    for start in range(0, len(event_ids), REPLAY_BATCH):
        batch = event_ids[start : start + REPLAY_BATCH]
        replayed += _replay_batch(database, actor, batch, rules, route, rule, force)
        on_progress(len(batch))
    return replayed


def _replay_batch(
    database: Database,
    actor: str,
    event_ids: Sequence[str],
    rules: Rules,
    route: Route,
    rule: str | None,
    force: bool,
) -> list[ReplayResult]:
    table = schema.events
    with database.write() as conn:
        now = database.now(conn)
        store_rules_version(database, conn, rules, now)
        # Locked, so that none is pruned or erased in the meantime.
        locked = select(table).where(table.c.id.in_(event_ids)).order_by(table.c.id).with_for_update()
        rows = {row.id: row for row in conn.execute(locked)}
        replayed, created = [], []
        history = history_in(conn)
        for event_id in event_ids:
            row, skipped, deliveries = rows.get(event_id), "", list[dict[str, Any]]()
            if row is None:
                skipped = "there is no such event"
            elif row.body is None:
                skipped = "its body is no longer kept (BRIDGE_RETENTION)"
            elif row.routed_at is None:
                skipped = "it is not routed yet; it will be routed automatically"
            else:
                event = event_from_row(row, database.default_country)
                deliveries = list(_route_again(event, rules, route, history, now, rule, force))
            created += deliveries
            replayed.append(ReplayResult(event_id, [row["id"] for row in deliveries], skipped))
        if created:
            conn.execute(schema.deliveries.insert(), created)
        for item in replayed:
            if not item.skipped:
                detail = {
                    "deliveries": len(item.deliveries),
                    "rules": rules.hash[:12],
                    "rule": rule,
                    "force": force,
                }
                record_audit(conn, now, actor, "replay", [item.id], {k: v for k, v in detail.items() if v})
        database.publish(conn, {row["connection"] for row in created})
        return replayed


def _route_again(
    event: Event,
    rules: Rules,
    route: Route,
    history: History,
    now: datetime,
    rule: str | None,
    force: bool,
) -> Iterator[dict[str, Any]]:
    for planned in route(event, now, history).planned:
        if rule is None or planned.rule == rule:
            yield delivery_row(planned, event, rules.hash, now, force=force)


def accept_rejected_request(database: Database, actor: str, request_id: str) -> ActionResult:
    """Accept a rejected request as an event; its signature must be valid.

    A conflict becomes an event of its own, next to the stored one that has the same identity. If the process dies
    between the two transactions, the action can be repeated: the event is then a duplicate.
    """
    table = schema.rejected_requests
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == request_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no rejected request `{request_id}`")
    if row.accepted_event_id is not None:
        return ActionResult(request_id, False, f"it was already accepted as {row.accepted_event_id}")
    if row.body is None:
        return ActionResult(
            request_id,
            False,
            "it has no valid signature, so its body was not kept; Heppu has to send it again",
        )
    try:
        event = read_event(row.body, row.received_at, database.default_country)
    except SignedRequestRejected as error:
        return ActionResult(request_id, False, f"not a valid event: {error.detail}")
    is_conflict = row.reason == "conflict"
    if is_conflict:
        event = replace(event, dedupe_key=f"accepted|{request_id}")
    result = store_events(database, [IncomingEvent(event, row.body, separate=is_conflict)])[0]
    if result == "unavailable":
        raise BridgeError("the event could not be stored; try again")
    events = schema.events
    same = events.c.dedupe_key == event.dedupe_key
    if not is_conflict:
        same = or_(same, events.c.fallback_dedupe_key == event.fallback_dedupe_key)
    with database.write() as conn:
        event_id = conn.execute(select(events.c.id).where(same)).scalar()
        conn.execute(update(table).where(table.c.id == request_id).values(accepted_event_id=event_id))
        record_audit(conn, database.now(conn), actor, "accept", [request_id], {"event": event_id})
    return ActionResult(
        request_id,
        True,
        f"accepted as {event_id}" if result == "stored" else f"it was already stored as {event_id}",
    )
