"""Queries: read events, deliveries, attempts, rejected requests and statistics, for operators and metrics."""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, Select, exists, func, literal, or_, select, tuple_

from bridge.contacts.parse import contact_name
from bridge.errors import BridgeError
from bridge.events import Event, StoredEvent
from bridge.ids import time_of_id
from bridge.lifecycle import DeliveryState, FailureReason, SuppressReason
from bridge.store import schema
from bridge.store.contact_rows import events_of, narrow
from bridge.store.database import Database
from bridge.store.event_rows import EVENT_COLUMNS, event_from_row
from bridge.store.traces import TraceReader
from bridge.store.unindexed import unindexed
from bridge.store.waiting import oldest_waiting

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


EXAMINED_EVENTS: Final = 5_000
"""Events that a page with a filter without an index reads at most; `next_cursor` then leads to those before them."""
MAX_COUNTED: Final = 10_000
"""Rows that are counted at most."""
_EVENTS, _DELIVERIES = schema.events, schema.deliveries
_EVENTS_PER_READ: Final = 100
"""Rows of one query of `stored_events`; a body may have 1 MB."""
_EVENT_SUMMARY = _EVENTS.c[
    "id", "type", "conversation_id", "phone", "email", "unreadable", "duplicates", "occurred_at", "received_at",
    "routed_at", "dedupe_key", "body",
]  # fmt: skip


class EventCriteria(TypedDict, total=False):
    """Which events are wanted: those that meet every criterion. Without any, all."""

    event_type: str | None
    since: datetime | None
    until: datetime | None
    """Received before this instant, and at `since` or later."""
    ids: Collection[str] | None
    unreadable: bool
    """Only events with fields that could not be read."""
    not_routed: bool
    """Only events that wait for the router."""
    without_deliveries: bool
    """Only routed events for which no rule fired."""
    contact: Collection[str]
    person: str | None
    """ID of an event about the same person; `contact` has stored phone numbers and email addresses."""
    conversation: str | None


def list_events(
    database: Database, *, limit: int = 50, cursor: str | None = None, **criteria: Unpack[EventCriteria]
) -> Page:
    """List stored events, newest first, each with the contact's name and the fields that could not be read.

    `cursor` is the `next_cursor` of the previous page; a page that is not full may have one as well.
    """
    with database.read() as conn:
        page = page_of_events(conn, _EVENT_SUMMARY, limit, cursor, criteria)
        counts = _delivery_counts(conn, [item["id"] for item in page.items])
        for item in page.items:
            item["name"] = _contact_name(item)
            item["deliveries"] = counts.get(item["id"], {})
            item["unreadable"] = item["unreadable"].split(",") if item["unreadable"] else []
            del item["body"], item["dedupe_key"]
        return page


