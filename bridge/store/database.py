"""Database: one code path over SQLite and PostgreSQL for transactions, locks, the clock and error translation.

SQLite has one writer at a time, and writers wait in a queue. PostgreSQL has any number of concurrent writers;
decisions that must not be made twice concurrently are serialized with advisory locks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from bridge.clock import Clock
from bridge.errors import ConfigError, StoreUnavailable
from bridge.store.event_cache import EventCache
from bridge.store.ingest_priority import IngestPriority
from bridge.store.sqlite_write_queue import SqliteWriteQueue

BUSY_SECONDS = 10
"""How long a writer on SQLite waits for another process before it fails."""
_POSTGRES_OPTIONS = (
    "-c lock_timeout=15s -c statement_timeout=60s"
    # A worker that freezes or loses its network inside a transaction must not hold its locks until it comes back.
    " -c idle_in_transaction_session_timeout=5s"
)
EVENTS_TOPIC = "events"
"""The topic of events to route, and of failures to follow up."""
ALL_TOPICS = "*"
"""Published when notifications may have been missed: listeners check everything."""
CHANNEL = "bridge"
"""The channel of PostgreSQL's NOTIFY that wakes idle workers."""


ChangeListener = Callable[[frozenset[str]], None]
"""Called with the topics on which something has changed."""


