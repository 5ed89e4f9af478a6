"""The newest events of a period with their bodies, for a plan that a person waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select

from bridge.events import Event
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row

MAX_COUNT: Final = 100_000
"""The number of events in the period is counted up to this."""
_READ_AT_A_TIME: Final = 20
"""Few, because bodies are only known to be large once they are decompressed."""


@dataclass(frozen=True)
class NewestEvents:
    """The newest events of a period whose bodies are kept."""

    events: list[Event]
    """The oldest first."""
    total: int
    """All events of the period, also those without a body; at most MAX_COUNT."""

    @property
    def is_capped(self) -> bool:
        """True if there are more than `total`."""
        return self.total >= MAX_COUNT


def newest_events(database: Database, since: datetime, *, limit: int, max_bytes: int) -> NewestEvents:
    """Return the newest events since an instant: at most `limit`, with bodies of `max_bytes` together.

    Those that are not routed because another event is about the same call are left out.
    """
    table = schema.events
    in_period = (table.c.received_at >= since, table.c.duplicate_of.is_(None))
    numbered = select(table.c.id).where(*in_period).limit(MAX_COUNT).subquery()
    rows = (
        select(*table.c["id", "dedupe_key", "received_at", "type", "conversation_id", "body"])
        .where(*in_period, table.c.body.is_not(None))
        .order_by(table.c.received_at.desc())
        .limit(limit)
        .execution_options(yield_per=_READ_AT_A_TIME)
    )
    events, used = list[Event](), 0
    with database.read() as conn:
        total = conn.execute(select(func.count()).select_from(numbered)).scalar_one()
        with conn.execute(rows) as result:
            for row in result:
                used += len(row.body)
                if used > max_bytes:
                    break
                events.append(event_from_row(row, database.default_country))
    return NewestEvents(events[::-1], total)
