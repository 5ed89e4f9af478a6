"""From stored events to deliveries: one transaction per group of events, a savepoint for each when one fails.

What a kill between two steps leads to: before the commit the events are still unrouted and are routed again;
after it everything is there. Routing is pure, so doing it twice gives the same.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.events import Event, StoredEvent
from bridge.ids import new_id
from bridge.rules.model import PlannedDelivery, Routing, Rules
from bridge.store import schema
from bridge.store.bulk import bulk_insert, bulk_update
from bridge.store.database import Database


@dataclass(frozen=True)
class RoutingResult:
    """What one event leads to: its trace, and the rows of its deliveries."""

    trace: str
    deliveries: Sequence[dict[str, Any]]
    crashed: bool = False


Route = Callable[[Event, datetime], Routing]
"""The pure routing of one event at an instant."""
MAX_ROUTING_SECONDS = 1.0
"""Seconds of one transaction: PostgreSQL ends one that seems idle for longer, and on SQLite all writers wait."""


_READ = ("id", "dedupe_key", "received_at", "type", "conversation_id", "body")
"""The columns that make an event."""
_recent: OrderedDict[str, Event] = OrderedDict()
"""Events that this process met last: each is routed and claimed within moments."""
_MOST_RECENT, _SMALL = 2000, 16_384
"""How many of them are kept, and up to how many bytes: a few dozen MiB at the most."""


def event_from_row(row: Row[Any]) -> Event:
    """The event in a row of `events`; its body is empty once retention has taken it."""
    if row.body is None:
        body = {"event": row.type, "conversationId": row.conversation_id}
        return Event(body, row.dedupe_key, row.received_at, row.id)
    return _recent.get(row.id) or StoredEvent(row.body, row.type, row.dedupe_key, row.received_at, row.id)


def _events_of(rows: Sequence[Row[Any]]) -> dict[str, Event]:
    """The events in rows of `events`, by id; whoever needs them next finds them parsed."""
    found = {row.id: event_from_row(row) for row in rows}
    cache_parsed_events((found[row.id], len(row.body)) for row in rows if row.body is not None)
    return found


def cache_parsed_events(events: Iterable[tuple[Event, int]]) -> None:
    """Remember events of so many bytes, so that routing and claiming need not parse them again."""
    _recent.update((event.id, event) for event, size in events if size <= _SMALL)
    with suppress(KeyError):  # another thread was quicker
        while len(_recent) > _MOST_RECENT:
            _recent.popitem(last=False)


def read_events(conn: Connection, idents: Collection[str]) -> dict[str, Event]:
    """The events with these ids, by id; those that were parsed lately are not read again while their body is kept."""
    table = schema.events
    found = {ident: event for ident in idents if (event := _recent.get(ident)) is not None}
    if found:
        gone = select(table.c.id).where(table.c.id.in_(found), table.c.body.is_(None))
        for ident in conn.execute(gone).scalars():
            del found[ident]
    unread = set(idents) - found.keys()
    if unread:
        query = select(*table.c[_READ]).where(table.c.id.in_(unread))
        found |= _events_of(conn.execute(query).all())
    return found


def route_unrouted(database: Database, rules: Rules, route: Route, limit: int = 200) -> tuple[int, list[str]]:
    """Route up to `limit` stored events, the oldest first; returns how many, and the ids of those that crashed.

    On PostgreSQL several replicas share the work: events that another one is routing are passed over. When a
    group cannot be written, its events are routed one by one, and one that fails alone is marked as crashed.
    """
    taken: list[str] = []
    try:
        return _route_group(database, rules, route, limit, taken)
    except StoreUnavailable:
        raise
    except Exception as error:
        if limit > 1:
            return route_unrouted(database, rules, route, 1)
        return 1, _give_up(database, rules, taken, error)


def _give_up(database: Database, rules: Rules, taken: Collection[str], error: Exception) -> list[str]:
    """Mark the event that failed alone as routed to nowhere, with the error as its trace."""
    with database.write() as conn:
        # By its id: the oldest may be another one by now, which another replica left for us.
        rows = conn.execute(_UNROUTED.where(schema.events.c.id.in_(taken))).all()
        now = database.now(conn)
        marked = [
            {"id": row.id, "routed_at": now, "rules_hash": rules.hash, "trace": _crash(error)} for row in rows
        ]
        if marked:
            bulk_update(conn, schema.events, ["id"], marked)
    return [row["id"] for row in marked]


def _route_group(
    database: Database, rules: Rules, route: Route, limit: int, taken: list[str]
) -> tuple[int, list[str]]:
    ahead: dict[str, RoutingResult] | None = None
    if database.is_sqlite:
        # All writers wait for this one, and nobody else routes: it is worked out before its turn.
        with database.read() as conn:
            rows = conn.execute(_UNROUTED.limit(limit)).all()
            ahead = _route_all(rows, rules, route, database.now(conn))
        if not ahead:
            return 0, []
    with database.write() as conn:
        now = database.now(conn)
        if ahead is None:
            rows = conn.execute(_UNROUTED.limit(limit)).all()
            done = _route_all(rows, rules, route, now)
        else:
            done = {ident: ahead[ident] for ident in _still_unrouted(conn, ahead)}
        if not done:
            return 0, []
        taken += done
        store_rules_version(database, conn, rules, now)
        deliveries = [made for routed in done.values() for made in routed.deliveries]
        if deliveries:
            bulk_insert(conn, schema.deliveries, deliveries)
            database.publish(conn, {row["connection"] for row in deliveries})
        marks = {"routed_at": now, "rules_hash": rules.hash}
        bulk_update(
            conn,
            schema.events,
            ["id"],
            [{"id": ident, **marks, "trace": routed.trace} for ident, routed in done.items()],
        )
    return len(done), [ident for ident, routed in done.items() if routed.crashed]


def _still_unrouted(conn: Connection, idents: Collection[str]) -> list[str]:
    """Those of these events that are not routed, the oldest first."""
    table = schema.events
    unrouted = select(table.c.id).where(table.c.id.in_(idents), table.c.routed_at.is_(None))
    return list(conn.execute(unrouted.order_by(table.c.received_at)).scalars())


def _route_all(
    rows: Sequence[Row[Any]], rules: Rules, route: Route, now: datetime
) -> dict[str, RoutingResult]:
    """What these events lead to, by id; what takes too long is left for the next round."""
    begun = uptime()
    found: dict[str, RoutingResult] = {}
    for ident, event in _events_of(rows).items():
        if found and uptime() - begun > MAX_ROUTING_SECONDS:
            break
        found[ident] = _route_one(event, rules, route, now)
    return found


def _route_one(event: Event, rules: Rules, route: Route, now: datetime) -> RoutingResult:
    """The trace and the deliveries of one event; a crash is its trace, and stops nobody else."""
    try:
        routing = route(event, now)
        trace = json.dumps([item.to_json() for item in routing.traces])
        return RoutingResult(
            trace, [delivery_row(planned, event, rules.hash, now) for planned in routing.planned]
        )
    except Exception as error:
        return RoutingResult(_crash(error), [], crashed=True)


def _crash(error: Exception) -> str:
    return json.dumps([{"rule": "", "fired": False, "checks": [], "error": type(error).__name__}])


_UNROUTED = (
    select(*schema.events.c[_READ])
    .where(schema.events.c.routed_at.is_(None))
    .order_by(schema.events.c.received_at)
    .with_for_update(skip_locked=True)
)


def store_rules_version(database: Database, conn: Connection, rules: Rules, now: datetime) -> None:
    """Keep the text of the rules that made something, under its hash."""
    row = {"hash": rules.hash, "text": rules.text, "first_used_at": now}
    conn.execute(database.insert_new(schema.rules), [row])


def delivery_row(
    planned: PlannedDelivery,
    event: Event,
    rules_hash: str,
    now: datetime,
    *,
    parent_id: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """The row of a delivery to be made. What could not be rendered is born dead, with the reason."""
    dead = planned.render_error is not None
    options = _options(planned, force)
    return {
        "id": new_id("dlv"),
        "event_id": event.id or None,
        "parent_id": parent_id,
        "trigger": planned.trigger,
        "rule": planned.rule,
        "step_index": planned.step_index,
        "rules_hash": rules_hash,
        "action": planned.action,
        "connection": planned.connection,
        "channel": planned.channel,
        "recipient": planned.recipient.casefold() if planned.recipient else None,
        "contact": event.contact.key,
        "conversation": event.conversation.id,
        "params": json.dumps(dict(planned.params)),
        "options": json.dumps(options) if options else "{}",
        "concurrency_key": planned.concurrency_key,
        "idempotency_key": planned.idempotency_key,
        "occurred_at": event.occurred_at,
        "state": "failed" if dead else "pending",
        "reason": "render_error" if dead else None,
        "detail": planned.render_error,
        "run_at": planned.run_at,
        "expires_at": planned.expires_at,
        "attempts": 0,
        "fencing_token": 0,
        "needs_follow_up": dead and planned.trigger == "rule",
        "created_at": now,
        "finished_at": now if dead else None,
    }


def _options(planned: PlannedDelivery, force: bool) -> dict[str, Any]:
    """What the worker needs to know of the rule later; only what differs from the default."""
    options: dict[str, Any] = {}
    if planned.updates_existing:
        options["updates"] = True
    if planned.cancel_on:
        options["cancel_on"] = list(planned.cancel_on)
    if planned.once:
        options["once"] = {"per": planned.once.per, "within": planned.once.within.total_seconds()}
    if planned.retry.limit is not None or planned.retry.attempts is not None:
        limit = planned.retry.limit
        options["retry"] = {
            "limit": limit.total_seconds() if limit is not None else None,
            "attempts": planned.retry.attempts,
        }
    if planned.shadow:
        options["shadow"] = True
    if force:
        options["force"] = True
    return options
