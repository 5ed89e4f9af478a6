"""Reencryption: encrypts stored values with the current key, or decrypts them, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Column, LargeBinary, Table, Text, select, type_coerce, update

from bridge.store import schema
from bridge.store.database import Database
from bridge.store.sealing import MissingKey, SealedBytes, SealedText

BATCH: Final = 200
"""Rows per transaction."""


def sealed_columns() -> list[tuple[Table, Column[Any]]]:
    """Return the columns that are encrypted, each with its table."""
    return [
        (table, column)
        for table in schema.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, SealedBytes | SealedText)
    ]


def reencrypt(database: Database, on_progress: Callable[[int], None] = lambda _: None) -> int:
    """Rewrite every value that is not stored as a new one would be; return their number. Raise MissingKey.

    It can be interrupted and run again, and the service may work at the same time.
    """
    changed = 0
    for table, column in sealed_columns():
        [key] = table.primary_key.columns
        cursor: Any = None
        while True:
            cursor, rewritten = _rewrite_batch(database, table, column, key, cursor)
            changed += rewritten
            on_progress(changed)
            if cursor is None:
                break
    return changed


def _rewrite_batch(
    database: Database, table: Table, column: Column[Any], key: Column[Any], cursor: Any
) -> tuple[Any, int]:
    """Rewrite the values of the next rows; return the key of the last one, None at the end, and how many changed."""
    sealer = database.sealer
    if sealer is None:
        raise MissingKey("set BRIDGE_ENCRYPTION_KEYS first: the current key, then the earlier ones")
    stored = type_coerce(column, LargeBinary() if isinstance(column.type, SealedBytes) else Text())
    query = select(key, stored.label("stored"), column.label("value")).where(column.is_not(None))
    if cursor is not None:
        query = query.where(key > cursor)
    with database.write() as conn:
        rows = conn.execute(query.order_by(key).limit(BATCH).with_for_update()).all()
        outdated = [row for row in rows if not sealer.is_current(_as_bytes(row.stored))]
        for row in outdated:
            conn.execute(update(table).where(key == row[0]).values({column.name: row.value}))
    return (rows[-1][0] if len(rows) == BATCH else None), len(outdated)


def check_keys(database: Database) -> None:
    """Raise MissingKey if the newest event cannot be decrypted."""
    table = schema.events
    newest = select(table.c.body).where(table.c.body.is_not(None)).order_by(table.c.received_at.desc())
    with database.read() as conn:
        conn.execute(newest.limit(1)).first()


def _as_bytes(stored: bytes | str) -> bytes:
    return stored.encode() if isinstance(stored, str) else stored
