"""Erasure: deletes everything that names a phone number or email address; what remains can only be counted.

Rows are found in read transactions: by the indexes first, then by reading everything that could mention the address.
They are changed by their IDs in short transactions, for which no event or attempt waits long. What was stored meanwhile
is looked for until nothing new is found. An erasure that was interrupted is completed by the next one.

Event and idempotency keys are kept, so that nothing is done twice; keys that contain the address are replaced. An
opt-out is kept as a keyed hash (`opt_outs.hash_address`), so that it still applies if the address occurs again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, literal, select, update

from bridge.contacts.address import address_key
from bridge.contacts.mentions import mention_test
from bridge.errors import ConfigError
from bridge.ids import new_id
from bridge.lifecycle import ALLOWED, DeliveryState, Transition
from bridge.policy import CHANNELS, channels_of
from bridge.store import schema
from bridge.store.action_steps import delete_steps
from bridge.store.batches import BulkEntry, in_batches
from bridge.store.contact_cache import delete_cached_contacts
from bridge.store.contact_data import (
    deliveries_about,
    deliveries_mentioning,
    events_about,
    events_mentioning,
    newest_ids,
    rejected_requests_mentioning,
)
from bridge.store.database import Database
from bridge.store.deliveries import Delivery, lock_deliveries
from bridge.store.details import delete_details, delete_details_mentioning
from bridge.store.driver_errors import translate_errors
from bridge.store.opt_outs import hash_address, recipient_lock_key
from bridge.store.retention import NO_PERSONAL_DATA
from bridge.store.schema import ERASED
from bridge.store.transitions import Change, apply_transitions
from bridge.store.undeliverable import clear_undeliverable
from bridge.telemetry import mask_address

_EVENTS, _DELIVERIES = schema.events, schema.deliveries
ERASED_DETAIL = "erased"
"""The `detail` of an erased delivery."""
_MAX_ROUNDS: Final = 20
"""How often what was stored meanwhile is looked for, if there is something new each time."""


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
    """Erase one phone number (E.164) or email address from every table, in short transactions.

    `keys` are the values of BRIDGE_SECRET_KEY; raise ConfigError if there are none and there is an opt-out to keep.
    """
    with database.read() as conn:
        _hashes_of_opt_outs(_opt_outs(conn, address, keys), address, keys)
    erasure = _Erasure(database, address, BulkEntry(actor, "erase", mask_address(address), {}))
    after = ("", "")
    for _ in range(_MAX_ROUNDS):
        newest = newest_ids(database)
        if not erasure.erase_rows(*after) and any(after):
            break
        after = newest
    erased = erasure.finish(keys)
    if database.is_sqlite:
        _truncate_wal(database)
    return erased


@dataclass
class _Erasure:
    """The rows of one erasure that were found so far, and its audit entry, which each transaction updates."""

    database: Database
    address: str
    entry: BulkEntry
    events: set[str] = field(default_factory=set)
    deliveries: set[str] = field(default_factory=set)
    cancelled: int = 0
    in_progress: set[str] = field(default_factory=set)
    new_keys: dict[str, str] = field(default_factory=dict)
    """Idempotency key with the address -> what replaces it."""

    def erase_rows(self, after_event: str, after_delivery: str) -> bool:
        """Erase events and deliveries, by reading those after these IDs; return whether any is new."""
        before = len(self.events) + len(self.deliveries)
        self._erase_events(events_about(self.database, self.address))
        self._erase_deliveries(deliveries_about(self.database, self.address))
        for event_ids in events_mentioning(self.database, self.address, after_event):
            self._erase_events(event_ids)
        for delivery_ids in deliveries_mentioning(self.database, self.address, after_delivery):
            self._erase_deliveries(delivery_ids)
        return len(self.events) + len(self.deliveries) > before

    def finish(self, keys: Sequence[bytes]) -> EraseResult:
        """Erase what is not an event or delivery; return how much was erased."""
        database, address = self.database, self.address
        delete_details_mentioning(database, address)
        cached_contacts = delete_cached_contacts(database, address)
        rejected_requests = _clear_rejected_requests(database, address)
        with database.write() as conn:
            database.lock(conn, [recipient_lock_key(address)])
            erased = EraseResult(
                events=len(self.events),
                deliveries=len(self.deliveries),
                cancelled=self.cancelled,
                cached_contacts=cached_contacts,
                rejected_requests=rejected_requests,
                opt_outs=_hash_opt_outs(conn, address, keys),
                in_progress=len(self.in_progress),
            )
            self.entry.set(conn, database.now(conn), **vars(erased))
        return erased

    def _erase_events(self, event_ids: Sequence[str]) -> None:
        in_batches(event_ids, self._erase_event_batch)

    def _erase_deliveries(self, delivery_ids: Sequence[str]) -> None:
        in_batches(
            [delivery_id for delivery_id in delivery_ids if delivery_id not in self.deliveries],
            self._erase_delivery_batch,
        )

    def _erase_event_batch(self, event_ids: Sequence[str]) -> None:
        with self.database.write() as conn:
            # Locked, because an event that is being routed would get deliveries unseen here.
            locked = select(_EVENTS.c.id).where(_EVENTS.c.id.in_(event_ids)).order_by(_EVENTS.c.id)
            conn.execute(locked.with_for_update(key_share=True)).all()
            deliveries = lock_deliveries(conn, _DELIVERIES.c.event_id.in_(event_ids)).values()
            self._erase(conn, deliveries, event_ids)

    def _erase_delivery_batch(self, delivery_ids: Sequence[str]) -> None:
        with self.database.write() as conn:
            deliveries = lock_deliveries(conn, _DELIVERIES.c.id.in_(delivery_ids)).values()
            self._erase(conn, deliveries, ())

    def _erase(self, conn: Connection, deliveries: Collection[Delivery], event_ids: Sequence[str]) -> None:
        """Erase these events and deliveries, which are locked, except what a running attempt needs."""
        now = self.database.now(conn)
        # Locks in the order of `claim`: deliveries, then lock keys.
        self.database.lock(conn, [recipient_lock_key(self.address)])
        running = [item for item in deliveries if item.state is DeliveryState.RUNNING]
        erasable = [item for item in deliveries if item.id not in self.deliveries and item not in running]
        cancelled = [
            Change(item, Transition.cancelled(item, ERASED_DETAIL))
            for item in erasable
            if DeliveryState.CANCELLED in ALLOWED[item.state]
        ]
        apply_transitions(self.database, conn, cancelled, now)
        self._clear_deliveries(conn, erasable)
        delete_details(conn, event_ids)
        needed = {item.event_id for item in running}
        _clear_events(conn, [event_id for event_id in event_ids if event_id not in needed], now)
        self.events.update(event_ids)
        self.deliveries.update(item.id for item in erasable)
        self.cancelled += len(cancelled)
        self.in_progress.update(item.id for item in running)
        self.in_progress -= self.deliveries
        numbers = {
            "events": len(self.events),
            "deliveries": len(self.deliveries),
            "cancelled": self.cancelled,
        }
        self.entry.set(conn, now, **numbers, in_progress=len(self.in_progress))

    def _clear_deliveries(self, conn: Connection, deliveries: Sequence[Delivery]) -> None:
        delivery_ids = [item.id for item in deliveries]
        cleared = {
            "params": ERASED, "recipient": None, "contact": None, "concurrency_key": None, "detail": ERASED_DETAIL,
            "external_id": None,
        }  # fmt: skip
        conn.execute(update(_DELIVERIES).where(_DELIVERIES.c.id.in_(delivery_ids)).values(cleared))
        for item in deliveries:
            kept = replace(item.options, results={}, notes=(), undelivered_ids=())
            if kept != item.options:
                statement = update(_DELIVERIES).where(_DELIVERIES.c.id == item.id)
                conn.execute(statement.values(options=kept.to_json()))
        is_attempt = schema.attempts.c.delivery_id.in_(delivery_ids)
        conn.execute(update(schema.attempts).where(is_attempt).values(detail=None))
        delete_steps(conn, delivery_ids)
        mentions = mention_test(self.address, self.database.default_country)
        keys = schema.idempotency_keys
        for old_key in sorted({item.idempotency_key for item in deliveries}):
            if not mentions(old_key.encode()):
                continue
            new_key = self.new_keys.setdefault(old_key, new_id("erased"))
            conn.execute(update(keys).where(keys.c.key == old_key).values(key=new_key))
            with_key = [item.id for item in deliveries if item.idempotency_key == old_key]
            is_one = _DELIVERIES.c.id.in_(with_key)
            conn.execute(update(_DELIVERIES).where(is_one).values(idempotency_key=new_key))


def _truncate_wal(database: Database) -> None:
    """Remove the old pages from SQLite's write-ahead log as well; while other processes read, this happens later."""
    with translate_errors():
        raw = database.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()


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


