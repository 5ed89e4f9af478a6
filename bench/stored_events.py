"""Stored events: fills a database with as many as wanted, as a service leaves them once they are worked off.

A service receives a few hundred events of all types over HTTP, routes them and works their deliveries off. All further
rows are copies of what it stored, in every table and column, with their own IDs, keys, contacts, conversations and
times, over 90 days. On SQLite, indexes grow with the rows, as in a service: one that is created afterwards has full
pages, which the next rows split. PostgreSQL leaves room in them, so there they are created afterwards. A contact has
four events. Bodies are copied as they are, so they name the contact of the original.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
from sqlalchemy.event import listen

from bench.databases import BridgeDatabase
from bench.servers import SECRET, bridge_server, post, wait_for_worker
from bridge.samples import refresh_sample, sample
from bridge.signing import sign
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.hourly_counts import count_hours

DAYS: Final = 90
EVENTS_PER_CONTACT: Final = 4
MIX: Final = (
    ("call.completed", 50), ("call.no-answer", 15), ("call.busy", 8), ("call.failed", 2),
    ("chat.abandoned", 5), ("chat.completed", 15), ("chat.resolved", 5),
)  # fmt: skip
"""Share of each event type in percent. Each `chat.abandoned` is followed by a `chat.completed` of the same contact."""
PRODUCED: Final = 300
"""Events that the service receives itself."""
_TABLES: Final = ("events", "deliveries", "attempts", "idempotency_keys")
_CHUNK: Final = 10_000


@dataclass(frozen=True)
class Storage:
    """The content of a filled database."""

    events: int
    bytes_per_event: float


def produce(folder: Path, url: str) -> None:
    """Let a service receive and work off the events that all others are copies of."""
    with bridge_server(folder, url) as address:
        wait_for_worker(address)
        with httpx.Client(base_url=address, timeout=30) as heppu:
            for line in signed_events():
                post(heppu, line)
        BridgeDatabase(url).wait_until_final()


def signed_events() -> Iterator[str]:
    """Yield the events that the service receives: timestamp, signature, body."""
    types = [name for name, share in MIX for _ in range(share)]
    for number in range(PRODUCED):
        now = datetime.now(UTC)
        # All types in each hundred; contacts of abandoned chats come again with a completed one.
        name = types[number % 100]
        contact = number - 5 if name == "chat.completed" and 80 <= number % 100 < 85 else number
        body = refresh_sample(sample(name), now)
        body["metadata"] |= {
            "contactName": f"{_first_name(contact)} Lindqvist",
            "contactPhone": f"+1212{contact:07d}",
            "contactEmail": f"{_first_name(contact).lower()}@example.com",
        }
        if name == "call.busy" and number % 100 == 72:
            body["metadata"]["later"] = "yes"
        raw = json.dumps(body)
        yield f"{int(now.timestamp())} {sign(raw.encode(), SECRET.encode())} {raw}"


def _first_name(contact: int) -> str:
    """Return a name of a contact's own. With digits it would not be a name, and each delivery would say so."""
    return "Caller" + "".join("abcdefghij"[int(digit)] for digit in f"{contact:07d}")


def phone_of(contact: int) -> str:
    """Return the phone number of a copied contact."""
    return f"+1646{contact:07d}"


@dataclass(frozen=True)
class _RowCopier:
    """Makes copies of one row: columns with a name of this event in their text, and columns with its times."""

    base: Sequence[Any]
    texts: Sequence[tuple[int, str]]
    instants: Sequence[int]

    def copy(self, names: dict[str, str], shift: int) -> list[Any]:
        """Return a copy with these names, at another time."""
        row = list(self.base)
        for column, form in self.texts:
            row[column] = form % names
        for column in self.instants:
            row[column] += shift
        return row


@dataclass(frozen=True)
class _Family:
    """One stored event with its deliveries, their attempts and their idempotency keys."""

    received_at: int
    deliveries: int
    copiers: dict[str, list[_RowCopier]]

    def names(self, number: int, received_at: int, contacts: int) -> dict[str, str]:
        """Return the names in the copy with this number."""
        contact = number * 7919 % contacts
        key = hashlib.sha256(str(number).encode()).hexdigest()[:16]
        names = {
            "event": f"evt_{received_at:013x}{number:012x}",
            "key": key, "phone": phone_of(contact),
            "Caller": _first_name(contact), "caller": _first_name(contact).lower(),
        }  # fmt: skip
        for index in range(self.deliveries):
            names[f"delivery{index}"] = f"dlv_{received_at:013x}{number * 8 + index:012x}"
            names[f"external{index}"] = str(received_at * 8 + index)
        return names


