"""What people want: opt-outs, per channel and address, whoever runs the connection."""

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
    """A person's wish about one channel."""

    channel: str
    address: str
    opted_out: bool
    source: str
    """Where it comes from: `STOP to twilio`, `unsubscribe link`, `refused by twilio`, `command line`."""


def recipient_lock_key(channel: str, address: str) -> str:
    """The name under which everything about a recipient is decided: attempts and opt-outs alike."""
    return f"recipient {channel} {address.casefold()}"


def save_opt_outs(
    database: Database, conn: Connection, preferences: Sequence[OptOutChange], now: datetime
) -> None:
    """Write wishes down, under the lock that every attempt to these addresses takes."""
    if not preferences:
        return
    database.lock(conn, (recipient_lock_key(item.channel, item.address) for item in preferences))
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
                "channel": item.channel,
                "address": item.address.casefold(),
                "opted_out_at": now if item.opted_out else None,
                "source": item.source,
                "changed_at": now,
            }
            for item in preferences
        ],
    )


def save_opt_out(database: Database, preference: OptOutChange, actor: str | None = None) -> None:
    """Write one wish down; what commits before it is the last message. `who` wrote it for the person, if anybody."""
    with database.write() as conn:
        now = database.now(conn)
        save_opt_outs(database, conn, [preference], now)
        if actor is not None:
            act = "opt out" if preference.opted_out else "opt in"
            record_audit(
                conn,
                now,
                actor,
                act,
                [mask_address(preference.address)],
                {"channel": preference.channel},
            )


def hash_address(secret: bytes, address: str) -> str:
    """What stands for an address whose person was erased: enough to keep an opt-out, nothing to write to."""
    digest = hmac.new(secret, address.casefold().encode(), hashlib.sha256).hexdigest()
    return f"erased:{digest}"


def list_opt_outs(database: Database, limit: int = 1000) -> list[dict[str, Any]]:
    """Who opted out of what, the newest first."""
    with database.read() as conn:
        rows = conn.execute(
            select(_TABLE)
            .where(_TABLE.c.opted_out_at.is_not(None))
            .order_by(_TABLE.c.opted_out_at.desc())
            .limit(limit)
        )
        return [dict(row._mapping) for row in rows]
