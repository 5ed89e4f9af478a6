"""Operator actions on stored work: retry, replay, cancel, resolve, accept.

Each action is one transaction that includes its audit entry, under the same locks as the worker's transactions. An
action that could contact a recipient twice for one cause is rejected, with a message that says what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, or_, select, update

from bridge.errors import BridgeError
from bridge.rules.model import Rules
from bridge.signing import SignedRequestRejected, read_event
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.idempotency import mark_completed_for, release_keys
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.pauses import Pause
from bridge.store.queries import NotFound
from bridge.store.retention import ERASED
from bridge.store.routing import Route, delivery_row, event_from_row, store_rules_version

Resolution = Literal["delivered", "retry", "discard"]
"""How an operator resolves a review: the action took effect; it did not, so retry it; do not retry it."""

REPLAY_BATCH = 200
"""Events per transaction of a replay."""

UNKNOWN_DELIVERY = "there is no such delivery"
"""The message of an action on an unknown ID."""

_TABLE = schema.deliveries


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
        rows = _locked(conn, delivery_ids)
        results = [_retry(conn, rows.get(delivery_id), delivery_id, now) for delivery_id in delivery_ids]
        _finish(database, conn, actor, "retry", results, rows, now)
        return results


def _retry(conn: Connection, row: Row[Any] | None, delivery_id: str, now: datetime) -> ActionResult:
    obstacle = _retry_obstacle(row, now)
    if row is None or obstacle is not None:
        return ActionResult(delivery_id, False, obstacle or _unknown_id(delivery_id))
    values: dict[str, Any] = {"run_at": now}
    if row.state == "failed":
        # The retry schedule starts again: the last one is used up, or the provider rejected the action.
        values |= {
            "state": "pending",
            "attempts": 0,
            "first_attempt_at": None,
            "finished_at": None,
            "needs_follow_up": False,
        }
    _update(conn, delivery_id, **values)
    return ActionResult(delivery_id, True, f"retry starts {_when(conn, row.connection, now)}")


def _when(conn: Connection, name: str, now: datetime) -> str:
    """Return when a due delivery is attempted: now, unless its connection is paused."""
    row = conn.execute(select(schema.connections).where(schema.connections.c.name == name)).one_or_none()
    pause = Pause.from_columns(row._asdict()) if row is not None else None
    if pause is None or pause.is_over(now):
        return "now"
    return f"when {name} is resumed ({pause}); {pause.hint}"


def _retry_obstacle(row: Row[Any] | None, now: datetime) -> str | None:
    """Return why a delivery cannot be retried; None if it can."""
    if row is None:
        return None
    if row.state == "needs_review":
        return f"its outcome is unknown: ask the provider, then `bridge resolve {row.id} delivered|retry|discard`"
    if row.state not in ("failed", "retrying"):
        return f"it is {row.state}; only failed and retrying deliveries can be retried{_force_hint(row)}"
    if row.outcome_unknown_since is not None:
        # An earlier lookup could miss an action that took effect, and it would be done twice.
        return (
            f"its outcome is unknown: a lookup runs at {row.run_at:%H:%M:%S} UTC; "
            "if the action did not take effect, it is retried automatically"
        )
    if row.params == ERASED:
        return "its parameters are no longer kept (BRIDGE_RETENTION)"
    if row.reason == "render_error":
        return f"a template could not be rendered: fix the rule, then `bridge replay {row.event_id} --rule {row.rule}`"
    return _expired(row, now)


def _force_hint(row: Row[Any]) -> str:
    """Return how to send a delivery that succeeded once more."""
    if row.state != "succeeded" or row.trigger != "rule" or row.event_id is None:
        return ""
    return f"; `bridge replay {row.event_id} --rule {row.rule} --force` sends it once more"


def _expired(row: Row[Any], now: datetime) -> str | None:
    if row.expires_at is not None and row.expires_at <= now:
        return f"it expired at {row.expires_at:%Y-%m-%d %H:%M} UTC (the rule's `expires`)"
    return None


def cancel(database: Database, actor: str, delivery_ids: Sequence[str]) -> list[ActionResult]:
    """Cancel pending deliveries. If one may have been sent, its idempotency key is kept, so it is not sent again."""
    with database.write() as conn:
        now = database.now(conn)
        rows = _locked(conn, delivery_ids)
        results = []
        for delivery_id in delivery_ids:
            row = rows.get(delivery_id)
            if row is None:
                results.append(ActionResult(delivery_id, False, _unknown_id(delivery_id)))
            elif row.state not in ("pending", "retrying", "needs_review"):
                results.append(
                    ActionResult(
                        delivery_id, False, f"it is {row.state}; only pending deliveries can be cancelled"
                    )
                )
            else:
                results.append(_discard(database, conn, row, f"cancelled by {actor}", now))
        _finish(database, conn, actor, "cancel", results, rows, now)
        return results


def _discard(database: Database, conn: Connection, row: Row[Any], detail: str, now: datetime) -> ActionResult:
    """Cancel one delivery, and complete or release its idempotency key."""
    is_unknown = row.state == "needs_review" or row.outcome_unknown_since is not None
    if is_unknown:
        mark_completed_for(database, conn, row, None, now)
    else:
        release_keys(conn, {row.id: row.idempotency_key})
    _update(conn, row.id, state="cancelled", detail=detail, outcome_unknown_since=None, finished_at=now)
    return ActionResult(
        row.id, True, "cancelled; it may have been sent before" if is_unknown else "cancelled"
    )


def resolve(
    database: Database, actor: str, delivery_id: str, resolution: Resolution, external_id: str | None = None
) -> ActionResult:
    """Resolve a review by what an operator found at the provider."""
    with database.write() as conn:
        now = database.now(conn)
        rows = _locked(conn, [delivery_id])
        result = _resolve(
            database, conn, rows.get(delivery_id), delivery_id, resolution, external_id, actor, now
        )
        _finish(database, conn, actor, "resolve", [result], rows, now, {"resolution": resolution})
        return result


def _resolve(
    database: Database,
    conn: Connection,
    row: Row[Any] | None,
    delivery_id: str,
    resolution: Resolution,
    external_id: str | None,
    actor: str,
    now: datetime,
) -> ActionResult:
    if row is None:
        return ActionResult(delivery_id, False, _unknown_id(delivery_id))
    if row.state != "needs_review":
        return ActionResult(
            delivery_id, False, f"it is {row.state}; only a delivery that needs review can be resolved"
        )
    if resolution == "discard":
        return _discard(database, conn, row, f"discarded by {actor}", now)
    if resolution == "delivered":
        mark_completed_for(database, conn, row, external_id, now)
        _update(
            conn, delivery_id, state="succeeded", reason=None, detail=f"resolved as delivered by {actor}",
            external_id=external_id, outcome_unknown_since=None, finished_at=now,
        )  # fmt: skip
        return ActionResult(delivery_id, True, "marked as delivered")
    expired = _expired(row, now)
    if expired is not None:
        return ActionResult(delivery_id, False, f"{expired}; resolve it as `delivered` or `discard`")
    release_keys(conn, {delivery_id: row.idempotency_key})
    _update(
        conn, delivery_id, state="pending", detail=f"resolved as not delivered by {actor}", run_at=now, attempts=0,
        outcome_unknown_since=None, first_attempt_at=None, possibly_sent_at=None,
    )  # fmt: skip
    return ActionResult(delivery_id, True, f"retry starts {_when(conn, row.connection, now)}")


def _locked(conn: Connection, delivery_ids: Collection[str]) -> dict[str, Row[Any]]:
    rows = conn.execute(
        select(_TABLE).where(_TABLE.c.id.in_(delivery_ids)).order_by(_TABLE.c.id).with_for_update()
    )
    return {row.id: row for row in rows}


def _update(conn: Connection, delivery_id: str, **values: Any) -> None:
    conn.execute(update(_TABLE).where(_TABLE.c.id == delivery_id).values(values))


def _finish(
    database: Database,
    conn: Connection,
    actor: str,
    action: str,
    results: Sequence[ActionResult],
    rows: Mapping[str, Row[Any]],
    now: datetime,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Record the audit entries, and notify the connections that are affected."""
    done = [result.id for result in results if result.done]
    record_audit(conn, now, actor, action, done, detail)
    if done:
        database.publish(conn, {rows[delivery_id].connection for delivery_id in done})


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
        for event_id in event_ids:
            skipped = _replay_obstacle(rows.get(event_id))
            deliveries = [] if skipped else list(_route_again(rows[event_id], rules, route, now, rule, force))
            created += deliveries
            replayed.append(ReplayResult(event_id, [row["id"] for row in deliveries], skipped))
        if created:
            conn.execute(_TABLE.insert(), created)
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
    row: Row[Any], rules: Rules, route: Route, now: datetime, rule: str | None, force: bool
) -> Iterator[dict[str, Any]]:
    event = event_from_row(row)
    for planned in route(event, now).planned:
        if rule is None or planned.rule == rule:
            yield delivery_row(planned, event, rules.hash, now, force=force)


