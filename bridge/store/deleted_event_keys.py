"""Keys of deleted events: recognizes a request that repeats an event whose row was deleted (BRIDGE_DELETE_AFTER).

Only hashes of the dedupe keys are kept. They are compared after the insert, in its transaction: the insert succeeds
only if the event's row is gone, and then its hashes are visible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, select

from bridge.store import schema
from bridge.store.database import Database

_HASH_BYTES: Final = 16
_EVENTS, _KEYS = schema.events, schema.deleted_event_keys


def remove_repeated(database: Database, conn: Connection, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Delete those of these new rows that repeat a deleted event; return their IDs."""
    if database.has_deleted_events is None:
        database.has_deleted_events = conn.execute(select(_KEYS).limit(1)).first() is not None
    if not database.has_deleted_events:
        return []
    ids = {key: str(row["id"]) for row in rows for key in _hashes(row)}
    found = conn.execute(select(_KEYS.c.key_hash).where(_KEYS.c.key_hash.in_(list(ids)))).scalars()
    repeated = sorted({ids[bytes(key)] for key in found})
    if repeated:
        conn.execute(delete(_EVENTS).where(_EVENTS.c.id.in_(repeated)))
    return repeated


def keep_keys(database: Database, conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep the hashes of the keys of events that are deleted in this transaction."""
    hashes = [{"key_hash": key} for row in rows for key in _hashes(row)]
    if hashes:
        conn.execute(database.insert(_KEYS).on_conflict_do_nothing(), hashes)
        database.has_deleted_events = True


def _hashes(row: Mapping[str, Any]) -> list[bytes]:
    """Return the hashes of an event's dedupe keys."""
    keys = (("id", row["dedupe_key"]), ("fallback", row["fallback_dedupe_key"]))
    texts = (f"{kind}:{key}".encode() for kind, key in keys if key is not None)
    return [hashlib.sha256(text).digest()[:_HASH_BYTES] for text in texts]
