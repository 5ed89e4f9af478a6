"""Replay: routes stored events once more with the current rules, chosen ones or all that match a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Unpack

from sqlalchemy import Connection, select

from bridge.errors import BridgeError
from bridge.events import Event
from bridge.rules.counting import History
from bridge.rules.model import Rules
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.batches import BulkEntry, in_batches
from bridge.store.contact_history import history_in
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.queries import EventCriteria, page_of_events
from bridge.store.routing import Route, delivery_row, store_rules_version

TARGET: Final = "events"
"""The target of the audit entry of a replay of all that match a filter."""
_PAGE: Final = 1_000
_EVENTS = schema.events
_NOT_STORED: Final = "there is no such event"
_NO_BODY: Final = "its body is no longer kept (BRIDGE_RETENTION)"
_NOT_ROUTED: Final = "it is not routed yet; it will be routed automatically"
_REPLAYED: Final = "it has been replayed since the preview"
_DUPLICATE: Final = "another event about the same call was routed; replay that one"


class TooManyEvents(BridgeError):
    """More events match than one replay may route."""


@dataclass(frozen=True)
class ReplayResult:
    """The result of a replay of one event."""

    id: str
    deliveries: Sequence[str]
    """The IDs of the new deliveries."""
    skipped: str = ""
    """Why the event was skipped; empty if it was replayed."""


@dataclass(frozen=True)
class SelectedEvents:
    """The events of a replay."""

    ids: Sequence[str]
    """Those that can be routed again, oldest first."""
    obstacles: Mapping[str, int] = field(default_factory=dict)
    """Why the others cannot -> how many."""

    @property
    def total(self) -> int:
        """All events that match."""
        return len(self.ids) + sum(self.obstacles.values())


def select_events(
    database: Database, limit: int | None = None, **criteria: Unpack[EventCriteria]
) -> SelectedEvents:
    """Return the events that match. Raise TooManyEvents if these are more than `limit`."""
    columns = (
        *_EVENTS.c["id", "received_at", "routed_at", "duplicate_of"],
        _EVENTS.c.body.is_not(None).label("has_body"),
    )
    ids, obstacles = list[str](), Counter[str]()
    cursor: str | None = None
    with database.read() as conn:
        while True:
            page = page_of_events(conn, columns, _PAGE, cursor, criteria)
            for item in page.items:
                problem = _problem(item["routed_at"], item["duplicate_of"], bool(item["has_body"]))
                if problem:
                    obstacles[problem] += 1
                else:
                    ids.append(item["id"])
            if limit is not None and len(ids) + obstacles.total() > limit:
                raise TooManyEvents(
                    f"more than {limit:,} events match; narrow the filter, for example by time"
                )
            cursor = page.next_cursor
            if cursor is None:
                return SelectedEvents(ids[::-1], dict(obstacles))


def audit_criteria(criteria: EventCriteria) -> dict[str, Any]:
    """Return the criteria that are set, for the audit log."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in criteria.items()
        if value
    }


def _problem(routed_at: datetime | None, duplicate_of: str | None, has_body: bool) -> str:
    """Return why an event cannot be routed again; empty if it can."""
    if duplicate_of:  # its idempotency keys are others, so that every action would be repeated
        return _DUPLICATE
    if not has_body:
        return _NO_BODY
    return "" if routed_at else _NOT_ROUTED


@dataclass(frozen=True)
class ReplayOrder:
    """How events are replayed."""

    rules: Rules
    route: Route
    rule: str | None = None
    """The only rule whose deliveries are created."""
    force: bool = False
    """Repeat actions that succeeded."""
    reason: str | None = None
    """Why, for the audit log."""
    previewed_at: datetime | None = None
    """When the operator saw what would happen, by the clock of the database: an event that has got deliveries since
    is skipped, so that two operators, or two clicks, do not contact a recipient twice."""

    def to_json(self) -> dict[str, Any]:
        """Return what the audit log says about it."""
        detail = {
            "rules": self.rules.hash[:12],
            "rule": self.rule,
            "force": self.force,
            "reason": self.reason,
        }
        return {name: value for name, value in detail.items() if value}


def replay(
    database: Database,
    actor: str,
    event_ids: Sequence[str],
    order: ReplayOrder,
    *,
    criteria: Mapping[str, Any] | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[ReplayResult]:
    """Route stored events once more, in small transactions.

    A delivery whose idempotency key is completed is suppressed as `duplicate`, or updates its CRM record. With
    `force`, its action is repeated. `criteria` are those of the filter that has selected the events: then the audit
    log gets one entry for all, to which those of the single events belong.
    """
    replayed: list[ReplayResult] = []
    entry = None
    if criteria is not None:
        entry = BulkEntry(actor, "replay", TARGET, {**criteria, **order.to_json(), "matched": len(event_ids)})

    def route_part(part: Sequence[str]) -> None:
        replayed.extend(_replay_batch(database, actor, part, order, entry))
        on_progress(len(part))

    in_batches(event_ids, route_part)
    return replayed


def _replay_batch(
    database: Database, actor: str, event_ids: Sequence[str], order: ReplayOrder, entry: BulkEntry | None
) -> list[ReplayResult]:
    with database.write() as conn:
        # Locked, so that none is pruned, erased or replayed by another operator in the meantime.
        locked = select(_EVENTS).where(_EVENTS.c.id.in_(event_ids)).order_by(_EVENTS.c.id).with_for_update()
        rows = {row.id: row for row in conn.execute(locked)}
        now = database.now(conn)
        store_rules_version(database, conn, order.rules, now)
        replayed, created = [], list[dict[str, Any]]()
        history = history_in(conn)
        changed = _changed_since(conn, event_ids, order.previewed_at)
        for event_id in event_ids:
            row = rows.get(event_id)
            if row is None:
                skipped = _NOT_STORED
            elif event_id in changed:
                skipped = _REPLAYED
            else:
                skipped = _problem(row.routed_at, row.duplicate_of, row.body is not None)
            deliveries = list[dict[str, Any]]()
            if not skipped:
                event = event_from_row(rows[event_id], database.default_country)
                deliveries = list(_route_again(event, order, history, now))
            created += deliveries
            replayed.append(ReplayResult(event_id, [row["id"] for row in deliveries], skipped))
        if created:
            conn.execute(schema.deliveries.insert(), created)
        done = [item for item in replayed if not item.skipped]
        for item in done:
            numbers = {"deliveries": len(item.deliveries)} if item.deliveries else {}
            detail = numbers if entry else order.to_json() | numbers
            record_audit(conn, now, actor, "replay", [item.id], detail, entry.id if entry else None)
        if entry:
            entry.add(conn, now, done=len(done), deliveries=len(created))
        database.publish(conn, {row["connection"] for row in created})
        return replayed


def _changed_since(conn: Connection, event_ids: Sequence[str], instant: datetime | None) -> set[str]:
    """Return the events that have got deliveries of rules since an instant."""
    if instant is None:
        return set()
    table = schema.deliveries
    query = select(table.c.event_id).where(
        table.c.event_id.in_(event_ids), table.c.created_at > instant, table.c.trigger == "rule"
    )
    return set(conn.execute(query).scalars())


def _route_again(
    event: Event, order: ReplayOrder, history: History, now: datetime
) -> Iterator[dict[str, Any]]:
    for planned in order.route(event, now, history).planned:
        if order.rule is None or planned.rule == order.rule:
            yield delivery_row(planned, event, order.rules.hash, now, force=order.force)