def _replay_obstacle(row: Row[Any] | None) -> str:
    """Return why an event cannot be replayed; empty if it can."""
    if row is None:
        return "there is no such event"
    if row.body is None:
        return "its body is no longer kept (BRIDGE_RETENTION)"
    return "" if row.routed_at is not None else "it is not routed yet; it will be routed automatically"


def accept_rejected_request(database: Database, actor: str, request_id: str) -> ActionResult:
    """Accept a rejected request as an event; its signature must be valid.

    If the process dies between the two transactions, the action can be repeated: the event is then a duplicate.
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
    if row.reason == "conflict":
        return ActionResult(
            request_id, False,
            "a stored event has the same ID and another body; compare both (`bridge show`), and send the correct "
            "one with `bridge send FILE --now`",
        )  # fmt: skip
    try:
        event = read_event(row.body, row.received_at)
    except SignedRequestRejected as error:
        return ActionResult(request_id, False, f"not a valid event: {error.detail}")
    result = store_events(database, [IncomingEvent(event, row.body)])[0]
    if result == "unavailable":
        raise BridgeError("the event could not be stored; try again")
    events = schema.events
    with database.write() as conn:
        event_id = conn.execute(
            select(events.c.id).where(
                or_(
                    events.c.dedupe_key == event.dedupe_key,
                    events.c.fallback_dedupe_key == event.fallback_dedupe_key,
                )
            )
        ).scalar()
        conn.execute(update(table).where(table.c.id == request_id).values(accepted_event_id=event_id))
        record_audit(conn, database.now(conn), actor, "accept", [request_id], {"event": event_id})
    return ActionResult(
        request_id,
        True,
        f"accepted as {event_id}" if result == "stored" else f"it was already stored as {event_id}",
    )
