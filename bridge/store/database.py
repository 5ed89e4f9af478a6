"""One code path over SQLite and PostgreSQL: transactions, locks, the clock, and what an error means.

On SQLite there is one writer at a time, and writers queue for their turn. On PostgreSQL any number write at once,
and what must not be decided twice at once is locked by name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bridge.clock import Clock, uptime
from bridge.errors import ConfigError, StoreUnavailable
from bridge.store.sqlite_write_queue import CROWD_SECONDS, WriteTurn

BUSY_SECONDS = 10
"""How long a writer on SQLite waits for another process before it gives up."""
CROWD = 16
"""Events in one transaction from which on receiving goes before what else this process does."""
ASIDE_SECONDS = 0.25
"""How long other work steps aside for it."""
_POSTGRES_OPTIONS = (
    "-c lock_timeout=15s -c statement_timeout=60s"
    # A replica that freezes or vanishes inside a transaction must not hold its locks until it comes back.
    " -c idle_in_transaction_session_timeout=5s"
)
EVENTS = "events"
"""The topic of events that wait to be routed, and of failures that wait to be followed up."""
EVERYTHING = "*"
"""The topic of whoever may have missed something: look at all there is."""
CHANNEL = "bridge"
"""The channel of PostgreSQL's NOTIFY that wakes idle replicas."""


Tell = Callable[[frozenset[str]], None]
"""Told of topics on which something has changed."""


class Database:
    """A connection pool and the few things that differ between the two databases."""

    def __init__(self, url: str, clock: Clock | None = None, pool_size: int = 8) -> None:
        self.clock = clock or Clock()
        self.url = _driver_url(url)
        self.is_sqlite = self.url.startswith("sqlite")
        self.engine = _engine(self.url, pool_size)
        self._turn = WriteTurn(_file_of(self.engine)) if self.is_sqlite else None
        self._crowded_until = 0.0
        self._changed: dict[Connection, tuple[set[str], Tell | None]] = {}
        self.on_change: list[Tell] = []
        """Who is told in this process that there may be work, and on which topics."""
        self.tell: Tell | None = None
        """Tells the other processes, after a commit; without it, the transaction itself does."""

    def receiving(self, count: int) -> None:
        """Note that `count` events were just stored at once: while they come in crowds, other work gives way."""
        if count >= CROWD:
            self._crowded_until = uptime() + CROWD_SECONDS
        if self._turn is not None:
            self._turn.note_receipts(crowd=count >= CROWD)

    def give_way(self) -> None:
        """Before work of this process that can wait: let a crowd of events go first for a moment.

        An answer that is late makes Heppu send again, a delivery that is late by a moment hurts nobody.
        """
        if self.crowded:
            time.sleep(ASIDE_SECONDS)

    @property
    def crowded(self) -> bool:
        """Whether events come in a crowd: into this process, or into the other one that writes to this SQLite file."""
        return uptime() < self._crowded_until or (self._turn is not None and self._turn.crowded)

    @property
    def brief(self) -> bool:
        """Whether other work is to make short transactions, for events come in and would wait for their ends."""
        return self.crowded or (self._turn is not None and self._turn.receiving)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()
        if self._turn is not None:
            self._turn.close()

    def is_prepared(self) -> bool:
        """Whether the tables are there; what else they need is the business of `bridge.store.migrate`."""
        with translated_errors():
            return inspect(self.engine).has_table("events")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; raises StoreUnavailable when the database cannot be reached or written."""
        changed: set[str] = set()
        turn = self._turn.taken() if self._turn else nullcontext()
        with translated_errors(), turn, self.engine.begin() as connection:
            tell = self.tell
            self._changed[connection] = (changed, tell)
            try:
                yield connection
            finally:
                del self._changed[connection]
        if changed:
            self.wake(frozenset(changed))
            if tell is not None:
                tell(frozenset(changed))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; it never waits for writers."""
        with translated_errors(), self.engine.connect() as connection:
            yield connection.execution_options(bridge_reads=True)

    def now(self, connection: Connection) -> datetime:
        """The present by the one clock that all replicas share: the database's on PostgreSQL."""
        if self.is_sqlite:
            return self.clock.now()
        instant: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return instant + self.clock.shift

    def lock(self, connection: Connection, names: Iterable[str]) -> None:
        """Hold these names until the transaction ends; replicas that want one of them wait.

        They are taken in one order, so two replicas never wait for each other. SQLite has one writer anyway.
        """
        if self.is_sqlite:
            return
        keys = sorted({_lock_key(name) for name in names})
        if keys:
            connection.execute(
                text(
                    "SELECT pg_advisory_xact_lock(k) FROM (SELECT unnest(CAST(:keys AS bigint[])) AS k) AS named"
                ),
                {"keys": keys},
            )

    def insert(self, table: Table) -> Any:
        """The dialect's INSERT, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def insert_new(self, table: Table) -> Insert:
        """An INSERT that leaves rows out whose keys are there already."""
        statement: Insert = self.insert(table).on_conflict_do_nothing()
        return statement

    def changed(self, connection: Connection, topics: Iterable[str]) -> None:
        """Wake whoever waits for these topics, in this process and the others, once the transaction has committed.

        A topic is `events` (something to route) or the name of a connection (something to attempt).
        """
        named = set(topics)
        changed, tell = self._changed[connection]
        if not self.is_sqlite and tell is None:
            connection.execute(
                text("SELECT pg_notify(:channel, :topics)"),
                {"channel": CHANNEL, "topics": topics_text(named)},
            )
        changed |= named

    def wake(self, topics: frozenset[str]) -> None:
        """Tell those in this process who wait."""
        for listener in self.on_change:
            listener(topics)


def topics_text(topics: Collection[str]) -> str:
    """What a notice says; PostgreSQL takes less than 8,000 bytes."""
    return ",".join(sorted(topics))[:7000]


def _driver_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url


def _engine(url: str, pool_size: int) -> Engine:
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise ConfigError("BRIDGE_DATABASE_URL is no database address") from None
    if parsed.get_backend_name() != "sqlite":
        return create_engine(
            parsed, pool_size=pool_size, max_overflow=4, pool_timeout=10, pool_pre_ping=False, pool_recycle=1800,
            connect_args={"connect_timeout": 5, "options": _POSTGRES_OPTIONS},
        )  # fmt: skip
    engine = create_engine(
        parsed, pool_size=pool_size, max_overflow=8, pool_timeout=10, pool_use_lifo=True,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
    )  # fmt: skip
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _file_of(engine: Engine) -> Path | None:
    name = engine.url.database
    return Path(name) if name and name != ":memory:" else None


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000",
                   "cache_size=-32000", "journal_size_limit=67108864", "secure_delete=ON"):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("bridge_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _lock_key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


_NOT_NOW = ("AdminShutdown", "CrashShutdown", "ReadOnlySqlTransaction")
"""PostgreSQL restarts, or is no longer the server that takes writes."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn errors that mean "not now" into StoreUnavailable; errors of ours stay what they are."""
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(_first_line(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated or type(error.orig).__name__ in _NOT_NOW:
            raise StoreUnavailable(_first_line(error)) from error
        if getattr(error.orig, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            raise StoreUnavailable(_first_line(error)) from error
        raise


def _first_line(error: Exception) -> str:
    """The driver's own words, without the statement and its parameters, which hold personal data."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).splitlines()[0] if str(original) else ''}"[:300]
