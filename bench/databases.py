"""Databases for the benchmarks: creates them, measures their own speed and reads their content."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psycopg


class Engine(Protocol):
    """SQLite or PostgreSQL."""

    name: str

    def new(self) -> Any:
        """Return a context manager that yields the URL of an empty database and deletes it afterwards."""

    def one_row_transactions(self) -> float:
        """Return the one-row transactions per second of one connection, as durable as the bridge's own."""


class Sqlite:
    """SQLite files in a folder."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def new(self) -> Iterator[str]:
        """Yield the URL of an empty database and delete it afterwards."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            yield f"sqlite:///{folder}/bridge.db"

    def one_row_transactions(self) -> float:
        """See `Engine`."""
        with closing(sqlite3.connect(self._folder / "one-row.db", isolation_level=None)) as conn:
            conn.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t (v TEXT)"
            )

            def insert_row() -> None:
                conn.execute("BEGIN IMMEDIATE")
                conn.execute("INSERT INTO t VALUES ('x')")
                conn.execute("COMMIT")

            return _per_second(insert_row)


class Postgres:
    """Databases of a PostgreSQL server."""

    name = "PostgreSQL"

    def __init__(self, server: str) -> None:
        self._server = server

    @contextmanager
    def new(self) -> Iterator[str]:
        """Yield the URL of an empty database and drop it afterwards, so that no vacuum disturbs the next run."""
        name = f"bench_{uuid4().hex[:8]}"
        head, _, query = self._server.partition("?")
        with psycopg.connect(self._server, autocommit=True) as conn:
            conn.execute(f'CREATE DATABASE "{name}"')
            yield f"{head.rsplit('/', 1)[0]}/{name}?{query}"
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            conn.execute("CHECKPOINT")

    def one_row_transactions(self) -> float:
        """See `Engine`."""
        with psycopg.connect(self._server, autocommit=True) as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS t (v TEXT)")

            def insert_row() -> None:
                with conn.transaction():
                    conn.execute("INSERT INTO t VALUES ('x')")

            return _per_second(insert_row)


def _per_second(work: Callable[[], None], seconds: float = 3.0) -> float:
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work()
        count += 1
    return count / seconds


class BridgeDatabase:
    """The queries of a bridge's database, of either kind, that the benchmarks need."""

    def __init__(self, url: str) -> None:
        self._url = url

    def row(self, query: str) -> tuple[Any, ...]:
        """Return the one row of `query`."""
        with self._connected() as conn:
            return tuple(conn.execute(query).fetchone() or ())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of `query`."""
        with self._connected() as conn:
            return [tuple(row) for row in conn.execute(query)]

    def table(self, name: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return the columns and all rows of a table."""
        with self._connected() as conn:
            cursor = conn.execute(f"SELECT * FROM {name}")
            return [column[0] for column in cursor.description], [tuple(row) for row in cursor]

    def size(self) -> int:
        """Return the bytes on disk, without the write-ahead log."""
        if self._url.startswith("sqlite"):
            return Path(self._url.removeprefix("sqlite:///")).stat().st_size
        return int(self.row("SELECT pg_database_size(current_database())")[0])

    def change(self, statement: str) -> None:
        """Run one statement in its own transaction."""
        with self._connected() as conn:
            conn.execute(statement)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        if self._url.startswith("sqlite"):
            with closing(sqlite3.connect(self._url.removeprefix("sqlite:///"), isolation_level=None)) as conn:
                yield conn
        else:
            with psycopg.connect(self._url, autocommit=True) as conn:
                yield conn

    def events(self) -> int:
        """Return the number of stored events."""
        return int(self.row("SELECT count(*) FROM events")[0])

    def wait_until_final(self) -> None:
        """Wait until every event is routed and no delivery is running, pending or retrying within the hour."""
        soon = int((time.time() + 3600) * 1e6)
        unfinished = (
            "SELECT (SELECT count(*) FROM events WHERE routed_at IS NULL)"
            " + (SELECT count(*) FROM deliveries WHERE state = 'running')"
            f" + (SELECT count(*) FROM deliveries WHERE state IN ('pending', 'retrying') AND run_at < {soon})"
        )
        end = time.perf_counter() + 300
        while self.row(unfinished)[0]:
            time.sleep(0.25)
            if time.perf_counter() > end:
                raise SystemExit("the backlog did not drain within 300 s")
