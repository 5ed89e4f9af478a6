"""Fixtures for all tests: a clock, and databases of both kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from bridge.clock import Clock
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from tests.postgres import postgres


@pytest.fixture
def clock() -> Clock:
    """The clock of the test, which the test can advance."""
    return Clock()


@pytest.fixture(scope="session")
def postgres_locks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of this test run share; see `tests.postgres`."""
    directory = tmp_path_factory.getbasetemp()
    return directory.parent if "PYTEST_XDIST_WORKER" in os.environ else directory


@pytest.fixture(scope="session")
def postgres_server(postgres_locks: Path) -> Iterator[str]:
    """The URL of a PostgreSQL server that runs as long as this process of the test run."""
    with postgres(postgres_locks) as server:
        yield server.get_uri()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A new, empty database on PostgreSQL."""
    name = f"bridge_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"')
    head, _, query = postgres_server.partition("?")
    yield f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new, empty database on SQLite."""
    return f"sqlite:///{tmp_path}/bridge.db"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a new, empty database of either kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[Database]:
    """A migrated database of either kind, on the test's clock."""
    database = Database(database_url, clock)
    upgrade(database)
    yield database
    database.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the outcomes that fault tests recorded. It is here because only this file is loaded by the main process."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    rows = [row for report in calls for name, row in report.user_properties if name == "outcome"]
    if not rows:
        return
    rows = [list(rows[0]), *sorted([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    terminalreporter.section("outcomes of the injected faults")
    for row in rows:
        terminalreporter.line(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
