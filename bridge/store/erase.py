"""Erasure: deletes everything that names a phone number or email address; what remains can only be counted.

Event and idempotency keys are kept, so that nothing is done twice; keys that contain the address are replaced. An
opt-out is kept as a keyed hash (`opt_outs.hash_address`), so that it still applies if the address occurs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Connection,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from bridge.contacts.address import address_key
from bridge.errors import ConfigError
from bridge.ids import new_id
from bridge.lifecycle import ALLOWED, DeliveryState, Transition
from bridge.policy import channels_of
from bridge.store import schema
from bridge.store.action_steps import delete_steps
from bridge.store.audit_log import record_audit
from bridge.store.contact_cache import delete_cached_contacts
from bridge.store.contact_data import (
    deliveries_mentioning,
    events_mentioning,
    mentions,
    rejected_requests_mentioning,
)
from bridge.store.database import Database
from bridge.store.deliveries import Delivery, lock_deliveries
from bridge.store.details import delete_details
from bridge.store.driver_errors import translate_errors
from bridge.store.opt_outs import hash_address, recipient_lock_key
from bridge.store.retention import NO_PERSONAL_DATA
from bridge.store.schema import ERASED
from bridge.store.transitions import Change, apply_transitions
from bridge.store.undeliverable import clear_undeliverable
from bridge.telemetry import mask_address

_EVENTS = schema.events
_DELIVERIES = schema.deliveries
ERASED_DETAIL = "erased"
"""The `detail` of an erased delivery."""


@dataclass(frozen=True)
class EraseResult:
    """The number of rows that were erased."""

    events: int
    deliveries: int
    cancelled: int
    """The deliveries that had not been sent yet."""
    cached_contacts: int
    rejected_requests: int
    opt_outs: int
    """Opt-outs that are kept as a keyed hash."""
    in_progress: int
    """Deliveries with a running attempt; erase again once they have finished."""


def erase(database: Database, actor: str, address: str, keys: Sequence[bytes]) -> EraseResult:
    """Erase one phone number (E.164) or email address from every table, in one transaction.

    `keys` are the values of BRIDGE_SECRET_KEY; raise ConfigError if there are none and there is an opt-out to keep.
    """
    with database.write() as conn:
        now = database.now(conn)
        events = _matching_events(database, conn, address)
        deliveries = _matching_deliveries(conn, address, events)
        # Locks in the order of `claim`: deliveries, then lock keys.
        database.lock(conn, [recipient_lock_key(address)])
        in_progress = [item for item in deliveries if item.state is DeliveryState.RUNNING]
        erasable = [item for item in deliveries if item.state is not DeliveryState.RUNNING]
        cancelled = [
            Change(item, Transition.cancelled(item, ERASED_DETAIL))
            for item in erasable
            if DeliveryState.CANCELLED in ALLOWED[item.state]
        ]
        apply_transitions(database, conn, cancelled, now)
        _clear_deliveries(conn, erasable, address)
        delete_details(conn, events, address)
        needed = {item.event_id for item in in_progress}
        _clear_events(conn, [event_id for event_id in events if event_id not in needed], now)
        erased = EraseResult(
            events=len(events),
            deliveries=len(erasable),
            cancelled=len(cancelled),
            cached_contacts=delete_cached_contacts(conn, address),
            rejected_requests=_clear_rejected_requests(database, conn, address),
            opt_outs=_hash_opt_outs(conn, address, keys),
            in_progress=len(in_progress),
        )
        record_audit(conn, now, actor, "erase", [mask_address(address)], vars(erased))
    if database.is_sqlite:
        _truncate_wal(database)
    return erased


def _truncate_wal(database: Database) -> None:
    """Remove the old pages from SQLite's write-ahead log as well; while other processes read, this happens later."""
    with translate_errors():
        raw = database.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()


def _matching_events(database: Database, conn: Connection, address: str) -> list[str]:
    """Return the IDs of the events to erase, locked: one that is being routed would get deliveries unseen here."""
    query = events_mentioning(database, address).with_for_update(key_share=True)
    return [row.id for row in conn.execute(query) if mentions(database, row, address)]


def _matching_deliveries(conn: Connection, address: str, events: Sequence[str]) -> list[Delivery]:
    return list(lock_deliveries(conn, deliveries_mentioning(address, events)).values())


def _clear_deliveries(conn: Connection, deliveries: Sequence[Delivery], address: str) -> None:
    delivery_ids = [item.id for item in deliveries]
    conn.execute(
        update(_DELIVERIES)
        .where(_DELIVERIES.c.id.in_(delivery_ids))
        .values(
            params=ERASED,
            recipient=None,
            contact=None,
            concurrency_key=None,
            detail=ERASED_DETAIL,
            external_id=None,
        )
    )
    conn.execute(
        update(schema.attempts).where(schema.attempts.c.delivery_id.in_(delivery_ids)).values(detail=None)
    )
    delete_steps(conn, delivery_ids)
    for old_key in sorted(
        {item.idempotency_key for item in deliveries if address_key(address) in item.idempotency_key.lower()}
    ):
        new_key = new_id("erased")
        conn.execute(
            update(schema.idempotency_keys)
            .where(schema.idempotency_keys.c.key == old_key)
            .values(key=new_key)
        )
        conn.execute(
            update(_DELIVERIES)
            .where(and_(_DELIVERIES.c.idempotency_key == old_key, _DELIVERIES.c.id.in_(delivery_ids)))
            .values(idempotency_key=new_key)
        )


def _clear_events(conn: Connection, event_ids: Sequence[str], now: datetime) -> None:
    """Delete bodies; an event that was not routed yet is marked as routed, so that it never will be."""
    conn.execute(
        update(_EVENTS)
        .where(_EVENTS.c.id.in_(event_ids))
        .values(
            dict(NO_PERSONAL_DATA)
            | {"routed_at": func.coalesce(_EVENTS.c.routed_at, literal(now, schema.Instant()))}
        )
    )


def _clear_rejected_requests(database: Database, conn: Connection, address: str) -> int:
    table = schema.rejected_requests
    request_ids = rejected_requests_mentioning(database, conn, address)
    conn.execute(update(table).where(table.c.id.in_(request_ids)).values(body=None))
    return len(request_ids)


def _hash_opt_outs(conn: Connection, address: str, keys: Sequence[bytes]) -> int:
    """Replace the address of opt-outs by its hash; return how many apply.

    Opt-ins are replaced as well while an opt-out applies, because they limit its reach; otherwise nothing is kept.
    """
    table = schema.opt_outs
    hashes = hash_address(keys, address)
    is_address = table.c.address.in_([address_key(address), *hashes])  # hashes: from an earlier erasure
    rows = conn.execute(select(table).where(is_address).order_by(table.c.changed_at)).all()
    latest = {row.channel: dict(row._mapping) for row in rows}
    active = [row for row in latest.values() if row["opted_out_at"] is not None]
    if active and not hashes:
        raise ConfigError(
            "set BRIDGE_SECRET_KEY first: the address has opted out, and the opt-out is kept as a hash with this key"
        )
    conn.execute(delete(table).where(is_address))
    clear_undeliverable(conn, [(channel, address) for channel in channels_of(address)])
    if active:
        # The operator's reason may name the person.
        changed = {"address": hashes[0], "reason": None}
        conn.execute(insert(table), [row | changed for row in latest.values()])
    return len(active)
