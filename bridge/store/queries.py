"""Reading what happened, for people: events, deliveries, attempts, rejections, the audit, and counts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, text

from bridge.errors import BridgeError
from bridge.events import Event
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.routing import event_from_row

STATES = ("pending", "running", "succeeded", "retrying", "needs_review", "failed", "cancelled", "suppressed")
FINAL_STATES = ("succeeded", "needs_review", "failed", "cancelled", "suppressed")
"""States that nothing changes by itself any more; `review` waits for a person."""


class NotFound(BridgeError):
    """Nothing is stored under this id."""


@dataclass(frozen=True)
class Page:
    """Some rows, and where the next page begins."""

    items: Sequence[dict[str, Any]]
    next_cursor: str | None


def external_ids_in_use(
    database: Database, connection: str, delivery: str, ids: Iterable[str]
) -> AbstractSet[str]:
    """Which of these partner ids other deliveries of the connection already hold."""
    table = schema.deliveries
    with database.read() as reading:
        rows = reading.execute(
            select(table.c.external_id).where(
                table.c.external_id.in_(list(ids)), table.c.connection == connection, table.c.id != delivery
            )
        )
        return set(rows.scalars())


def list_events(
    database: Database,
    *,
    limit: int = 50,
    cursor: str | None = None,
    event_type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    ids: Collection[str] | None = None,
) -> Page:
    """Stored events, the newest first; `before` is the `next` of the page before, `ids` leaves the others out."""
    table = schema.events
    query = select(
        *table.c["id", "type", "conversation_id", "phone", "email", "occurred_at", "received_at", "routed_at"]
    )
    if event_type is not None:
        query = query.where(table.c.type == event_type)
    if since is not None:
        query = query.where(table.c.received_at >= since)
    if until is not None:
        query = query.where(table.c.received_at < until)
    if ids is not None:
        query = query.where(table.c.id.in_(ids))
    with database.read() as conn:
        page = _page(conn, query, table.c.id, limit, cursor)
        counts = _deliveries_of(conn, [item["id"] for item in page.items])
        for item in page.items:
            item["deliveries"] = counts.get(item["id"], {})
        return page


def _deliveries_of(conn: Connection, events: Sequence[str]) -> dict[str, dict[str, int]]:
    table = schema.deliveries
    counts: dict[str, dict[str, int]] = {}
    for row in conn.execute(
        select(table.c.event_id, table.c.state, func.count().label("total"))
        .where(table.c.event_id.in_(events))
        .group_by(table.c.event_id, table.c.state)
    ):
        counts.setdefault(row.event_id, {})[row.state] = row.total
    return counts


_SUMMARY = (
    "id", "event_id", "parent_id", "trigger", "rule", "action", "connection", "channel", "recipient", "state", "reason",
    "detail", "run_at", "attempts", "external_id", "message_status", "created_at", "finished_at", "expires_at",
)  # fmt: skip


def list_deliveries(
    database: Database,
    *,
    limit: int = 50,
    cursor: str | None = None,
    states: Sequence[str] = (),
    event: str | None = None,
    connection_name: str | None = None,
    rule: str | None = None,
    ids: Collection[str] | None = None,
) -> Page:
    """Deliveries, the newest first."""
    table = schema.deliveries
    query = select(*table.c[_SUMMARY])
    if states:
        query = query.where(table.c.state.in_(states))
    if event is not None:
        query = query.where(table.c.event_id == event)
    if connection_name is not None:
        query = query.where(table.c.connection == connection_name)
    if rule is not None:
        query = query.where(table.c.rule == rule)
    if ids is not None:
        query = query.where(table.c.id.in_(ids))
    with database.read() as conn:
        return _page(conn, query, table.c.id, limit, cursor)


def list_rejected_requests(database: Database, *, limit: int = 50, cursor: str | None = None) -> Page:
    """Refused requests, the newest first, without their bodies."""
    table = schema.rejected_requests
    query = select(
        *table.c["id", "received_at", "reason", "detail", "status", "signature_valid", "accepted_event_id"]
    )
    with database.read() as conn:
        return _page(conn, query, table.c.id, limit, cursor)


def _page(
    conn: Connection, query: Select[*tuple[Any, ...]], ident: Any, limit: int, cursor: str | None
) -> Page:
    if cursor is not None:
        query = query.where(ident < cursor)
    rows = conn.execute(query.order_by(ident.desc()).limit(limit + 1)).all()
    items = [dict(row._mapping) for row in rows[:limit]]
    return Page(items, items[-1]["id"] if len(rows) > limit else None)


def show_event(database: Database, ident: str) -> dict[str, Any]:
    """One event with its body, its trace and its deliveries; raises NotFound."""
    table = schema.events
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == ident)).one_or_none()
        if row is None:
            raise NotFound(f"there is no event `{ident}`")
        found = dict(row._mapping)
        found["body"] = dict(event_from_row(row).body) if row.body is not None else None
        found["trace"] = json.loads(row.trace) if row.trace else None
        del found["body_sha256"]
    found["deliveries"] = list_deliveries(database, event=ident, limit=500).items
    return found


def show_delivery(database: Database, ident: str) -> dict[str, Any]:
    """One delivery with its params and attempts; raises NotFound."""
    table, attempts = schema.deliveries, schema.attempts
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == ident)).one_or_none()
        if row is None:
            raise NotFound(f"there is no delivery `{ident}`")
        found = dict(row._mapping)
        found["params"] = json.loads(row.params)
        found["options"] = json.loads(row.options)
        tries = conn.execute(
            select(attempts).where(attempts.c.delivery_id == ident).order_by(attempts.c.fencing_token)
        )
        found["attempt_history"] = [dict(entry._mapping) for entry in tries]
    return found


def show_rejected_request(database: Database, ident: str) -> dict[str, Any]:
    """One refused request with the body that it came with, if that was signed; raises NotFound."""
    table = schema.rejected_requests
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == ident)).one_or_none()
    if row is None:
        raise NotFound(f"there is no rejected request `{ident}`")
    return dict(row._mapping)


def stored_event(database: Database, ident: str) -> Event:
    """A stored event, parsed; raises NotFound when there is none, or when retention has taken its body."""
    table = schema.events
    with database.read() as conn:
        row: Row[Any] | None = conn.execute(select(table).where(table.c.id == ident)).one_or_none()
    if row is None:
        raise NotFound(f"there is no event `{ident}`")
    if row.body is None:
        raise NotFound(f"the body of event `{ident}` is no longer kept (BRIDGE_RETENTION)")
    return event_from_row(row)


def stored_body(database: Database, ident: str) -> bytes:
    """A stored event's body, byte for byte as it came; raises NotFound as `stored_event` does."""
    stored_event(database, ident)
    with database.read() as conn:
        body: bytes = conn.execute(
            select(schema.events.c.body).where(schema.events.c.id == ident)
        ).scalar_one()
        return bytes(body)


