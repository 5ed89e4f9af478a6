"""Removing bodies and personal data of finished work; keys of events and effects stay for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, delete, exists, or_, select, text, tuple_, update

from bridge.rules.model import Rules
from bridge.store import schema
from bridge.store.database import Database

BATCH = 1000
"""Rows that one transaction takes on, so that pruning never holds others up for long."""
ERASED = '{"erased":true}'


@dataclass(frozen=True)
class PruneResult:
    """What was removed."""

    events: int
    deliveries: int
    rejected_requests: int
    cached_contacts: int

    def __add__(self, other: PruneResult) -> PruneResult:
        return PruneResult(
            self.events + other.events,
            self.deliveries + other.deliveries,
            self.rejected_requests + other.rejected_requests,
            self.cached_contacts + other.cached_contacts,
        )


EMPTY = PruneResult(0, 0, 0, 0)


def prune(database: Database, retention: timedelta, rules: Rules) -> PruneResult:
    """Prune portion by portion, until nothing is left."""
    pruned = EMPTY
    while (portion := prune_batch(database, retention, rules)) != EMPTY:
        pruned += portion
    return pruned


def prune_batch(database: Database, retention: timedelta, rules: Rules) -> PruneResult:
    """Empty up to `BATCH` of each kind that are older than `retention` and finished; `NOTHING` when none was left.

    What is unfinished or waits for a person is not touched, and whom a message reached stays for as long as a cap or a
    `once` of these rules counts it. What is old is looked for without holding writers up, for that grows with all that
    ever was.
    """
    deliveries = _prune_deliveries(database, retention, rules)
    return PruneResult(
        _prune_events(database, retention),
        deliveries,
        _remove_rejected_requests(database, retention),
        _remove_cached_contacts(database),
    )


def _prune_events(database: Database, retention: timedelta) -> int:
    events, deliveries = schema.events, schema.deliveries
    # A delivery that keeps its params may still be retried, and is nothing without its event.
    needed = (
        exists()
        .where(deliveries.c.event_id == events.c.id)
        .where(
            or_(
                text("deliveries.state IN ('pending', 'running', 'retrying', 'needs_review')"),
                deliveries.c.params != ERASED,
            )
        )
    )
    with database.read() as conn:
        before = database.now(conn) - retention
        old = conn.execute(
            select(events.c.id)
            .where(events.c.received_at < before, events.c.body.is_not(None), events.c.routed_at.is_not(None))
            .where(~needed)
            .limit(BATCH)
        ).scalars()
        idents = list(old)
    if not idents:
        return 0
    with database.write() as conn:
        # Locked and asked again: a person may have replayed one since.
        conn.execute(
            select(events.c.id).where(events.c.id.in_(idents)).order_by(events.c.id).with_for_update()
        )
        changed = conn.execute(
            update(events)
            .where(events.c.id.in_(idents), ~needed)
            .values(body=None, phone=None, email=None, trace=None)
        )
        return changed.rowcount


def _prune_deliveries(database: Database, retention: timedelta, rules: Rules) -> int:
    table = schema.deliveries
    finished = text("deliveries.state IN ('succeeded', 'failed', 'cancelled', 'suppressed')")
    caps, once = retention_windows(rules)
    with database.read() as conn:
        now = database.now(conn)
        capped, done_once = table.c.possibly_sent_at > now - caps, table.c.possibly_sent_at > now - once
        idents = list(
            conn.execute(
                select(table.c.id)
                .where(finished, table.c.finished_at < now - retention)
                .where(
                    or_(
                        table.c.params != ERASED,
                        _forgettable(table.c.recipient, capped),
                        _forgettable(table.c.contact, done_once),
                    )
                )
                .limit(BATCH)
            ).scalars()
        )
    if not idents:
        return 0
    with database.write() as conn:
        # Asked again: a person may have had one retried since.
        changed = conn.execute(
            update(table)
            .where(table.c.id.in_(idents), finished)
            .values(
                params=ERASED,
                recipient=case((capped, table.c.recipient)),
                contact=case((done_once, table.c.contact)),
                concurrency_key=None,
                detail=None,
            )
        )
        return changed.rowcount


def _remove_rejected_requests(database: Database, retention: timedelta) -> int:
    table = schema.rejected_requests
    with database.write() as conn:
        old = select(table.c.id).where(table.c.received_at < database.now(conn) - retention)
        return conn.execute(delete(table).where(table.c.id.in_(old.limit(BATCH)))).rowcount


def _remove_cached_contacts(database: Database) -> int:
    table = schema.contact_cache
    key = table.c.connection, table.c.lookup_key
    with database.write() as conn:
        old = select(*key).where(table.c.expires_at < database.now(conn))
        return conn.execute(delete(table).where(tuple_(*key).in_(old.limit(BATCH)))).rowcount


def retention_windows(rules: Rules) -> tuple[timedelta, timedelta]:
    """For how long these rules count a message to a recipient (`caps`), and a delivery about a contact (`once`)."""
    steps = [step for rule in rules.rules for step in (*rule.do, *rule.on_failure)] + [*rules.alerts]
    caps = (cap.per for cap in rules.messaging.caps.values())
    once = (step.once.within for step in steps if step.once and step.once.per == "contact")
    return max(caps, default=timedelta(0)), max(once, default=timedelta(0))


def _forgettable(column: ColumnElement[str], counted: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether it is there and not counted any more; what reached nobody never was."""
    return and_(column.is_not(None), or_(schema.deliveries.c.possibly_sent_at.is_(None), ~counted))