def _families(database: BridgeDatabase) -> tuple[dict[str, list[str]], list[_Family]]:
    """Read what the service has stored: the columns of each table, and its events with all that belongs to them."""
    columns, stored = {}, {}
    for table in _TABLES:
        columns[table], rows = database.table(table)
        stored[table] = [dict(zip(columns[table], row, strict=True)) for row in rows]
    families = []
    for event in stored["events"]:
        deliveries = [row for row in stored["deliveries"] if row["event_id"] == event["id"]]
        ids = [row["id"] for row in deliveries]
        names = {
            event["id"]: "event", event["dedupe_key"].rpartition("_")[2]: "key", event["phone"]: "phone",
            event["email"].partition("@")[0]: "caller", event["email"].partition("@")[0].title(): "Caller",
        }  # fmt: skip
        for index, row in enumerate(deliveries):
            names[row["id"]] = f"delivery{index}"
            if row["external_id"] is not None:
                names[row["external_id"]] = f"external{index}"
        rows_of = {
            "events": [event],
            "deliveries": deliveries,
            "attempts": [row for row in stored["attempts"] if row["delivery_id"] in ids],
            "idempotency_keys": [
                row
                for row in stored["idempotency_keys"]
                if {row["completed_by"], row["reserved_by"]} & {*ids}
            ],
        }
        copiers = {table: [_copier(table, row, names) for row in rows] for table, rows in rows_of.items()}
        families.append(_Family(event["received_at"], len(deliveries), copiers))
    return columns, families


def _copier(table: str, row: dict[str, Any], names: dict[str, str]) -> _RowCopier:
    """Find out which columns differ in a copy of this row. What waits for tomorrow waits in the copy as well."""
    waits = {"run_at", "expires_at"} if row.get("state") in ("pending", "retrying") else set()
    kinds = {column.name: column.type for column in schema.metadata.tables[table].columns}
    texts, instants = [], []
    for index, (column, value) in enumerate(row.items()):
        if isinstance(kinds.get(column), schema.Instant):
            if value is not None and column not in waits:
                instants.append(index)
        elif isinstance(value, str):
            form = value.replace("%", "%%")
            for name, placeholder in names.items():
                form = form.replace(name, f"%({placeholder})s")
            if form != value:
                texts.append((index, form))
    return _RowCopier(list(row.values()), texts, instants)


def fill(url: str, count: int, days: int = DAYS) -> Storage:
    """Copy the events of a database until there are `count`, and count the hours."""
    database = BridgeDatabase(url)
    columns, families = _families(database)
    families.sort(key=lambda family: family.received_at)
    now = int(datetime.now(UTC).timestamp() * 1e6)
    first, step = now - days * 86_400_000_000, (days * 86_400_000_000 - 3_600_000_000) // max(count, 1)
    contacts = max(count // EVENTS_PER_CONTACT, 1)

    def rows_of(numbers: range) -> dict[str, list[list[Any]]]:
        rows: dict[str, list[list[Any]]] = {table: [] for table in _TABLES}
        for number in numbers:
            family, received_at = families[number % len(families)], first + number * step
            names = family.names(number, received_at, contacts)
            for table, copiers in family.copiers.items():
                rows[table] += [copier.copy(names, received_at - family.received_at) for copier in copiers]
        return rows

    copied = max(count - len(families), 0)
    chunks = (rows_of(range(start, min(start + _CHUNK, copied))) for start in range(0, copied, _CHUNK))
    insert = _insert_into_sqlite if url.startswith("sqlite") else _insert_into_postgres
    insert(url, columns, chunks)
    _count_hours(url)
    return Storage(events := database.events(), database.size() / max(events, 1))


def _count_hours(url: str) -> None:
    """Count what happened per hour, as a worker has done over time; each hour is a transaction, so without fsync."""
    database = Database(url)
    statement = "PRAGMA synchronous=OFF" if database.is_sqlite else "SET synchronous_commit = off"
    listen(database.engine, "connect", lambda connection, _: connection.cursor().execute(statement))
    while count_hours(database, 1000) == 1000:
        pass
    database.close()


_Chunks = Iterator[dict[str, list[list[Any]]]]


def _insert_into_sqlite(url: str, columns: dict[str, list[str]], chunks: _Chunks) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as conn:
        conn.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-1000000")
        for rows in chunks:
            conn.execute("BEGIN")
            for table, copies in rows.items():
                marks = ", ".join("?" * len(columns[table]))
                conn.executemany(
                    f"INSERT INTO {table} ({', '.join(columns[table])}) VALUES ({marks})", copies
                )
            conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert_into_postgres(url: str, columns: dict[str, list[str]], chunks: _Chunks) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for table in _TABLES:
            conn.execute(
                f"ALTER TABLE {table} DISABLE TRIGGER ALL"
            )  # foreign keys are not checked row by row
        conn.execute("SET synchronous_commit = off")
        conn.execute("SET maintenance_work_mem = '512MB'")
        indexes = conn.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = ANY(%s)"
            " AND indexname NOT IN (SELECT conname FROM pg_constraint)",
            [list(_TABLES)],
        ).fetchall()
        for name, _ in indexes:
            conn.execute(f'DROP INDEX "{name}"')
        for rows in chunks:
            for table, copies in rows.items():
                with conn.cursor().copy(f"COPY {table} ({', '.join(columns[table])}) FROM STDIN") as copy:
                    for row in copies:
                        copy.write_row(row)
        for _, statement in indexes:
            conn.execute(statement)
        for table in _TABLES:
            conn.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
        conn.execute("VACUUM ANALYZE")  # as autovacuum would have done over the 90 days
        conn.execute("CHECKPOINT")