def page_of_events(
    conn: Connection,
    columns: Iterable[ColumnElement[Any]],
    limit: int,
    cursor: str | None,
    criteria: EventCriteria,
) -> Page:
    """Return these columns, with `id` and `received_at`, of a page of events. Raise NotFound if `person` is unknown."""
    query, rest = select(*columns), list[ColumnElement[bool]]()
    since, until = criteria.get("since"), criteria.get("until")
    ids, conversation = criteria.get("ids"), criteria.get("conversation")
    if since is not None:
        query = query.where(_EVENTS.c.received_at >= since)
    if until is not None:
        query = query.where(_EVENTS.c.received_at < until)
    if criteria.get("not_routed"):
        query = query.where(_EVENTS.c.routed_at.is_(None))
    if criteria.get("unreadable"):
        query = query.where(_EVENTS.c.unreadable.is_not(None))
    if ids is not None:
        query = query.where(_EVENTS.c.id.in_(ids))
    if conversation is not None:
        query = query.where(_EVENTS.c.conversation_id == conversation)
    event_type = criteria.get("event_type")
    if criteria.get("without_deliveries"):
        has_deliveries = exists().where(schema.deliveries.c.event_id == _EVENTS.c.id)
        rest += [_EVENTS.c.routed_at.is_not(None), ~has_deliveries]
    contact = criteria.get("contact", ())
    if (person := criteria.get("person")) is not None:
        contact = addresses_of_event(conn, person)
    if contact:
        narrowed = narrow(query.where(*rest, *_has_type(event_type)), events_of(contact))
        return read_page(conn, narrowed, narrowed.selected_columns.id, limit, cursor)
    if criteria.get("unreadable") or ids is not None or conversation is not None:
        return read_page(conn, query.where(*rest, *_has_type(event_type)), _EVENTS.c.id, limit, cursor)
    if event_type is None or rest or criteria.get("not_routed"):
        return _read_received(conn, query, [*rest, *_has_type(event_type)], limit, cursor)
    # Routed events have an index by type. The few that wait are read as they came.
    routed = query.where(_EVENTS.c.type == event_type, _EVENTS.c.routed_at.is_not(None))
    waiting = query.where(*_has_type(event_type), _EVENTS.c.routed_at.is_(None))
    pages = [_read_received(conn, part, (), limit, cursor) for part in (routed, waiting)]
    items = sorted(
        (item for page in pages for item in page.items),
        key=lambda item: (item["received_at"], item["id"]),
        reverse=True,
    )
    is_more = len(items) > limit or any(page.next_cursor for page in pages)
    return Page(items[:limit], items[limit - 1]["id"] if is_more else None)


def _has_type(event_type: str | None) -> list[ColumnElement[bool]]:
    return [] if event_type is None else [unindexed(_EVENTS.c.type) == event_type]


def _read_received(
    conn: Connection,
    query: Select[*tuple[Any, ...]],
    rest: Sequence[ColumnElement[bool]],
    limit: int,
    cursor: str | None,
) -> Page:
    """Return a page of the newest events: the rows that meet `rest` among the next `EXAMINED_EVENTS`."""
    received_at, event_id = _EVENTS.c.received_at, _EVENTS.c.id
    if cursor is not None:
        position = conn.execute(select(received_at).where(event_id == cursor)).scalar_one_or_none()
        position = position or time_of_id(cursor)
        query = query.where(received_at <= position, or_(received_at < position, event_id < cursor))
    horizon = None
    if rest:
        # The row behind the last one that is examined.
        ordered = query.with_only_columns(event_id, received_at).order_by(received_at.desc(), event_id.desc())
        horizon = conn.execute(ordered.offset(EXAMINED_EVENTS).limit(1)).one_or_none()
        if horizon is not None:
            query = query.where(received_at >= horizon.received_at)
        query = query.where(*rest)
    rows = conn.execute(query.order_by(received_at.desc(), event_id.desc()).limit(limit + 1)).all()
    items = [dict(row._mapping) for row in rows[:limit]]
    if len(rows) > limit:
        return Page(items, items[-1]["id"])
    return Page(items, None if horizon is None else horizon.id)


def _contact_name(item: Mapping[str, Any]) -> str | None:
    """Return the name of an event's contact. None once the body was pruned or erased."""
    if item["body"] is None:
        return None
    event = StoredEvent(item["body"], item["type"], item["dedupe_key"], item["received_at"], item["id"])
    return contact_name(event.fields)


def addresses_of_event(conn: Connection, event_id: str) -> list[str]:
    """Return the addresses of the person of an event. Raise NotFound if there are none."""
    query = select(*_EVENTS.c["phone", "email"]).where(_EVENTS.c.id == event_id)
    addresses = [address for address in conn.execute(query).one_or_none() or () if address]
    if not addresses:
        raise NotFound(f"no contact is stored for the event `{event_id[:80]}`")
    return addresses


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
        event["trace"] = TraceReader(conn).records(row)
        event["dropped_fields"] = row.dropped_fields.split(",") if row.dropped_fields else []
        for name in ("packed_trace", "body_sha256", "unreadable", "contact_name", "contact_sort_name"):
            del event[name]
        of_event = select(*schema.deliveries.c[DELIVERY_SUMMARY]).where(
            schema.deliveries.c.event_id == event_id
        )
        event["deliveries"] = read_page(
            conn, of_event, schema.deliveries.c.id, MAX_EVENT_DELIVERIES, None
        ).items
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


