"""Opt-outs: which recipients want no messages, by channel and address, regardless of the connection.

An opt-out is stored for the channel on which it was made. `messaging.opt_out_scope` decides when it is read, so that a
changed scope applies to stored opt-outs as well. It also covers the other addresses of the same contact
(`bridge.store.contact_links`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, text

from bridge.connector.callbacks import Channel
from bridge.contacts.address import address_key
from bridge.events import CONTACT_OPTED_OUT
from bridge.ids import new_id
from bridge.policy import CHANNELS, ActiveOptOut, OptOutEntry, covered_channels, find_opt_out
from bridge.rules.model import OptOutScope
from bridge.store import schema
from bridge.store.audit_log import RECIPIENT, record_audit
from bridge.store.bridge_events import BridgeEvent, insert_bridge_events
from bridge.store.bulk import JSON_VALUES, bulk_insert
from bridge.store.contact_links import linked_addresses
from bridge.store.database import Database
from bridge.store.undeliverable import clear_undeliverable
from bridge.telemetry import mask_address

MAX_REASON: Final = 500
"""Characters of an operator's reason that are kept."""
MAX_LINKED_LOCKS: Final = 50
"""Addresses of one transaction whose contacts' other addresses are locked as well."""
_TABLE = schema.opt_outs
_UPSERT: Final = (
    "ON CONFLICT (channel, address) DO UPDATE SET opted_out_at = excluded.opted_out_at, source = excluded.source, "
    "changed_at = excluded.changed_at, id = excluded.id, actor = excluded.actor, reason = excluded.reason"
)


_ENTRY_COLUMNS = _TABLE.c["address", "channel", "opted_out_at", "changed_at", "source", "actor", "reason"]
_ENTRIES: Final = {
    dialect: text(
        f"SELECT {', '.join(column.name for column in _ENTRY_COLUMNS)} FROM {values} "  # noqa: S608
        f"CROSS JOIN opt_outs WHERE address = value AND channel IN ({', '.join(map(repr, CHANNELS))})"
    ).columns(*_ENTRY_COLUMNS)
    for dialect, values in JSON_VALUES.items()
}
"""By dialect, the query for the entries of the addresses `values`. CROSS JOIN lets SQLite start with these."""


_ANY_OPT_OUT: Final = select(_TABLE.c.id).where(text("opted_out_at IS NOT NULL")).limit(1)

AddressHasher = Callable[[str], Sequence[str]]
"""Returns the hashes that can replace an erased address in the list: one per key, that of the current key first."""


@dataclass(frozen=True)
class OptOutChange:
    """An opt-out or opt-in of one address on one channel."""

    channel: Channel
    address: str
    opted_out: bool
    source: str
    """The origin: `STOP to twilio`, `unsubscribe link`, `refused by twilio`, `command line`, `import`, `API`."""
    actor: str | None = None
    """The operator who enters it; None if it comes from the recipient or a provider."""
    reason: str | None = None
    """The operator's reason."""

    @property
    def key(self) -> tuple[str, str]:
        """The channel and the identity of the address."""
        return self.channel, address_key(self.address)


def recipient_lock_key(address: str) -> str:
    """Return the lock key of a recipient, which protects attempts on every channel as well as opt-outs."""
    return f"recipient {address_key(address)}"


def save_opt_outs(
    database: Database,
    conn: Connection,
    changes: Sequence[OptOutChange],
    now: datetime,
    *,
    publish_events: bool = True,
) -> list[OptOutChange]:
    """Store opt-outs and opt-ins, under the lock that every attempt to these contacts takes; return the new ones.

    A change is new if it changes the state of the address. An existing opt-out is kept with its time and source; only
    a recipient's own opt-out replaces an operator's entry. Each contact that newly opted out becomes a
    `contact.opted_out` event, unless `publish_events` is False.
    """
    latest = {change.key: change for change in changes}
    if not latest:
        return []
    _lock_recipients(database, conn, {address for _, address in latest})
    active = _active(conn, latest)
    rows, new = [], []
    for key, change in latest.items():
        if change.opted_out != (key in active):
            new.append(change)
        elif change.opted_out and not (active[key] and change.actor is None):
            continue
        rows.append(_row(change, now))
    if rows:
        bulk_insert(conn, _TABLE, rows, _UPSERT)
    for change in new:
        if change.actor is None:  # the callers record what operators do
            action, target = "opt_out" if change.opted_out else "opt_in", mask_address(change.address)
            record_audit(
                conn, now, RECIPIENT, action, [target], {"channel": change.channel, "source": change.source}
            )
    if publish_events:
        ids = {(row["channel"], row["address"]): row["id"] for row in rows}
        insert_bridge_events(database, conn, _events(new, ids, now))
    return new


def save_opt_out(database: Database, *changes: OptOutChange) -> set[tuple[str, str]]:
    """Store opt-outs and opt-ins in one transaction; return the keys of those that changed anything.

    A message claimed before the commit is the last one. The changes of operators are recorded in the audit log; when
    an operator removes an opt-out, an undeliverable address counts as deliverable again.
    """
    with database.write() as conn:
        now = database.now(conn)
        changed = {change.key for change in save_opt_outs(database, conn, changes, now)}
        by_operators = [change for change in changes if change.actor is not None]
        changed |= clear_undeliverable(
            conn, [(change.channel, change.address) for change in by_operators if not change.opted_out]
        )
        for change in by_operators:
            if not change.opted_out and change.key not in changed:
                continue  # there was nothing to remove
            detail = {"channel": change.channel} | ({"reason": change.reason} if change.reason else {})
            action = "opt_out" if change.opted_out else "opt_in"
            record_audit(conn, now, change.actor or "", action, [mask_address(change.address)], detail)
    return changed


