"""The context of deliveries for people: whom each is about, the event behind one, and the reviews that wait."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from bridge.events import Event
from bridge.rules.trace import Trace
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.traces import unpack

MAX_REVIEWS: Final = 200
_EVENTS, _DELIVERIES = schema.events.c, schema.deliveries.c


@dataclass(frozen=True)
class EventPerson:
    """Whom an event is about. Everything is None once it was pruned or erased."""

    event_id: str
    name: str | None
    phone: str | None
    email: str | None

    @property
    def address(self) -> str | None:
        """The phone number, or else the email address."""
        return self.phone or self.email


@dataclass(frozen=True)
class EventContext:
    """The event that led to a delivery."""

    id: str
    type: str
    conversation_id: str
    occurred_at: datetime
    received_at: datetime
    person: EventPerson
    trace: Trace | None
    """The evaluation of the delivery's rule; None if it is no longer kept."""


def people_of(database: Database, items: Sequence[Mapping[str, Any]]) -> dict[str, EventPerson]:
    """Return the people of deliveries, by the ID of their event."""
    with database.read() as conn:
        rows = _read_events(conn, {item["event_id"] for item in items if item["event_id"]})
    return {row.id: _person(row, database.default_country) for row in rows}


def alert_texts(database: Database, items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the texts of those deliveries that are alerts to the team, by ID."""
    ids = [item["id"] for item in items if item["trigger"] == "alert"]
    if not ids:
        return {}
    with database.read() as conn:
        rows = conn.execute(select(*schema.deliveries.c["id", "params"]).where(_DELIVERIES.id.in_(ids))).all()
    texts = {row.id: json.loads(row.params).get("text") for row in rows}
    return {delivery_id: text for delivery_id, text in texts.items() if isinstance(text, str)}


def event_context(database: Database, event_id: str, rule: str) -> EventContext | None:
    """Return the event of a delivery with the trace of its rule; None if it is not stored."""
    with database.read() as conn:
        row = conn.execute(select(schema.events).where(_EVENTS.id == event_id)).one_or_none()
    if row is None:
        return None
    trace = next((item for item in unpack(row) or () if item.rule == rule), None)
    return EventContext(
        row.id, row.type, row.conversation_id, row.occurred_at, row.received_at,
        _person(row, database.default_country), trace,
    )  # fmt: skip


def list_reviews(database: Database) -> list[dict[str, Any]]:
    """Return the deliveries that need review with everything that is stored of them, the first to expire first.

    At most `MAX_REVIEWS`. `attempted_at` is when the attempt started whose outcome is unknown.
    """
    attempts = schema.attempts
    started = (
        select(attempts.c.started_at)
        .where(attempts.c.delivery_id == _DELIVERIES.id, attempts.c.kind == "send")
        .order_by(attempts.c.fencing_token.desc())
        .limit(1)
        .scalar_subquery()
        .label("attempted_at")
    )
    query = (
        select(schema.deliveries, started)
        .where(_DELIVERIES.state == "needs_review")
        .order_by(_DELIVERIES.expires_at.is_(None), _DELIVERIES.expires_at, _DELIVERIES.created_at)
        .limit(MAX_REVIEWS)
    )
    with database.read() as conn:
        items = [dict(row._mapping) for row in conn.execute(query)]
    for item in items:
        item["params"], item["options"] = json.loads(item["params"]), json.loads(item["options"])
    return items


def _read_events(conn: Connection, event_ids: set[str]) -> Sequence[Any]:
    columns = schema.events.c[
        "id", "type", "conversation_id", "dedupe_key", "received_at", "phone", "email", "body"
    ]
    return conn.execute(select(*columns).where(_EVENTS.id.in_(event_ids))).all() if event_ids else ()


def _person(row: Any, default_country: str | None) -> EventPerson:
    event: Event = event_from_row(row, default_country)
    return EventPerson(row.id, event.contact.name if row.body is not None else None, row.phone, row.email)
