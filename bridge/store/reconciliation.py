"""Reconciliation: recognizes events that are about the same call, of which one was fed in by `bridge heppu reconcile`.

Heppu's API does not say which conversation a call belongs to, so the event that is made from a call has another ID than
the webhook about it, which may still come. Both are stored; the router evaluates the rules for one of them only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, or_, select, text, update

from bridge.events import CALL_EVENTS, Event
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row

WINDOW: Final = timedelta(minutes=5)
"""How far the times of two events about the same call may differ, if neither has the ID of the other."""
COMPARED_FOR: Final = timedelta(days=7)
"""How long after a reconciliation late webhooks are compared with its events."""
MAX_COMPARED: Final = 1000
"""Reconciled events that one batch is compared with."""
MAX_STORED: Final = 100_000
"""Stored events that calls are compared with."""
_READ_AT_A_TIME: Final = 100
"""Large bodies take milliseconds each, in which a transaction on PostgreSQL is idle: it may be so for 5 seconds."""
_TABLE = schema.events
_IS_RECONCILED = text("events.reconciled")
"""Literal, so that the partial index with this condition is used."""
_COLUMNS = (*_TABLE.c["id", "dedupe_key", "received_at", "type", "conversation_id", "body", "routed_at"],)
_RECENT = (
    select(_TABLE.c.id, _TABLE.c.phone)
    .where(_IS_RECONCILED, _TABLE.c.received_at >= bindparam("since"), _TABLE.c.duplicate_of.is_(None))
    .order_by(_TABLE.c.received_at.desc())
    .limit(MAX_COMPARED)
)
"""The reconciled events, built once, because every batch of the router uses it."""


@dataclass(frozen=True)
class CallIdentity:
    """What tells one call from another."""

    event_type: str
    conversation_id: str
    sid: str | None
    """Twilio's ID of the call; calls that nobody answered often have none."""
    agent_id: str | None
    phone: str | None
    occurred_at: datetime

    @classmethod
    def of(cls, event: Event) -> CallIdentity:
        """Return the identity of the call that an event is about."""
        sid, agent_id = (event.fields.get(name) for name in ("twilioCallSid", "agentId"))
        return cls(
            event.type,
            event.conversation.id,
            sid if isinstance(sid, str) else None,
            agent_id if isinstance(agent_id, str) else None,
            event.contact.phone,
            event.occurred_at,
        )

    def may_be(self, other: CallIdentity, window: timedelta = WINDOW) -> bool:
        """Return whether both are about the same call: by ID, or else by agent, phone number and time."""
        if self.event_type != other.event_type:
            return False
        if self.conversation_id == other.conversation_id:
            return True
        if self.sid is not None and other.sid is not None:
            return self.sid == other.sid
        return (
            self.phone is not None
            and self.phone == other.phone
            and (None in (self.agent_id, other.agent_id) or self.agent_id == other.agent_id)
            and abs(self.occurred_at - other.occurred_at) <= window
        )


def nearest(call: CallIdentity, others: Iterable[tuple[str, CallIdentity]]) -> str | None:
    """Return the ID of the event among `others` that is about the same call, the nearest in time if there are more."""
    matching = [
        (abs(call.occurred_at - other.occurred_at), event_id)
        for event_id, other in others
        if call.may_be(other)
    ]
    return min(matching)[1] if matching else None


def stored_calls(database: Database, since: datetime) -> list[CallIdentity]:
    """Return the identities of the calls that events since an instant are about; at most MAX_STORED, newest first."""
    query = (
        select(*_COLUMNS)
        .where(_TABLE.c.received_at >= since, _TABLE.c.type.in_(CALL_EVENTS))
        .order_by(_TABLE.c.received_at.desc())
        .limit(MAX_STORED)
    )
    with database.read() as conn:
        rows = conn.execution_options(yield_per=_READ_AT_A_TIME).execute(query)
        return [CallIdentity.of(event_from_row(row, database.default_country)) for row in rows]


def find_duplicate_calls(
    database: Database, conn: Connection, events: Mapping[str, Event], now: datetime
) -> dict[str, str]:
    """Return which of these unrouted events not to route: ID -> the event about the same call that is routed.

    Without reconciled events, as nearly always, this is one query that finds nothing.
    """
    calls = {event_id: event for event_id, event in events.items() if event.type in CALL_EVENTS}
    if not calls:
        return {}
    reconciled = _reconciled(database, conn, calls.values(), now)
    if not reconciled:
        return {}
    identities = {event_id: CallIdentity.of(event) for event_id, event in calls.items()}
    duplicates: dict[str, str] = {}
    taken = _taken(conn, reconciled)
    for event_id in calls.keys() - reconciled.keys():
        free = [(other, identity) for other, (identity, _) in reconciled.items() if other not in taken]
        other = nearest(identities[event_id], free)
        if other is None:
            continue
        taken.add(other)
        if other in calls:
            duplicates[other] = event_id
        elif reconciled[other][1] or not _take_over(conn, other, event_id, now):
            duplicates[event_id] = other
    for event_id in (calls.keys() & reconciled.keys()) - duplicates.keys() - taken:
        original = _original(database, conn, calls[event_id], identities[event_id])
        if original is not None:
            duplicates[event_id] = original
    return duplicates


def _reconciled(
    database: Database, conn: Connection, calls: Iterable[Event], now: datetime
) -> dict[str, tuple[CallIdentity, bool]]:
    """Return the reconciled events that these may be about, each with whether it has been routed."""
    phones = {call.contact.phone for call in calls} | {None}
    recent = conn.execute(_RECENT, {"since": now - COMPARED_FOR})
    candidates = [row.id for row in recent if row.phone in phones]
    if not candidates:
        return {}
    query = select(*_COLUMNS).where(_TABLE.c.id.in_(candidates))
    return {
        row.id: (CallIdentity.of(event_from_row(row, database.default_country)), row.routed_at is not None)
        for row in conn.execute(query)
    }


def _taken(conn: Connection, event_ids: Iterable[str]) -> set[str]:
    """Return those of these events that already have a duplicate: each stands for one call."""
    query = select(_TABLE.c.duplicate_of).where(_TABLE.c.duplicate_of.in_(list(event_ids)))
    return set(conn.execute(query).scalars())


def _take_over(conn: Connection, reconciled_id: str, event_id: str, now: datetime) -> bool:
    """Mark an unrouted reconciled event as the duplicate of the webhook. Return False if it is routed by now."""
    change = (
        update(_TABLE)
        .where(_TABLE.c.id == reconciled_id, _TABLE.c.routed_at.is_(None))
        .values(routed_at=now, trace="[]", duplicate_of=event_id)
    )
    return conn.execute(change).rowcount == 1


def _original(database: Database, conn: Connection, event: Event, identity: CallIdentity) -> str | None:
    """Return the webhook about the same call that came before the reconciled event."""
    phone = event.contact.phone
    same = _TABLE.c.conversation_id == identity.conversation_id
    if phone is not None:
        same = or_(same, _TABLE.c.phone == phone)
    query = (
        select(*_COLUMNS)
        .where(same, _TABLE.c.type == event.type, _TABLE.c.id != event.id, _TABLE.c.duplicate_of.is_(None))
        .where(text("NOT events.reconciled"))
        .limit(MAX_COMPARED)
    )
    rows = conn.execute(query).all()
    taken = _taken(conn, [row.id for row in rows])
    found = [
        (row.id, CallIdentity.of(event_from_row(row, database.default_country)))
        for row in rows
        if row.id not in taken
    ]
    return nearest(identity, found)
