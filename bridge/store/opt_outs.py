"""Opt-outs: which recipients want no messages, by channel and address, regardless of the connection."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.telemetry import mask_address

_TABLE = schema.opt_outs


@dataclass(frozen=True)
class OptOutChange:
    """An opt-out or opt-in of one address on one channel."""

    channel: str
    address: str
    opted_out: bool
    source: str
    """The origin: `STOP to twilio`, `unsubscribe link`, `refused by twilio`, `command line`."""


def recipient_lock_key(channel: str, address: str) -> str:
    """Return the lock key of a recipient, which protects attempts as well as opt-outs."""
    return f"recipient {channel} {address.casefold()}"


def save_opt_outs(
    database: Database, conn: Connection, changes: Sequence[OptOutChange], now: datetime
) -> None:
    """Store opt-outs and opt-ins, under the lock that every attempt to these addresses takes."""
    if not changes:
        return
    database.lock(conn, (recipient_lock_key(change.channel, change.address) for change in changes))
    statement = database.insert(_TABLE)
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["channel", "address"],
            set_={
                "opted_out_at": statement.excluded.opted_out_at,
                "source": statement.excluded.source,
                "changed_at": statement.excluded.changed_at,
            },
        ),
        [
            {
                "channel": change.channel,
                "address": change.address.casefold(),
                "opted_out_at": now if change.opted_out else None,
                "source": change.source,
                "changed_at": now,
            }
            for change in changes
        ],
    )


def save_opt_out(database: Database, change: OptOutChange, actor: str | None = None) -> None:
    """Store one opt-out or opt-in; a message claimed before the commit is the last one.

    `actor` is the operator who entered it for the recipient; None if the recipient did it.
    """
    with database.write() as conn:
        now = database.now(conn)
        save_opt_outs(database, conn, [change], now)
        if actor is not None:
            action = "opt_out" if change.opted_out else "opt_in"
            record_audit(
                conn,
                now,
                actor,
                action,
                [mask_address(change.address)],
                {"channel": change.channel},
            )


def hash_address(secret: bytes, address: str) -> str:
    """Return the keyed hash that replaces an erased address: it keeps the opt-out effective and reveals no address."""
    digest = hmac.new(secret, address.casefold().encode(), hashlib.sha256).hexdigest()
    return f"erased:{digest}"


def list_opt_outs(database: Database, limit: int = 1000) -> list[dict[str, Any]]:
    """Return the opted-out addresses, newest first."""
    with database.read() as conn:
        rows = conn.execute(
            select(_TABLE)
            .where(_TABLE.c.opted_out_at.is_not(None))
            .order_by(_TABLE.c.opted_out_at.desc())
            .limit(limit)
        )
        return [dict(row._mapping) for row in rows]
