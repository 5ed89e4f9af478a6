"""Database: one code path over SQLite and PostgreSQL for transactions, locks, the clock and error translation.

SQLite has one writer at a time, and writers wait in a queue. PostgreSQL has any number of concurrent writers;
decisions that must not be made twice concurrently are serialized with advisory locks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from bridge.clock import Clock
from bridge.dropped_fields import DroppedFields
from bridge.errors import ConfigError, StoreUnavailable
from bridge.store.crowded_keys import CrowdedKeysCache
from bridge.store.driver_errors import translate_errors
from bridge.store.event_cache import EventCache
from bridge.store.ingest_priority import IngestPriority
from bridge.store.postgres_engine import LOCK_TIMEOUT, driver_arguments, postgres_engine
from bridge.store.sealing import Sealer
from bridge.store.sqlite_write_queue import SqliteWriteQueue
from bridge.store.stalled_transactions import TRANSACTION_LIMIT, StalledTransactions
from bridge.store.write_health import WriteHealth

BUSY_SECONDS = 10
"""How long a writer on SQLite waits for another process before it fails."""
EVENTS_TOPIC = "events"
"""The topic of events to route, and of failures to follow up."""
ALL_TOPICS = "*"
"""Published when notifications may have been missed: listeners check everything."""
CHANNEL = "bridge"
"""The channel of PostgreSQL's NOTIFY that wakes idle workers."""
_MIGRATION_LOCK = "migrate"
_AUTOCOMMIT: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
_NOT_DURABLE = text("SET LOCAL synchronous_commit = off")


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
        drop_fields: Sequence[str] = (),
        encryption_keys: Sequence[str] = (),
    ) -> None:
        self.clock = clock or Clock()
        self.default_country = default_country
        """The country whose national phone numbers are understood in events that are read (BRIDGE_DEFAULT_COUNTRY)."""
        self.dropped_fields = DroppedFields(drop_fields) if drop_fields else None
        """Removes the fields of events that are never stored (BRIDGE_DROP_FIELDS)."""
        self.has_deleted_events: bool | None = None
        """Whether events were deleted whose duplicates have to be recognized (BRIDGE_DELETE_AFTER); None: not known."""
        self.url = _driver_url(url)
        self.is_sqlite = self.url.startswith("sqlite")
        self.engine = _engine(self.url, pool_size)
        self.sealer = Sealer(encryption_keys) if encryption_keys else None
        """Encrypts bodies at rest (BRIDGE_ENCRYPTION_KEYS)."""
        vars(self.engine.dialect)["bridge_sealer"] = self.sealer
        self.file = _sqlite_file(self.engine)
        """The file of SQLite; None on PostgreSQL and in memory."""
        self._write_queue = SqliteWriteQueue(self.file) if self.is_sqlite else None
        self._stalled = None if self.is_sqlite else StalledTransactions()
        self.write_health = WriteHealth()
        self.ingest_priority = IngestPriority()
        self.event_cache = EventCache()
        self.crowded_keys = CrowdedKeysCache()
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
        if self._stalled is not None:
            self._stalled.close()

    def driver_arguments(self) -> dict[str, Any]:
        """Return the arguments for a connection to PostgreSQL outside the pool."""
        return driver_arguments(self.engine.url)

    def has_tables(self) -> bool:
        """True if the tables exist; `bridge.store.migrate` checks their revision."""
        with translate_errors():
            return inspect(self.engine).has_table("events")

    @contextmanager
    def write(
        self, limit: float = TRANSACTION_LIMIT, *, autocommit: bool = False, durable: bool = True
    ) -> Iterator[Connection]:
        """Open a transaction that may write; raise StoreUnavailable if the database is unreachable or read-only.

        On PostgreSQL it fails after `limit` seconds, also if the server does not respond at all. With `autocommit`,
        each statement is a transaction of its own: for one statement, that saves the two that begin and commit it.

        A transaction that is not `durable` does not wait for the disk, which takes longer than most changes. A power
        cut may undo it, together with all later ones that are not durable, but not the end of a process, and none that
        a durable one follows. It is for what is done again in that case, such as pruning.
        """
        topics: set[str] = set()
        queue = self._write_queue.acquire() if self._write_queue else nullcontext()
        try:
            with (
                translate_errors(),
                queue,
                self.engine.connect() as conn,
                self._limit(conn, limit),
                nullcontext() if durable else self._not_durable(conn),
                self._begin(conn, autocommit),
            ):
                if not durable and not self.is_sqlite:
                    conn.execute(_NOT_DURABLE)
                notify_remote = self.notify_remote
                self._pending_topics[conn] = (topics, notify_remote)
                try:
                    yield conn
                finally:
                    del self._pending_topics[conn]
        except StoreUnavailable as error:
            self.write_health.on_error(error)
            raise
        if topics:
            self.notify_local(frozenset(topics))
            if notify_remote is not None:
                notify_remote(frozenset(topics))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read-only transaction; it never waits for writers."""
        with translate_errors(), self.engine.connect() as conn, self._limit(conn, TRANSACTION_LIMIT):
            yield conn.execution_options(bridge_reads=True)

    @contextmanager
    def migration(self) -> Iterator[Connection]:
        """Open a transaction without limits of time for migrations, one process at a time."""
        if self.is_sqlite:
            with self.write() as conn:
                yield conn
            return
        with translate_errors(), self.engine.begin() as conn:
            conn.execute(text("SET LOCAL statement_timeout = 0"))
            conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            conn.execute(text("SET LOCAL lock_timeout = 0"))  # another process may take long to migrate
            self.lock(conn, [_MIGRATION_LOCK])
            # A table that waits for its lock makes everything else wait.
            conn.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            yield conn

    def _begin(self, conn: Connection, autocommit: bool) -> AbstractContextManager[Any]:
        if not autocommit:
            return conn.begin()
        # SQLite's driver begins no transactions, and SQLAlchemy would reset it to one that does.
        conn.execution_options(**({"bridge_autocommit": True} if self.is_sqlite else _AUTOCOMMIT))
        return nullcontext()

    @contextmanager
    def _not_durable(self, conn: Connection) -> Iterator[None]:
        """Let SQLite commit without waiting for the disk. It accepts the setting only outside of transactions."""
        if not self.is_sqlite:
            yield
            return
        driver_connection: Any = conn.connection.driver_connection
        driver_connection.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            driver_connection.execute("PRAGMA synchronous=FULL")

    def _limit(self, conn: Connection, seconds: float) -> AbstractContextManager[None]:
        return self._stalled.limit(conn, seconds) if self._stalled else nullcontext()

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
        if self.is_sqlite:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

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
        return postgres_engine(parsed, pool_size)
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


def _sqlite_file(engine: Engine) -> Path | None:
    name = engine.url.database
    return Path(name) if engine.dialect.name == "sqlite" and name and name != ":memory:" else None


def _prepare_sqlite(driver_connection: Any, _: object) -> None:
    cursor = driver_connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000",
                   "cache_size=-32000", "journal_size_limit=67108864", "secure_delete=ON"):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(conn: Connection) -> None:
    options = conn.get_execution_options()
    if not options.get("bridge_autocommit"):
        conn.exec_driver_sql("BEGIN" if options.get("bridge_reads") else "BEGIN IMMEDIATE")


def _lock_number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
