"""Possible duplicates: pairs of CRM records that an event's email and phone led to, for an operator to merge."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from bridge.ids import new_id
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.queries import NotFound, Page, read_page

_TABLE = schema.possible_duplicates


def save_possible_duplicate(
    database: Database, connection: str, delivery_id: str, record: str, other: str
) -> None:
    """List two records as a possible duplicate, once per pair and connection. A dismissed pair stays dismissed."""
    if record == other:
        return
    first, second = sorted((record, other))
    with database.write() as conn:
        now = database.now(conn)
        statement = database.insert(_TABLE).values(
            id=new_id("dup"),
            connection=connection,
            first_record=first,
            second_record=second,
            delivery_id=delivery_id,
            found_at=now,
            last_seen_at=now,
        )
        conn.execute(
            statement.on_conflict_do_update(
                index_elements=["connection", "first_record", "second_record"],
                set_={"last_seen_at": statement.excluded.last_seen_at},
            )
        )


def list_possible_duplicates(
    database: Database, *, connection: str | None = None, limit: int = 50, cursor: str | None = None
) -> Page:
    """List the pairs that were not dismissed, newest first: their connection, both records and the delivery."""
    query = select(
        *_TABLE.c[
            "id", "connection", "first_record", "second_record", "delivery_id", "found_at", "last_seen_at"
        ]
    ).where(_TABLE.c.dismissed_at.is_(None))
    if connection is not None:
        query = query.where(_TABLE.c.connection == connection)
    with database.read() as conn:
        return read_page(conn, query, _TABLE.c.id, limit, cursor)


def dismiss_possible_duplicate(database: Database, actor: str, pair_id: str) -> None:
    """Remove a pair from the list: the records were merged, or are two people. Raise NotFound."""
    with database.write() as conn:
        now = database.now(conn)
        if not _dismiss(conn, pair_id, now):
            raise NotFound(f"there is no possible duplicate `{pair_id}`, or it was dismissed already")
        record_audit(conn, now, actor, "dismiss_duplicate", [pair_id])


def _dismiss(conn: Connection, pair_id: str, now: datetime) -> bool:
    statement = update(_TABLE).where(_TABLE.c.id == pair_id, _TABLE.c.dismissed_at.is_(None))
    return conn.execute(statement.values(dismissed_at=now)).rowcount > 0
