"""Work that waits: cheap questions of an idle worker, which it asks every few seconds in case it missed something.

Without them, every connection would need a claim, which is several statements in a write transaction, and every look
for expired leases a long statement.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, or_, select, text

from bridge.rules.late import DETAILS_CONNECTION
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.waiting import IS_WAITING

_CONNECTIONS, _DELIVERIES = schema.connections, schema.deliveries
_QUERIES, _DETAILS = schema.opt_out_queries, schema.conversation_details
_UNTIL: Final = bindparam("until", type_=schema.Instant)
_HAS_WORK: Final = or_(
    _CONNECTIONS.c.pause_cause.is_not(None),  # a claim ends the pause
    select(1)
    .where(_DELIVERIES.c.connection == _CONNECTIONS.c.name, IS_WAITING, _DELIVERIES.c.run_at <= _UNTIL)
    .exists(),
    select(1).where(_QUERIES.c.connection == _CONNECTIONS.c.name, _QUERIES.c.run_at <= _UNTIL).exists(),
    (_CONNECTIONS.c.name == DETAILS_CONNECTION) & select(1).where(_DETAILS.c.run_at <= _UNTIL).exists(),
)
_WITHOUT_WORK: Final = select(_CONNECTIONS.c.name).where(~_HAS_WORK)


def with_work(database: Database, connections: Collection[str], within: timedelta) -> set[str]:
    """Return those of the connections for which something is due within this time, or that have a pause to end."""
    with database.read() as conn:
        until = database.now(conn) + within
        return set(connections) - set(conn.execute(_WITHOUT_WORK, {"until": until}).scalars())


_RUNNING: Final = select(1).where(text("deliveries.state = 'running'")).select_from(_DELIVERIES).limit(1)


def is_any_running(database: Database) -> tuple[bool, datetime]:
    """Return whether an attempt of any worker is running, so that its lease may have expired, and the current time."""
    with database.read() as conn:
        return conn.execute(_RUNNING).first() is not None, database.now(conn)