def _clear_rejected_requests(database: Database, address: str) -> int:
    table = schema.rejected_requests

    def clear(request_ids: Sequence[str]) -> None:
        with database.write() as conn:
            conn.execute(update(table).where(table.c.id.in_(request_ids)).values(body=None))

    request_ids = rejected_requests_mentioning(database, address)
    in_batches(request_ids, clear)
    return len(request_ids)


def _opt_outs(conn: Connection, address: str, keys: Sequence[bytes]) -> Sequence[dict[str, Any]]:
    """Return the opt-outs and opt-ins of an address, those of an earlier erasure among them, oldest first."""
    table = schema.opt_outs
    addresses = [address_key(address), *hash_address(keys, address)]
    is_entry = table.c.channel.in_(CHANNELS) & table.c.address.in_(addresses)
    rows = conn.execute(select(table).where(is_entry).order_by(table.c.changed_at))
    return [dict(row) for row in rows.mappings()]


def _hashes_of_opt_outs(rows: Sequence[dict[str, Any]], address: str, keys: Sequence[bytes]) -> Sequence[str]:
    """Return the hashes under which these opt-outs can be kept. Raise ConfigError if there is none for them."""
    hashes = hash_address(keys, address)
    latest = {row["channel"]: row["opted_out_at"] for row in rows}
    if any(latest.values()) and not hashes:
        raise ConfigError(
            "set BRIDGE_SECRET_KEY first: the address has opted out, and the opt-out is kept as a hash with this key"
        )
    return hashes


def _hash_opt_outs(conn: Connection, address: str, keys: Sequence[bytes]) -> int:
    """Replace the address of opt-outs by its hash; return how many apply.

    Opt-ins are replaced as well while an opt-out applies, because they limit its reach; otherwise nothing is kept.
    """
    table = schema.opt_outs
    rows = _opt_outs(conn, address, keys)
    hashes = _hashes_of_opt_outs(rows, address, keys)
    latest = {row["channel"]: row for row in rows}
    active = [row for row in latest.values() if row["opted_out_at"] is not None]
    for row in rows:
        conn.execute(
            delete(table).where(table.c.channel == row["channel"], table.c.address == row["address"])
        )
    clear_undeliverable(conn, [(channel, address) for channel in channels_of(address)])
    if active:
        # The operator's reason may name the person.
        changed = {"address": hashes[0], "reason": None}
        conn.execute(insert(table), [row | changed for row in latest.values()])
    return len(active)
