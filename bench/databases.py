"""The databases that are measured: new ones, what they can do at all, and what is in them."""

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
        """A context that yields the address of an empty database, which is gone afterwards."""

    def one_row_transactions(self) -> float:
        """How many transactions of one row a second one connection gets, as durable as the bridge's own."""


class Sqlite:
    """SQLite files in a folder."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def new(self) -> Iterator[str]:
        """The address of an empty database, which is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            yield f"sqlite:///{place}/bridge.db"

    def one_row_transactions(self) -> float:
        """See `Engine`."""
        with closing(sqlite3.connect(self._folder / "one-row.db", isolation_level=None)) as connection:
            connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t (v TEXT)"
            )

            def one() -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO t VALUES ('x')")
                connection.execute("COMMIT")

            return _per_second(one)


class Postgres:
    """Databases of a PostgreSQL server."""

    name = "PostgreSQL"

    def __init__(self, server: str) -> None:
        self._server = server

    @contextmanager
    def new(self) -> Iterator[str]:
        """The address of an empty database; gone afterwards, so that it is not tidied up during the next try."""
        name = f"bench_{uuid4().hex[:8]}"
        head, _, query = self._server.partition("?")
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
            yield f"{head.rsplit('/', 1)[0]}/{name}?{query}"
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            connection.execute("CHECKPOINT")

    def one_row_transactions(self) -> float:
        """See `Engine`."""
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (v TEXT)")

            def one() -> None:
                with connection.transaction():
                    connection.execute("INSERT INTO t VALUES ('x')")

            return _per_second(one)


def _per_second(work: Callable[[], None], seconds: float = 3.0) -> float:
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work()
        count += 1
    return count / seconds


class Store:
    """As much of a bridge's database as measuring needs, whichever it is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row that `query` gives."""
        with self._connected() as connection:
            return tuple(connection.execute(query).fetchone() or ())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows that `query` gives."""
        with self._connected() as connection:
            return [tuple(found) for found in connection.execute(query)]

    def change(self, statement: str) -> None:
        """Run one statement in a transaction of its own."""
        with self._connected() as connection:
            connection.execute(statement)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        if self._url.startswith("sqlite"):
            with closing(
                sqlite3.connect(self._url.removeprefix("sqlite:///"), isolation_level=None)
            ) as connection:
                yield connection
        else:
            with psycopg.connect(self._url, autocommit=True) as other:
                yield other

    def events(self) -> int:
        """How many events are stored."""
        return int(self.row("SELECT count(*) FROM events")[0])

    def wait_until_sent(self) -> None:
        """Return once nothing is unrouted or unfinished."""
        waiting = (
            "SELECT (SELECT count(*) FROM events WHERE routed_at IS NULL)"
            " + (SELECT count(*) FROM deliveries WHERE state IN ('pending', 'running', 'retrying'))"
        )
        end = time.perf_counter() + 300
        while self.row(waiting)[0]:
            time.sleep(0.25)
            if time.perf_counter() > end:
                raise SystemExit("the backlog does not drain")
