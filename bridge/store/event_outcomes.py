"""What was done for events: their deliveries by action and result, for lists of events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.deliveries.c


@dataclass(frozen=True)
class EventOutcome:
    """Deliveries of one event with the same action and result."""

    action: str
    connection: str
    state: str
    reason: str | None
    message_status: str | None
    total: int


def outcomes_by_event(database: Database, event_ids: Sequence[str]) -> Mapping[str, Sequence[EventOutcome]]:
    """Return what was done for each of these events, by event ID; events without deliveries are left out."""
    columns = (_TABLE.action, _TABLE.connection, _TABLE.state, _TABLE.reason, _TABLE.message_status)
    query = (
        select(_TABLE.event_id, *columns, func.count().label("total"))
        .where(_TABLE.event_id.in_(event_ids))
        .group_by(_TABLE.event_id, *columns)
        .order_by(func.min(_TABLE.id))
    )
    found: defaultdict[str, list[EventOutcome]] = defaultdict(list)
    with database.read() as conn:
        for event_id, *values in conn.execute(query):
            found[event_id].append(EventOutcome(*values))
    return found