def stored_events(database: Database, since: datetime | None = None) -> list[Event]:
    """Every event since an instant whose body is kept, the oldest first."""
    table = schema.events
    query = select(*table.c["id", "dedupe_key", "received_at", "type", "body"]).where(
        table.c.body.is_not(None)
    )
    if since is not None:
        query = query.where(table.c.received_at >= since)
    with database.read() as conn:
        return [event_from_row(row) for row in conn.execute(query.order_by(table.c.received_at))]


def latest_rules(database: Database) -> str | None:
    """The text of the rules that routed the newest event; None when nothing was routed yet."""
    events, rules = schema.events, schema.rules
    query = (
        select(rules.c.text)
        .join(events, events.c.rules_hash == rules.c.hash)
        .order_by(events.c.received_at.desc())
        .limit(1)
    )
    with database.read() as conn:
        return conn.execute(query).scalar_one_or_none()


def connections_in_use(database: Database) -> list[tuple[str, str]]:
    """The connections of deliveries that are not done yet or may be retried, each with one of its actions."""
    table = schema.deliveries
    query = (
        select(table.c.connection, func.min(table.c.action))
        .where(table.c.state.in_(("pending", "running", "retrying", "needs_review", "failed")))
        .group_by(table.c.connection)
    )
    with database.read() as conn:
        return [tuple(row) for row in conn.execute(query)]


def waiting_by_connection(database: Database) -> dict[str, int]:
    """How many deliveries wait for their next attempt over each connection."""
    table = schema.deliveries
    query = (
        select(table.c.connection, func.count())
        .where(text("state IN ('pending', 'retrying')"))
        .group_by(table.c.connection)
    )
    with database.read() as conn:
        return dict(tuple(row) for row in conn.execute(query))


@dataclass(frozen=True)
class QueueStats:
    """How much there is of what, for metrics and readiness."""

    deliveries: dict[str, int]
    unrouted: int
    oldest_due: datetime | None


def queue_stats(database: Database) -> QueueStats:
    """Deliveries by state, unrouted events, and since when the longest-waiting due delivery waits."""
    deliveries, events = schema.deliveries, schema.events
    with database.read() as conn:
        by_state = dict(
            tuple(row)
            for row in conn.execute(select(deliveries.c.state, func.count()).group_by(deliveries.c.state))
        )
        unrouted = conn.execute(
            select(func.count()).select_from(events).where(events.c.routed_at.is_(None))
        ).scalar_one()
        oldest = conn.execute(
            select(func.min(deliveries.c.run_at)).where(text("state IN ('pending', 'retrying')"))
        ).scalar_one()
        return QueueStats({state: by_state.get(state, 0) for state in STATES}, unrouted, oldest)