class Database:
    """A connection pool, and the few operations that differ between SQLite and PostgreSQL."""

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        pool_size: int = 8,
        default_country: str | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.default_country = default_country
        """The country whose national phone numbers are understood in events that are read (BRIDGE_DEFAULT_COUNTRY)."""
        self.url = _driver_url(url)
        self.is_sqlite = self.url.startswith("sqlite")
        self.engine = _engine(self.url, pool_size)
        self._write_queue = SqliteWriteQueue(_sqlite_file(self.engine)) if self.is_sqlite else None
        self.ingest_priority = IngestPriority()
        self.event_cache = EventCache()
        self._pending_topics: dict[Connection, tuple[set[str], ChangeListener | None]] = {}
        self.listeners: list[ChangeListener] = []
        """Called in this process after each commit that published topics."""
        self.notify_remote: ChangeListener | None = None
        """Notifies the other processes after a commit; if None, the transaction itself notifies them."""

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()
        if self._write_queue is not None:
            self._write_queue.close()

    def has_tables(self) -> bool:
        """True if the tables exist; `bridge.store.migrate` checks their revision."""
        with translate_errors():
            return inspect(self.engine).has_table("events")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may write; raise StoreUnavailable if the database is unreachable or read-only."""
        topics: set[str] = set()
        queue = self._write_queue.acquire() if self._write_queue else nullcontext()
        with translate_errors(), queue, self.engine.begin() as conn:
            notify_remote = self.notify_remote
            self._pending_topics[conn] = (topics, notify_remote)
            try:
                yield conn
            finally:
                del self._pending_topics[conn]
        if topics:
            self.notify_local(frozenset(topics))
            if notify_remote is not None:
                notify_remote(frozenset(topics))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read-only transaction; it never waits for writers."""
        with translate_errors(), self.engine.connect() as conn:
            yield conn.execution_options(bridge_reads=True)

    def now(self, conn: Connection) -> datetime:
        """Return the current time by the clock that all workers share: on PostgreSQL, the database's."""
        if self.is_sqlite:
            return self.clock.now()
        instant: datetime = conn.execute(text("SELECT clock_timestamp()")).scalar_one()
        return instant + self.clock.shift

    def lock(self, conn: Connection, keys: Iterable[str]) -> None:
        """Hold an advisory lock on each key until the transaction ends; other workers wait for it.

        The locks are always taken in the same order, so two workers never wait for each other. SQLite needs no locks,
        because it has one writer at a time.
        """
        if self.is_sqlite:
            return
        numbers = sorted({_lock_number(key) for key in keys})
        if numbers:
            conn.execute(
                text(
                    "SELECT pg_advisory_xact_lock(k) FROM (SELECT unnest(CAST(:keys AS bigint[])) AS k) AS keys"
                ),
                {"keys": numbers},
            )

    def insert(self, table: Table) -> Any:
        """Return the dialect's INSERT, which supports ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def insert_new(self, table: Table) -> Insert:
        """Return an INSERT that skips rows whose keys exist."""
        statement: Insert = self.insert(table).on_conflict_do_nothing()
        return statement

    def publish(self, conn: Connection, topics: Iterable[str]) -> None:
        """Notify the listeners of these topics, in this process and the others, once the transaction has committed.

        A topic is `events` (an event to route) or the name of a connection (a delivery to attempt).
        """
        published = set(topics)
        pending, notify_remote = self._pending_topics[conn]
        if not self.is_sqlite and notify_remote is None:
            conn.execute(
                text("SELECT pg_notify(:channel, :topics)"),
                {"channel": CHANNEL, "topics": encode_topics(published)},
            )
        pending |= published

    def notify_local(self, topics: frozenset[str]) -> None:
        """Call the listeners in this process."""
        for listener in self.listeners:
            listener(topics)


def encode_topics(topics: Collection[str]) -> str:
    """Return the payload of a notification; PostgreSQL accepts less than 8,000 bytes."""
    return ",".join(sorted(topics))[:7000]


def _driver_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url


def _engine(url: str, pool_size: int) -> Engine:
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise ConfigError("BRIDGE_DATABASE_URL is not a valid database URL") from None
    if parsed.get_backend_name() != "sqlite":
        _check_options(parsed)
        return create_engine(
            parsed, pool_size=pool_size, max_overflow=4, pool_timeout=10, pool_pre_ping=False, pool_recycle=1800,
            connect_args={"connect_timeout": 5, "options": _POSTGRES_OPTIONS},
        )  # fmt: skip
    # A dry run's database is in memory and exists as long as its one connection.
    pool_size, max_overflow = (pool_size, 8) if parsed.database else (1, 0)
    engine = create_engine(
        parsed, poolclass=QueuePool, pool_size=pool_size, max_overflow=max_overflow, pool_timeout=10,
        pool_use_lifo=True,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
    )  # fmt: skip
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _check_options(url: URL) -> None:
    """Raise ConfigError for an option that the driver does not know: it would fail at every connection."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    try:
        make_conninfo(**url.get_dialect()().create_connect_args(url)[1])
    except ProgrammingError:  # repeats the option
        raise ConfigError(
            "BRIDGE_DATABASE_URL has an unknown option after the ?: write one of PostgreSQL's connection parameters, "
            "such as ?sslmode=require"
        ) from None


def _sqlite_file(engine: Engine) -> Path | None:
    name = engine.url.database
    return Path(name) if name and name != ":memory:" else None


def _prepare_sqlite(driver_connection: Any, _: object) -> None:
    cursor = driver_connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000",
                   "cache_size=-32000", "journal_size_limit=67108864", "secure_delete=ON"):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(conn: Connection) -> None:
    reads = conn.get_execution_options().get("bridge_reads")
    conn.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _lock_number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


_UNAVAILABLE = ("AdminShutdown", "CrashShutdown", "ReadOnlySqlTransaction")
"""Errors raised while PostgreSQL restarts, or when the server no longer accepts writes."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise StoreUnavailable in place of errors that mean "not now"; let programming errors pass."""
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(_first_line(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated or type(error.orig).__name__ in _UNAVAILABLE:
            raise StoreUnavailable(_first_line(error)) from error
        if getattr(error.orig, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            raise StoreUnavailable(_first_line(error)) from error
        raise


def _first_line(error: Exception) -> str:
    """Return the driver's message without the statement and its parameters, which hold personal data."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).splitlines()[0] if str(original) else ''}"[:300]
