"""Retention: deletes bodies and personal data of finished work; event and idempotency keys are kept permanently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, delete, exists, or_, select, text, tuple_, update

from bridge.rules.model import Rules
from bridge.store import schema
from bridge.store.action_steps import delete_steps
from bridge.store.database import Database
from bridge.store.details import remove_old_details
from bridge.store.undeliverable import remove_expired_entries

BATCH = 1000
"""Rows per transaction, so that pruning never delays other work for long."""
ERASED = '{"erased":true}'
"""The `params` of a delivery that was pruned or erased."""


NO_PERSONAL_DATA: Final[Mapping[str, Any]] = dict.fromkeys(
    ("body", "phone", "email", "contact_name", "contact_sort_name", "trace", "packed_trace")
)
"""The columns of an event that was pruned or erased."""


@dataclass(frozen=True)
class PruneResult:
    """The number of pruned rows."""

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
    """Prune batch by batch until nothing is left to prune."""
    pruned = EMPTY
    while (batch := prune_batch(database, retention, rules)) != EMPTY:
        pruned += batch
    return pruned


def prune_batch(database: Database, retention: timedelta, rules: Rules) -> PruneResult:
    """Prune up to `BATCH` finished rows of each kind that are older than `retention`; return `EMPTY` if none is left.

    Unfinished deliveries and those that need review are kept. Recipients and contacts are kept for as long as a cap or
    `once` of these rules counts them. Old rows are selected before the write transaction, because that takes longer
    the larger the database is.
    """
    remove_expired_entries(database)
    deliveries = _prune_deliveries(database, retention, rules)
    _remove_possible_duplicates(database, retention)
    remove_old_details(database, retention, BATCH)
    return PruneResult(
        _prune_events(database, retention),
        deliveries,
        _remove_rejected_requests(database, retention),
        _remove_cached_contacts(database),
    )


def _prune_events(database: Database, retention: timedelta) -> int:
    events, deliveries = schema.events, schema.deliveries
    # A delivery whose parameters are kept may still be retried, and then needs its event.
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
        rows = conn.execute(
            select(events.c.id)
            .where(events.c.received_at < before, events.c.body.is_not(None), events.c.routed_at.is_not(None))
            .where(~needed)
            .limit(BATCH)
        ).scalars()
        event_ids = list(rows)
    if not event_ids:
        return 0
    with database.write() as conn:
        # Locked and checked again: an operator may have replayed one in the meantime.
        conn.execute(
            select(events.c.id).where(events.c.id.in_(event_ids)).order_by(events.c.id).with_for_update()
        )
        result = conn.execute(
            update(events).where(events.c.id.in_(event_ids), ~needed).values(NO_PERSONAL_DATA)
        )
        return result.rowcount


def _prune_deliveries(database: Database, retention: timedelta, rules: Rules) -> int:
    table = schema.deliveries
    finished = text("deliveries.state IN ('succeeded', 'failed', 'cancelled', 'suppressed')")
    cap_window, once_window = retention_windows(rules)
    with database.read() as conn:
        now = database.now(conn)
        counts_for_caps = table.c.possibly_sent_at > now - cap_window
        counts_for_once = table.c.possibly_sent_at > now - once_window
        delivery_ids = list(
            conn.execute(
                select(table.c.id)
                .where(finished, table.c.finished_at < now - retention)
                .where(
                    or_(
                        table.c.params != ERASED,
                        _no_longer_needed(table.c.recipient, counts_for_caps),
                        _no_longer_needed(table.c.contact, counts_for_once),
                    )
                )
                .limit(BATCH)
            ).scalars()
        )
    if not delivery_ids:
        return 0
    with database.write() as conn:
        # Checked again: an operator may have retried one in the meantime.
        locked = select(table.c.id).where(table.c.id.in_(delivery_ids), finished).order_by(table.c.id)
        delivery_ids = list(conn.execute(locked.with_for_update()).scalars())
        delete_steps(conn, delivery_ids)
        result = conn.execute(
            update(table)
            .where(table.c.id.in_(delivery_ids))
            .values(
                params=ERASED,
                recipient=case((counts_for_caps, table.c.recipient)),
                contact=case((counts_for_once, table.c.contact)),
                concurrency_key=None,
                detail=None,
            )
        )
        return result.rowcount


def _remove_rejected_requests(database: Database, retention: timedelta) -> int:
    table = schema.rejected_requests
    with database.write() as conn:
        expired = select(table.c.id).where(table.c.received_at < database.now(conn) - retention)
        return conn.execute(delete(table).where(table.c.id.in_(expired.limit(BATCH)))).rowcount


def _remove_cached_contacts(database: Database) -> int:
    table = schema.contact_cache
    key = table.c.connection, table.c.lookup_key
    queries, deliveries = schema.opt_out_queries, schema.deliveries
    with database.write() as conn:
        is_waiting = exists().where(
            deliveries.c.id == queries.c.delivery_id, deliveries.c.state.in_(("pending", "retrying"))
        )
        conn.execute(delete(queries).where(~is_waiting))  # there are few: those whose answer never came
        expired = select(*key).where(table.c.expires_at < database.now(conn))
        return conn.execute(delete(table).where(tuple_(*key).in_(expired.limit(BATCH)))).rowcount


def _remove_possible_duplicates(database: Database, retention: timedelta) -> None:
    """Remove pairs that no delivery has led to for the retention period: the records were merged or corrected."""
    table = schema.possible_duplicates
    with database.write() as conn:
        expired = select(table.c.id).where(table.c.last_seen_at < database.now(conn) - retention)
        conn.execute(delete(table).where(table.c.id.in_(expired.limit(BATCH))))


def retention_windows(rules: Rules) -> tuple[timedelta, timedelta]:
    """Return how long these rules count messages to a recipient (`caps`), and deliveries about a contact (`once`)."""
    steps = [step for rule in rules.rules for step in rule.steps] + [*rules.alerts]
    caps = (cap.per for cap in rules.messaging.caps.values())
    once = (step.once.within for step in steps if step.once and step.once.per == "contact")
    return max(caps, default=timedelta(0)), max(once, default=timedelta(0))


def _no_longer_needed(column: ColumnElement[str], still_counts: ColumnElement[bool]) -> ColumnElement[bool]:
    """True if a column is set and the rules no longer count the delivery; one that was never sent does not count."""
    return and_(column.is_not(None), or_(schema.deliveries.c.possibly_sent_at.is_(None), ~still_counts))
