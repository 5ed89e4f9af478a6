"""Routing: turns stored events into deliveries, one transaction per batch of events.

If the process is killed before the commit, the events are still unrouted and are routed again; after the commit,
everything is stored. Routing is pure, so routing twice gives the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, text, update

from bridge.clock import uptime
from bridge.contacts.address import address_key
from bridge.contacts.name import MAX_READ
from bridge.contacts.same_name import name_words
from bridge.errors import StoreUnavailable
from bridge.events import Event
from bridge.ids import new_id
from bridge.lifecycle import Transition
from bridge.rules.counting import History
from bridge.rules.model import PlannedDelivery, Routing, Rules
from bridge.rules.trace import Trace
from bridge.store import schema
from bridge.store.bulk import JSON_VALUES, bulk_insert, bulk_update, json_values, select_in
from bridge.store.contact_history import history_in
from bridge.store.database import Database
from bridge.store.deliveries import Delivery, DeliveryOptions
from bridge.store.event_rows import EVENT_COLUMNS, event_of
from bridge.store.reconciliation import find_duplicate_calls
from bridge.store.traces import pack, pack_outlines

_NO_NAMES: Final[Mapping[str, str | None]] = {"contact_name": None, "contact_sort_name": None}


@dataclass(slots=True)
class RoutingResult:
    """The result of routing one event: its trace and the rows of its deliveries."""

    trace: bytes
    deliveries: Sequence[dict[str, Any]] = ()
    names: Mapping[str, str | None] = field(default_factory=lambda: _NO_NAMES)
    """The columns by which the contact is found: `search_names`."""
    failed: bool = False
    """True if routing raised an error, which the trace then names."""


Route = Callable[[Event, datetime, History], Routing]
"""Routes one event at an instant, with the history of its contact."""
MAX_ROUTING_SECONDS = 1.0
"""Routing time per transaction: PostgreSQL aborts a transaction that is idle for long, and on SQLite writers wait."""


_BY_ID = select_in(schema.events.c.id, schema.events.c[EVENT_COLUMNS])
_WITHOUT_BODY = select_in(schema.events.c.id, [schema.events.c.id], "body IS NULL")
"""Built once, because every claim uses them."""


def _cached_events(database: Database, rows: Sequence[Any]) -> dict[str, Event]:
    """Return the events of these rows of EVENT_COLUMNS, by ID, and cache them."""
    sizes = {event_id: len(body) for event_id, *_, body in rows if body is not None}
    cached = database.event_cache.find(sizes)
    events = {row[0]: cached.get(row[0]) or event_of(database.default_country, *row) for row in rows}
    database.event_cache.add((events[event_id], size) for event_id, size in sizes.items())
    return events


def read_events(database: Database, conn: Connection, event_ids: Collection[str]) -> dict[str, Event]:
    """Return the events with these IDs, by ID; cached events are not read again while their body is kept."""
    events = database.event_cache.find(event_ids)
    if events:
        for (event_id,) in conn.execute(_WITHOUT_BODY[conn.dialect.name], json_values(events)):
            del events[event_id]
    uncached = set(event_ids) - events.keys()
    if uncached:
        rows = conn.execute(_BY_ID[conn.dialect.name], json_values(uncached)).all()
        events |= _cached_events(database, rows)
    return events


def events_by_delivery(
    database: Database, conn: Connection, deliveries: Sequence[Delivery]
) -> dict[str, Event]:
    """Return the events of these deliveries, by delivery ID."""
    events = read_events(database, conn, {item.event_id for item in deliveries if item.event_id})
    return {
        item.id: events.get(item.event_id or "") or Event({}, item.id, item.occurred_at)
        for item in deliveries
    }


def route_unrouted(database: Database, rules: Rules, route: Route, limit: int = 200) -> tuple[int, list[str]]:
    """Route up to `limit` stored events, oldest first; return their number, and the IDs of those that failed.

    On PostgreSQL several workers share the work: events that another worker is routing are skipped. If a batch cannot
    be written, its events are routed one by one, and one that fails alone is marked as failed.
    """
    locked: list[str] = []
    try:
        return _route_batch(database, rules, route, limit, locked)
    except StoreUnavailable:
        raise
    except Exception as error:
        if limit > 1:
            return route_unrouted(database, rules, route, 1)
        return 1, _give_up(database, rules, locked, error)


def _give_up(database: Database, rules: Rules, event_ids: Collection[str], error: Exception) -> list[str]:
    """Mark an event that failed alone as routed without deliveries, with the error as its trace."""
    with database.write() as conn:
        # By ID, because the oldest unrouted event may be another one by now.
        rows = conn.execute(_UNROUTED.where(schema.events.c.id.in_(event_ids))).all()
        now = database.now(conn)
        failed = [
            {"id": row.id, "routed_at": now, "rules_hash": rules.hash, "packed_trace": _error_trace(error)}
            for row in rows
        ]
        if failed:
            bulk_update(conn, schema.events, ["id"], failed)
    return [row["id"] for row in failed]


def _route_batch(
    database: Database, rules: Rules, route: Route, limit: int, locked: list[str]
) -> tuple[int, list[str]]:
    routed_ahead: dict[str, RoutingResult] | None = None
    events: dict[str, Event] = {}
    if database.is_sqlite:
        # There is no other router, and all writers would wait: route before entering the write queue.
        with database.read() as conn:
            events = _cached_events(database, conn.execute(_OLDEST_UNROUTED, {"limit": limit}).all())
            routed_ahead = _route_events(events, rules, route, database.now(conn), history_in(conn))
        if not routed_ahead:
            return 0, []
    with database.write() as conn:
        if routed_ahead is None:
            events, now = _unrouted_and_time(database, conn, limit)
            results = _route_events(events, rules, route, now, history_in(conn))
        else:
            now = database.now(conn)
            results = {event_id: routed_ahead[event_id] for event_id in _still_unrouted(conn, routed_ahead)}
        if not results:
            return 0, []
        locked += results
        readable = {event_id: events[event_id] for event_id, result in results.items() if not result.failed}
        duplicates = find_duplicate_calls(database, conn, readable, now)
        for event_id in duplicates:
            results[event_id].trace, results[event_id].deliveries = pack(()), ()
        store_rules_version(database, conn, rules, now)
        deliveries = [row for result in results.values() for row in result.deliveries]
        if deliveries:
            bulk_insert(conn, schema.deliveries, deliveries)
            database.publish(conn, {row["connection"] for row in deliveries})
        marks = {"routed_at": now, "rules_hash": rules.hash}
        bulk_update(
            conn,
            schema.events,
            ["id"],
            [
                {"id": event_id, **marks, **result.names, "packed_trace": result.trace}
                for event_id, result in results.items()
            ],
        )
        if duplicates:
            rows = [{"id": event_id, "duplicate_of": other} for event_id, other in duplicates.items()]
            bulk_update(conn, schema.events, ["id"], rows)
    return len(results), [event_id for event_id, result in results.items() if result.failed]


def _unrouted_and_time(database: Database, conn: Connection, limit: int) -> tuple[dict[str, Event], datetime]:
    """Return the oldest unrouted events, locked, and the time. On PostgreSQL, that is one round trip."""
    rows = conn.execute(_OLDEST_UNROUTED_AND_TIME, {"limit": limit}).all()
    now = rows[0][-1] + database.clock.shift if rows else database.clock.now()
    return _cached_events(database, [row[:-1] for row in rows]), now


def _still_unrouted(conn: Connection, event_ids: Collection[str]) -> list[str]:
    """Return those of these events that are not routed, in the same order."""
    values = json.dumps(list(event_ids))
    unrouted = set(conn.execute(_STILL_UNROUTED, {"values": values}).scalars())
    return [event_id for event_id in event_ids if event_id in unrouted]


def _route_events(
    events: Mapping[str, Event], rules: Rules, route: Route, now: datetime, history: History
) -> dict[str, RoutingResult]:
    """Route events, and return the results by ID; stop when it takes too long and leave the rest for the next batch.

    An error becomes the event's trace and does not affect other events. Each step is done for all events before the
    next one: with short loops over little code, the processor needs two thirds of the time.
    """
    started = uptime()
    results: dict[str, RoutingResult] = {}
    routings: dict[str, Routing] = {}

    def run(step: Callable[[str], None], event_ids: Collection[str]) -> None:
        for event_id in tuple(event_ids):
            try:
                step(event_id)
            except Exception as error:
                routings.pop(event_id, None)
                results[event_id] = RoutingResult(_error_trace(error), failed=True)

    def parse(event_id: str) -> None:
        event = events[event_id]
        _ = event.contact, event.conversation, event.occurred_at  # lazy attributes

    def plan(event_id: str) -> None:
        if event_id not in results and (not routings or uptime() - started <= MAX_ROUTING_SECONDS):
            routings[event_id] = route(events[event_id], now, history)

    def store_trace(event_id: str) -> None:
        results[event_id] = RoutingResult(pack(routings[event_id].evaluated))

    def add_deliveries(event_id: str) -> None:
        event, planned = events[event_id], routings[event_id].planned
        results[event_id].deliveries = [delivery_row(item, event, rules.hash, now) for item in planned]

    def add_names(event_id: str) -> None:
        results[event_id].names = search_names(events[event_id].contact.name)

    run(parse, events)
    run(plan, events)
    for step in (store_trace, add_deliveries, add_names):
        run(step, routings)
    return {event_id: results[event_id] for event_id in events if event_id in results}


def search_names(name: str | None) -> Mapping[str, str | None]:
    """Return `contact_name` and `contact_sort_name` of an event whose contact has this name."""
    if not name:
        return _NO_NAMES
    words = name_words(name[:MAX_READ])
    return {
        "contact_name": " ".join(words) or None,
        "contact_sort_name": " ".join([words[-1], *words[:-1]]) if len(words) > 1 else None,
    }


def _error_trace(error: Exception) -> bytes:
    return pack([Trace("", False, error=type(error).__name__)])


_UNROUTED = (
    select(*schema.events.c[EVENT_COLUMNS])
    .where(schema.events.c.routed_at.is_(None))
    .order_by(schema.events.c.received_at)
    .with_for_update(skip_locked=True)
)
_OLDEST_UNROUTED = _UNROUTED.limit(bindparam("limit"))
_OLDEST_UNROUTED_AND_TIME = _OLDEST_UNROUTED.add_columns(func.clock_timestamp())
_STILL_UNROUTED = text(
    f"SELECT id FROM events WHERE routed_at IS NULL AND id IN (SELECT value FROM {JSON_VALUES['sqlite']})"  # noqa: S608
)
_OUTLINED_RULES = select(schema.rules.c.hash).where(
    schema.rules.c.hash == bindparam("hash"), schema.rules.c.outlines.is_not(None)
)
"""Built once, because every batch of the router uses them."""


def store_rules_version(database: Database, conn: Connection, rules: Rules, now: datetime) -> None:
    """Store the text of the rules and their outlines under the hash of the text."""
    table = schema.rules
    if conn.execute(_OUTLINED_RULES, {"hash": rules.hash}).first() is not None:
        return
    outlines = pack_outlines(rules.outlines)
    row = {"hash": rules.hash, "text": rules.text, "first_used_at": now, "outlines": outlines}
    conn.execute(database.insert_new(table), [row])
    conn.execute(update(table).where(table.c.hash == rules.hash).values(outlines=outlines))


def delivery_row(
    planned: PlannedDelivery,
    event: Event,
    rules_hash: str,
    now: datetime,
    *,
    parent_id: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Return the row of a planned delivery; one that could not be rendered is `failed` from the start."""
    transition = (
        Transition.planned(planned.run_at)
        if planned.render_error is None
        else Transition.not_rendered(planned.render_error)
    )
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
        "recipient": address_key(planned.recipient) if planned.recipient else None,
        "contact": event.contact.key,
        "conversation": event.conversation.id,
        "params": json.dumps(dict(planned.params)),
        "options": DeliveryOptions.of(planned, force=force).to_json(),
        "concurrency_key": planned.concurrency_key,
        "idempotency_key": planned.idempotency_key,
        "occurred_at": event.occurred_at,
        "expires_at": planned.expires_at,
        "attempts": 0,
        "fencing_token": 0,
        "created_at": now,
        **transition.columns(None, now, planned.trigger),
    }
