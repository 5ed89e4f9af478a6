"""From stored events to deliveries: one transaction per group of events, a savepoint for each when one fails.

What a kill between two steps leads to: before the commit the events are still unrouted and are routed again;
after it everything is there. Routing is pure, so doing it twice gives the same.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.events import Event, parse_body
from bridge.ids import new_id
from bridge.rules.model import Planned, Routing, Rules
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.groups import insert_group, update_group

Route = Callable[[Event, datetime], Routing]
"""The pure routing of one event at an instant."""
LONGEST_ROUTING = 1.0
"""Seconds of one transaction: PostgreSQL ends one that seems idle for longer, and on SQLite all writers wait."""


_recent: OrderedDict[str, Event] = OrderedDict()
"""Events that this process parsed last: each is routed and claimed within moments."""
_MOST_RECENT = 2000


def event_of(row: Row[Any]) -> Event:
    """The event in a row of `events`; its body is empty once retention has taken it."""
    if row.body is None:
        return Event({"event": row.name}, row.identity, row.received_at, row.id)
    event = _recent.get(row.id)
    if event is None:
        event = Event(parse_body(row.body), row.identity, row.received_at, row.id)
        keep_parsed([event])
    return event


def read_events(connection: Connection, idents: Collection[str]) -> dict[str, Event]:
    """The events with these ids, by id; those that were parsed lately are not read again while their body is kept."""
    table = schema.events
    found = {ident: event for ident in idents if (event := _recent.get(ident)) is not None}
    if found:
        gone = select(table.c.id).where(table.c.id.in_(found), table.c.body.is_(None))
        for ident in connection.execute(gone).scalars():
            del found[ident]
    unread = set(idents) - found.keys()
    if unread:
        query = select(*table.c["id", "identity", "received_at", "name", "body"]).where(
            table.c.id.in_(unread)
        )
        found |= {row.id: event_of(row) for row in connection.execute(query)}
    return found


def keep_parsed(events: Iterable[Event]) -> None:
    """Remember stored events, so that routing and claiming need not parse them again."""
    for event in events:
        _recent[event.id] = event
    while len(_recent) > _MOST_RECENT:
        _recent.popitem(last=False)


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
    with database.write() as connection:
        # By its id: the oldest may be another one by now, which another replica left for us.
        rows = connection.execute(_UNROUTED.where(schema.events.c.id.in_(taken))).all()
        now = database.now(connection)
        marked = [
            {"id": row.id, "routed_at": now, "rules": rules.hash, "trace": _crash(error)} for row in rows
        ]
        if marked:
            update_group(connection, schema.events, ["id"], marked)
    return [row["id"] for row in marked]


def _route_group(
    database: Database, rules: Rules, route: Route, limit: int, taken: list[str]
) -> tuple[int, list[str]]:
    crashed: list[str] = []
    with database.write() as connection:
        rows = connection.execute(_UNROUTED.limit(limit)).all()
        if not rows:
            return 0, []
        taken += [row.id for row in rows]
        begun = uptime()
        now = database.now(connection)
        keep_rules(database, connection, rules, now)
        routed: list[dict[str, Any]] = []
        deliveries: list[dict[str, Any]] = []
        for row in rows:
            if routed and uptime() - begun > LONGEST_ROUTING:
                break  # the rest is for the next round
            trace, made = _route_one(row, rules, route, now, crashed)
            routed.append({"id": row.id, "routed_at": now, "rules": rules.hash, "trace": trace})
            deliveries.extend(made)
        if deliveries:
            insert_group(connection, schema.deliveries, deliveries)
        update_group(connection, schema.events, ["id"], routed)
        if deliveries:
            database.changed(connection, {row["connection"] for row in deliveries})
    return len(routed), crashed


def _route_one(
    row: Row[Any], rules: Rules, route: Route, now: datetime, crashed: list[str]
) -> tuple[str, list[dict[str, Any]]]:
    """The trace and the deliveries of one event; a crash is its trace, and stops nobody else."""
    try:
        event = event_of(row)
        routing = route(event, now)
        trace = json.dumps([item.to_json() for item in routing.traces])
        return trace, [delivery_row(planned, event, rules.hash, now) for planned in routing.planned]
    except Exception as error:
        crashed.append(row.id)
        return _crash(error), []


def _crash(error: Exception) -> str:
    return json.dumps([{"rule": "", "fired": False, "checks": [], "error": type(error).__name__}])


_UNROUTED = (
    select(*schema.events.c["id", "identity", "received_at", "name", "body"])
    .where(schema.events.c.routed_at.is_(None))
    .order_by(schema.events.c.received_at)
    .with_for_update(skip_locked=True)
)


def keep_rules(database: Database, connection: Connection, rules: Rules, now: datetime) -> None:
    """Keep the text of the rules that made something, under its hash."""
    row = {"hash": rules.hash, "text": rules.text, "first_used_at": now}
    connection.execute(database.insert_new(schema.rules), [row])


def delivery_row(
    planned: Planned,
    event: Event,
    rules_hash: str,
    now: datetime,
    *,
    cause_id: str | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """The row of a delivery to be made. What could not be rendered is born dead, with the reason."""
    dead = planned.problem is not None
    options = _options(planned, again)
    return {
        "id": new_id("dlv"),
        "event_id": event.id or None,
        "cause_id": cause_id,
        "origin": planned.origin,
        "rule": planned.rule,
        "position": planned.position,
        "rules": rules_hash,
        "action": planned.action,
        "connection": planned.connection,
        "channel": planned.channel,
        "recipient": planned.recipient.casefold() if planned.recipient else None,
        "contact": event.contact.key,
        "conversation": event.conversation.id,
        "params": json.dumps(dict(planned.params)),
        "options": json.dumps(options) if options else "{}",
        "lane": planned.lane,
        "effect": planned.effect,
        "occurred_at": event.occurred_at,
        "state": "dead" if dead else "pending",
        "reason": "render" if dead else None,
        "detail": planned.problem,
        "run_at": planned.run_at,
        "expires_at": planned.expires_at,
        "attempts": 0,
        "fence": 0,
        "follow_up": dead and planned.origin == "rule",
        "created_at": now,
        "finished_at": now if dead else None,
    }


def _options(planned: Planned, again: bool) -> dict[str, Any]:
    """What the worker needs to know of the rule later; only what differs from the default."""
    options: dict[str, Any] = {}
    if planned.effect_updates:
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
    if again:
        options["again"] = True
    return options
