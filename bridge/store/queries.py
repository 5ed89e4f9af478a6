"""Queries: read events, deliveries, attempts, rejected requests and statistics, for operators and metrics."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select, text

from bridge.errors import BridgeError
from bridge.events import Event
from bridge.lifecycle import DeliveryState, FailureReason, SuppressReason
from bridge.store import schema
from bridge.store.contact_rows import events_of, narrow
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row

STATES = tuple(DeliveryState)
REASONS = (*SuppressReason, *FailureReason)
"""The reasons of deliveries that were suppressed, or whose last attempt failed."""


class NotFound(BridgeError):
    """Nothing is stored under this ID."""


MAX_EVENT_DELIVERIES = 500
"""Deliveries of an event that was replayed many times: the newest."""


@dataclass(frozen=True)
class Page:
    """A page of rows, and the cursor of the next page."""

    items: Sequence[dict[str, Any]]
    next_cursor: str | None


def external_ids_in_use(
    database: Database, connection: str, delivery_id: str, ids: Iterable[str]
) -> set[str]:
    """Return those of these external IDs that belong to other deliveries of the connection."""
    table = schema.deliveries
    with database.read() as conn:
        rows = conn.execute(
            select(table.c.external_id).where(
                table.c.external_id.in_(list(ids)),
                table.c.connection == connection,
                table.c.id != delivery_id,
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
    unreadable: bool = False,
    contact: Collection[str] = (),
) -> Page:
    """List stored events, newest first, each with the names of its fields that could not be read.

    `cursor` is the `next_cursor` of the previous page; `ids` selects events; `unreadable` selects events with such
    fields; `contact` selects by stored phone numbers and email addresses.
    """
    table = schema.events
    query = select(
        *table.c[
            "id", "type", "conversation_id", "phone", "email", "unreadable", "occurred_at", "received_at", "routed_at"
        ]
    )  # fmt: skip
    if unreadable:
        query = query.where(table.c.unreadable.is_not(None))
    if event_type is not None:
        query = query.where(table.c.type == event_type)
    if since is not None:
        query = query.where(table.c.received_at >= since)
    if until is not None:
        query = query.where(table.c.received_at < until)
    if ids is not None:
        query = query.where(table.c.id.in_(ids))
    if contact:
        query = narrow(query, events_of(contact))
    with database.read() as conn:
        page = read_page(conn, query, query.selected_columns.id, limit, cursor)
        counts = _delivery_counts(conn, [item["id"] for item in page.items])
        for item in page.items:
            item["deliveries"] = counts.get(item["id"], {})
            item["unreadable"] = item["unreadable"].split(",") if item["unreadable"] else []
        return page


def _delivery_counts(conn: Connection, event_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of deliveries by event and state."""
    table = schema.deliveries
    counts: dict[str, dict[str, int]] = {}
    for row in conn.execute(
        select(table.c.event_id, table.c.state, func.count().label("total"))
        .where(table.c.event_id.in_(event_ids))
        .group_by(table.c.event_id, table.c.state)
    ):
        counts.setdefault(row.event_id, {})[row.state] = row.total
    return counts


DELIVERY_SUMMARY = (
    "id", "event_id", "parent_id", "trigger", "rule", "action", "connection", "channel", "recipient", "state", "reason",
    "detail", "run_at", "attempts", "external_id", "message_status", "created_at", "finished_at", "expires_at",
    "dismissed_at", "fencing_token",
)  # fmt: skip
"""The columns of a delivery in lists."""


def list_rejected_requests(database: Database, *, limit: int = 50, cursor: str | None = None) -> Page:
    """List rejected requests, newest first, without their bodies."""
    table = schema.rejected_requests
    query = select(
        *table.c["id", "received_at", "reason", "detail", "status", "signature_valid", "accepted_event_id"]
    )
    with database.read() as conn:
        return read_page(conn, query, table.c.id, limit, cursor)


def read_page(
    conn: Connection, query: Select[*tuple[Any, ...]], id_column: Any, limit: int, cursor: str | None
) -> Page:
    """Return the page of a query whose rows come before the ID `cursor`, newest first."""
    if cursor is not None:
        query = query.where(id_column < cursor)
    rows = conn.execute(query.order_by(id_column.desc()).limit(limit + 1)).all()
    items = [dict(row._mapping) for row in rows[:limit]]
    return Page(items, items[-1]["id"] if len(rows) > limit else None)


def show_event(database: Database, event_id: str) -> dict[str, Any]:
    """Return one event with its body, contact, unreadable fields, trace and deliveries; raise NotFound."""
    table = schema.events
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == event_id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no event `{event_id}`")
        event = dict(row._mapping)
        parsed = event_from_row(row, database.default_country)
        event["body"] = dict(parsed.body) if row.body is not None else None
        event["contact"] = asdict(parsed.contact)
        event["unreadable_fields"] = [asdict(item) for item in parsed.unreadable_fields]
        event["trace"] = json.loads(row.trace) if row.trace else None
        del event["body_sha256"], event["unreadable"]
        of_event = select(*schema.deliveries.c[DELIVERY_SUMMARY]).where(schema.deliveries.c.event_id == event_id)
        event["deliveries"] = read_page(conn, of_event, schema.deliveries.c.id, MAX_EVENT_DELIVERIES, None).items
    return event