def stored_events(database: Database, since: datetime | None, until: datetime) -> Iterator[Event]:
    """Read the events received in a period whose bodies are kept, oldest first, a batch at a time.

    Those that are not routed because another event is about the same call are left out.
    """
    table = schema.events
    query = (
        select(*table.c[EVENT_COLUMNS])
        .where(*_kept_between(since, until))
        .order_by(table.c.received_at, table.c.id)
        .limit(_EVENTS_PER_READ)
    )
    rest = query
    while True:
        with database.read() as conn:
            rows = conn.execute(rest).all()
        for row in rows:
            yield event_from_row(row, database.default_country)
        if len(rows) < _EVENTS_PER_READ:
            return
        last = tuple_(literal(rows[-1].received_at, table.c.received_at.type), literal(rows[-1].id))
        rest = query.where(tuple_(table.c.received_at, table.c.id) > last)


def count_stored_events(database: Database, since: datetime | None, until: datetime) -> int:
    """Count what `stored_events` reads."""
    query = select(func.count()).select_from(schema.events).where(*_kept_between(since, until))
    with database.read() as conn:
        return conn.execute(query).scalar_one()


def _kept_between(since: datetime | None, until: datetime) -> Sequence[ColumnElement[bool]]:
    conditions = [
        _EVENTS.c.body.is_not(None),
        _EVENTS.c.duplicate_of.is_(None),
        _EVENTS.c.received_at < until,
    ]
    return conditions if since is None else [*conditions, _EVENTS.c.received_at >= since]


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


def other_connections_in_use(database: Database, known: Container[str]) -> list[tuple[str, str]]:
    """Return the connections of deliveries that are unfinished or may be retried, each with one of its actions.

    Those in `known` are left out, so nothing but an index is read as long as no connection was removed.
    """
    table = schema.deliveries.c
    in_use = []
    with database.read() as conn:
        for name in _connections(conn):
            if name in known:
                continue
            is_open = table.state.in_(("pending", "running", "retrying", "needs_review", "failed"))
            query = select(table.action).where(is_open, unindexed(table.connection) == name).limit(1)
            if (action := conn.execute(query).scalar_one_or_none()) is not None:
                in_use.append((name, action))
    return in_use


def _connections(conn: Connection) -> Iterator[str]:
    """Yield the connections of all deliveries, each found by one index lookup after the one before."""
    connection, name = schema.deliveries.c.connection, ""
    query = select(func.min(connection))
    while (found := conn.execute(query.where(connection > name)).scalar_one()) is not None:
        yield (name := found)


@dataclass(frozen=True)
class QueueStats:
    """Statistics of the queue. Each number is at most `MAX_COUNTED`, so that they cost the same in any database."""

    deliveries: dict[str, int]
    unrouted: int
    oldest_due: datetime | None


def count_reviews(database: Database, limit: int) -> int:
    """Return the number of deliveries that need review; `limit + 1` if there are more than `limit`."""
    with database.read() as conn:
        return _count_up_to(conn, _DELIVERIES.c.state == DeliveryState.NEEDS_REVIEW, limit + 1)


def queue_stats(database: Database) -> QueueStats:
    """Return deliveries by state, the number of unrouted events, and when the oldest waiting delivery is due."""
    with database.read() as conn:
        return QueueStats(
            {state: _count_up_to(conn, _DELIVERIES.c.state == state, MAX_COUNTED) for state in DeliveryState},
            _count_up_to(conn, _EVENTS.c.routed_at.is_(None), MAX_COUNTED),
            oldest_waiting(conn),
        )


def _count_up_to(conn: Connection, condition: ColumnElement[bool], limit: int) -> int:
    """Count the rows that meet a condition to which an index leads; `limit` if there are more."""
    found = select(literal(1).label("one")).where(condition).limit(limit).subquery()
    count: int = conn.execute(select(func.count()).select_from(found)).scalar_one()
    return count
