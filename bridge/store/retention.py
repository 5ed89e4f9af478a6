"""Retention: deletes bodies and personal data of finished work; event and idempotency keys are kept permanently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Column, Table, and_, case, delete, exists, or_, select, text, tuple_, update

from bridge.rules.model import Rules
from bridge.store import schema
from bridge.store.action_steps import delete_steps
from bridge.store.batches import in_batches
from bridge.store.database import Database
from bridge.store.details import remove_old_details
from bridge.store.schema import ERASED
from bridge.store.schema.delivery_tables import HAS_PARAMS, KEEPS_CONTACT, KEEPS_RECIPIENT
from bridge.store.schema.event_tables import IS_UNPRUNED
from bridge.store.undeliverable import remove_expired_entries
from bridge.store.unindexed import unindexed

BATCH = 1000
"""Rows of each kind that are selected at a time."""
LARGEST: Final = 500
"""Rows per transaction, at most; as few as it takes to be short."""

NO_PERSONAL_DATA: Final[Mapping[str, Any]] = dict.fromkeys(
    ("body", "phone", "email", "contact_name", "contact_sort_name", "trace", "packed_trace")
)
"""The columns of an event that was pruned or erased."""
_FINISHED: Final = ("succeeded", "failed", "cancelled", "suppressed")
_EVENTS, _DELIVERIES = schema.events, schema.deliveries


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
    `once` of these rules counts them. Rows are selected by indexes of what is left to prune, before they are changed
    in small transactions. Without anything to prune, nothing is written.
    """
    remove_expired_entries(database)
    deliveries, event_ids = _prune_deliveries(database, retention, rules)
    if deliveries < BATCH:
        # Those without deliveries; earlier, this would read all events whose deliveries are still to be pruned.
        event_ids = list(dict.fromkeys([*event_ids, *_old_events(database, retention)]))
    _remove_answered_queries(database)
    _remove_possible_duplicates(database, retention)
    remove_old_details(database, retention, BATCH)
    return PruneResult(
        _prune_events(database, retention, event_ids),
        deliveries,
        _remove_rejected_requests(database, retention),
        _remove_cached_contacts(database),
    )


# A delivery whose parameters are kept may still be retried, and then needs its event.
_NEEDED: Final = exists().where(
    _DELIVERIES.c.event_id == _EVENTS.c.id,
    or_(unindexed(_DELIVERIES.c.state).not_in(_FINISHED), _DELIVERIES.c.params != ERASED),
)


def _old_events(database: Database, retention: timedelta) -> Sequence[str]:
    with database.read() as conn:
        is_old = _EVENTS.c.received_at < database.now(conn) - retention
        old = select(_EVENTS.c.id).where(text(IS_UNPRUNED), is_old, ~_NEEDED)
        return conn.execute(old.order_by(_EVENTS.c.received_at).limit(BATCH)).scalars().all()


def _prune_events(database: Database, retention: timedelta, event_ids: Sequence[str]) -> int:
    """Prune those of these events that are old and no longer needed; return their number."""
    columns = _EVENTS.c["id", "received_at", "routed_at"]
    pruned = 0

    def change(ids: Sequence[str]) -> None:
        nonlocal pruned
        with database.write(durable=False) as conn:
            before = database.now(conn) - retention
            # Locked and checked again: an operator may have replayed one in the meantime.
            locked = select(*columns).where(_EVENTS.c.id.in_(ids)).order_by(_EVENTS.c.id).with_for_update()
            old = [row.id for row in conn.execute(locked) if row.routed_at and row.received_at < before]
            is_pruned = and_(_EVENTS.c.id.in_(old), _EVENTS.c.body.is_not(None), ~_NEEDED)
            pruned += conn.execute(update(_EVENTS).where(is_pruned).values(NO_PERSONAL_DATA)).rowcount

    in_batches(event_ids, change, largest=LARGEST)
    return pruned