def show_delivery(database: Database, delivery_id: str) -> dict[str, Any]:
    """Return one delivery with its parameters, attempts and follow-ups; raise NotFound."""
    table, attempts = schema.deliveries, schema.attempts
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == delivery_id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no delivery `{delivery_id}`")
        delivery = dict(row._mapping)
        delivery["params"] = json.loads(row.params)
        delivery["options"] = json.loads(row.options)
        attempt_rows = conn.execute(
            select(attempts).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.fencing_token)
        )
        delivery["attempt_history"] = [dict(attempt._mapping) for attempt in attempt_rows]
        # By the event as well, because that is indexed.
        is_follow_up = (table.c.event_id == row.event_id) & (table.c.parent_id == delivery_id)
        follow_ups = select(*table.c["id", "trigger", "action", "created_at"]).where(is_follow_up)
        delivery["follow_ups"] = [
            dict(item._mapping) for item in conn.execute(follow_ups.order_by(table.c.created_at, table.c.id))
        ]
    return delivery


def show_rejected_request(database: Database, request_id: str) -> dict[str, Any]:
    """Return one rejected request, with its body if the signature is valid; raise NotFound."""
    table = schema.rejected_requests
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == request_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no rejected request `{request_id}`")
    return dict(row._mapping)


def stored_event(database: Database, event_id: str) -> Event:
    """Return a stored event; raise NotFound if it does not exist or its body is no longer kept."""
    table = schema.events
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == event_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no event `{event_id}`")
    if row.body is None:
        raise NotFound(f"the body of event `{event_id}` is no longer kept (BRIDGE_RETENTION)")
    return event_from_row(row, database.default_country)


def stored_body(database: Database, event_id: str) -> bytes:
    """Return the body of a stored event exactly as received; raise NotFound as `stored_event` does."""
    stored_event(database, event_id)
    with database.read() as conn:
        body: bytes = conn.execute(
            select(schema.events.c.body).where(schema.events.c.id == event_id)
        ).scalar_one()
        return bytes(body)


def stored_events(database: Database, since: datetime | None = None) -> list[Event]:
    """Return the events since an instant whose bodies are kept, oldest first."""
    table = schema.events
    query = select(*table.c["id", "dedupe_key", "received_at", "type", "body"]).where(
        table.c.body.is_not(None)
    )
    if since is not None:
        query = query.where(table.c.received_at >= since)
    with database.read() as conn:
        return [
            event_from_row(row, database.default_country)
            for row in conn.execute(query.order_by(table.c.received_at))
        ]


def latest_rules(database: Database) -> str | None:
    """Return the text of the rules that routed the newest event; None if no event has been routed."""
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
    """Return the connections of deliveries that are unfinished or may be retried, each with one of its actions."""
    table = schema.deliveries
    query = (
        select(table.c.connection, func.min(table.c.action))
        .where(table.c.state.in_(("pending", "running", "retrying", "needs_review", "failed")))
        .group_by(table.c.connection)
    )
    with database.read() as conn:
        return [tuple(row) for row in conn.execute(query)]


def waiting_by_connection(database: Database) -> dict[str, int]:
    """Return the number of deliveries that wait for their next attempt, by connection."""
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
    """Statistics of the queue, for metrics and readiness."""

    deliveries: dict[str, int]
    unrouted: int
    oldest_due: datetime | None


def count_reviews(database: Database, limit: int) -> int:
    """Return the number of deliveries that need review; `limit + 1` if there are more than `limit`."""
    table = schema.deliveries
    rows = select(table.c.id).where(table.c.state == DeliveryState.NEEDS_REVIEW).limit(limit + 1).subquery()
    with database.read() as conn:
        count: int = conn.execute(select(func.count()).select_from(rows)).scalar_one()
        return count


def queue_stats(database: Database) -> QueueStats:
    """Return deliveries by state, the number of unrouted events, and when the oldest pending delivery was due."""
    deliveries, events = schema.deliveries, schema.events
    with database.read() as conn:
        by_state = dict(
            tuple(row)
            for row in conn.execute(select(deliveries.c.state, func.count()).group_by(deliveries.c.state))
        )
        unrouted = conn.execute(
            select(func.count()).select_from(events).where(events.c.routed_at.is_(None))
        ).scalar_one()
        oldest_due = conn.execute(
            select(func.min(deliveries.c.run_at)).where(text("state IN ('pending', 'retrying')"))
        ).scalar_one()
        return QueueStats({state: by_state.get(state, 0) for state in DeliveryState}, unrouted, oldest_due)