def import_opt_outs(
    database: Database, changes: Sequence[OptOutChange], *, publish_events: bool, dry_run: bool
) -> set[tuple[str, str]]:
    """Store a part of an imported list in one transaction; return the keys of those that were not opted out before.

    `contact.opted_out` events are published only on request, because a list may have 100,000 addresses. The caller
    records the import in the audit log once. A dry run stores nothing.
    """
    if dry_run:
        with database.read() as conn:
            active = _active(conn, {change.key for change in changes})
        return {change.key for change in changes} - active.keys()
    with database.write() as conn:
        now = database.now(conn)
        new = save_opt_outs(database, conn, changes, now, publish_events=publish_events)
        return {change.key for change in new}


def record_import(database: Database, actor: str, name: str, counts: Mapping[str, int]) -> None:
    """Record an import in the audit log, as one entry."""
    with database.write() as conn:
        record_audit(conn, database.now(conn), actor, "import", [name], counts)


def _lock_recipients(database: Database, conn: Connection, addresses: Collection[str]) -> None:
    """Lock these addresses, and the contacts' other addresses, which the opt-outs cover as well.

    SQLite has a single writer and needs no locks. An import locks its own addresses only: a transaction can hold only a
    limited number of locks.
    """
    if database.is_sqlite:
        return
    others = linked_addresses(conn, addresses) if len(addresses) <= MAX_LINKED_LOCKS else {}
    database.lock(
        conn, map(recipient_lock_key, {*addresses, *(a for linked in others.values() for a in linked)})
    )


def _active(conn: Connection, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    """Return those channels and addresses that are opted out, and whether an operator entered it."""
    addresses = list({address for _, address in keys})
    rows = conn.execute(_ENTRIES[conn.dialect.name], {"values": json.dumps(addresses)})
    return {(row.channel, row.address): row.actor is not None for row in rows if row.opted_out_at is not None}


def _row(change: OptOutChange, now: datetime) -> dict[str, Any]:
    channel, address = change.key
    return {
        "channel": channel,
        "address": address,
        "opted_out_at": now if change.opted_out else None,
        "source": change.source,
        "changed_at": now,
        "id": new_id("opt"),
        "actor": change.actor,
        "reason": change.reason[:MAX_REASON] if change.reason else None,
    }


def _events(
    new: Sequence[OptOutChange], ids: Mapping[tuple[str, str], str], now: datetime
) -> list[BridgeEvent]:
    """Return one event per address that opted out, with every channel on which it did."""
    by_address: dict[str, list[OptOutChange]] = defaultdict(list)
    for change in new:
        if change.opted_out:
            by_address[change.key[1]].append(change)
    events = []
    for address, changes in by_address.items():
        first = changes[0]
        entry_id = ids[first.key]
        body = {
            "conversationId": entry_id,
            "channel": first.channel,
            "channels": [change.channel for change in changes],
            "address": address,
            "source": first.source,
            "actor": first.actor,
            "reason": first.reason,
            "metadata": {"contactEmail" if "@" in address else "contactPhone": address},
        }
        events.append(BridgeEvent(CONTACT_OPTED_OUT, f"{CONTACT_OPTED_OUT}:{entry_id}", body, now))
    return events


def active_opt_outs(
    conn: Connection,
    recipients: Collection[tuple[Channel, str]],
    scope: OptOutScope,
    hash_address: AddressHasher | None,
) -> dict[tuple[Channel, str], ActiveOptOut]:
    """Return the opt-outs that cover these recipients (channel, address): a few queries, whatever their number.

    `hash_address` finds the opt-outs of erased addresses.
    """
    if conn.execute(_ANY_OPT_OUT).first() is None:
        return {}
    addresses = {address for _, address in recipients}
    linked = linked_addresses(conn, addresses)
    addresses.update(*linked.values())
    channels = {other for channel, _ in recipients for other in covered_channels(channel, scope)}
    entries = read_entries(conn, addresses, channels, hash_address)
    if not entries:
        return {}
    found = {
        (channel, address): find_opt_out(
            entries.get(address, ()),
            [entries[other] for other in linked.get(address, ()) if other in entries],
            channel,
            scope,
        )
        for channel, address in recipients
    }
    return {recipient: opt_out for recipient, opt_out in found.items() if opt_out is not None}


def read_entries(
    conn: Connection,
    addresses: Collection[str],
    channels: Collection[str],
    hash_address: AddressHasher | None,
) -> dict[str, list[OptOutEntry]]:
    """Return the stored opt-outs and opt-ins of these addresses, including those kept as a hash, by address."""
    address_of = {address: address for address in addresses}
    if hash_address is not None:
        address_of |= {hashed: address for address in addresses for hashed in hash_address(address)}
    rows = conn.execute(_ENTRIES[conn.dialect.name], {"values": json.dumps(list(address_of))}).all()
    entries: dict[str, list[OptOutEntry]] = defaultdict(list)
    for address, channel, opted_out_at, changed_at, source, actor, reason in rows:
        if channel not in channels:
            continue
        entry = OptOutEntry(channel, opted_out_at, changed_at, source or "", actor, reason)
        entries[address_of[address]].append(entry)
    return dict(entries)


def hash_address(keys: Sequence[bytes], address: str) -> list[str]:
    """Return the hashes under each key, the current one first: they keep an opt-out effective and reveal no address."""
    content = address_key(address).encode()
    return [f"erased:{hmac.new(key, content, hashlib.sha256).hexdigest()}" for key in keys]