def _prune_deliveries(database: Database, retention: timedelta, rules: Rules) -> tuple[int, list[str]]:
    """Prune up to `BATCH` deliveries; return their number, and their events."""
    table = _DELIVERIES
    cap_window, once_window = retention_windows(rules)
    with database.read() as conn:
        now = database.now(conn)
        counts_for_caps = table.c.possibly_sent_at > now - cap_window
        counts_for_once = table.c.possibly_sent_at > now - once_window
        # Each is a range of an index that a row leaves once it is pruned.
        ranges = (
            (HAS_PARAMS, table.c.finished_at < now - retention, table.c.finished_at),
            (KEEPS_RECIPIENT, ~counts_for_caps, table.c.possibly_sent_at),
            (KEEPS_CONTACT, ~counts_for_once, table.c.possibly_sent_at),
        )
        delivery_ids: dict[str, None] = {}
        for left, is_due, instant in ranges:
            old = select(table.c.id).where(text(left), is_due, unindexed(table.c.state).in_(_FINISHED))
            delivery_ids |= dict.fromkeys(
                conn.execute(old.order_by(instant).limit(BATCH - len(delivery_ids))).scalars()
            )
    pruned = 0
    event_ids: dict[str, None] = {}

    def change(ids: Sequence[str]) -> None:
        nonlocal pruned
        with database.write(durable=False) as conn:
            # Checked again: an operator may have retried one in the meantime.
            is_finished = unindexed(table.c.state).in_(_FINISHED)
            locked = select(table.c.id, table.c.event_id).where(table.c.id.in_(ids), is_finished)
            rows = conn.execute(locked.order_by(table.c.id).with_for_update()).all()
            ids = [row.id for row in rows]
            delete_steps(conn, ids)
            result = conn.execute(
                update(table)
                .where(table.c.id.in_(ids))
                .values(
                    params=ERASED,
                    recipient=case((counts_for_caps, table.c.recipient)),
                    contact=case((counts_for_once, table.c.contact)),
                    concurrency_key=None,
                    detail=None,
                )
            )
        pruned += result.rowcount
        event_ids.update(dict.fromkeys(row.event_id for row in rows if row.event_id))

    in_batches(list(delivery_ids), change, largest=LARGEST)
    return pruned, list(event_ids)


def _remove_rejected_requests(database: Database, retention: timedelta) -> int:
    table = schema.rejected_requests
    return _delete_old(database, table, table.c.received_at, retention)


def _remove_cached_contacts(database: Database) -> int:
    table = schema.contact_cache
    return _delete_old(database, table, table.c.expires_at, timedelta(0))


def _remove_answered_queries(database: Database) -> None:
    """Remove the questions to CRMs of messages that no longer wait: there are few, those whose answer never came."""
    table = schema.opt_out_queries
    is_waiting = exists().where(
        _DELIVERIES.c.id == table.c.delivery_id, unindexed(_DELIVERIES.c.state).in_(("pending", "retrying"))
    )
    with database.read() as conn:
        if conn.execute(select(table.c.delivery_id).where(~is_waiting).limit(1)).first() is None:
            return
    with database.write(durable=False) as conn:
        ids = select(table.c.delivery_id).where(~is_waiting).limit(BATCH)
        conn.execute(delete(table).where(table.c.delivery_id.in_(ids)))


def _remove_possible_duplicates(database: Database, retention: timedelta) -> None:
    """Remove pairs that no delivery has led to for the retention period: the records were merged or corrected."""
    table = schema.possible_duplicates
    _delete_old(database, table, table.c.last_seen_at, retention)


def _delete_old(database: Database, table: Table, instant: Column[datetime], age: timedelta) -> int:
    """Delete up to `BATCH` rows whose instant, which has an index, is longer ago."""
    key = tuple_(*table.primary_key.columns)
    with database.read() as conn:
        before = database.now(conn) - age
        old = select(*table.primary_key.columns).where(instant < before).order_by(instant).limit(BATCH)
        keys = [tuple(row) for row in conn.execute(old)]
    deleted = 0

    def change(part: Sequence[Any]) -> None:
        nonlocal deleted
        with database.write(durable=False) as conn:
            deleted += conn.execute(delete(table).where(key.in_(part), instant < before)).rowcount

    in_batches(keys, change, largest=LARGEST)
    return deleted


def retention_windows(rules: Rules) -> tuple[timedelta, timedelta]:
    """Return how long these rules count messages to a recipient (`caps`), and deliveries about a contact (`once`)."""
    steps = [step for rule in rules.rules for step in rule.steps] + [*rules.alerts]
    caps = (cap.per for cap in rules.messaging.caps.values())
    once = (step.once.within for step in steps if step.once and step.once.per == "contact")
    return max(caps, default=timedelta(0)), max(once, default=timedelta(0))
