"""Fixtures for all tests: a clock, and databases of both kinds. One PostgreSQL server serves the whole test run."""

from __future__ import annotations

import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import certifi
import psycopg
import pytest
import sqlalchemy
import typer.main
import typer.testing
from hypothesis import HealthCheck, settings

import connectors
from bridge.clock import Clock
from bridge.store import database as database_module
from bridge.store.database import Database
from tests.postgres import (
    ReusedDatabase,
    create_database,
    create_shared_folder,
    database_of,
    delete_shared_folder,
    reused_engine,
    shared_postgres,
)
from tests.sqlite import create_sqlite

sys.modules["bridge_connectors"] = connectors  # the name by which the bridge imports the shipped connectors

settings.register_profile(
    "short",
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],  # busy machines
)
settings.register_profile("long", settings.get_profile("short"), max_examples=200)
settings.load_profile("short")

SHARED_FOLDER = pytest.StashKey[Path]()
TESTS = Path(__file__).parent
WAITING = ("acceptance", "browser", "faults", "test_docs_connectors.py")
"""Folders and files whose tests start processes and mostly wait for them."""


@pytest.fixture(scope="session", autouse=True)
def shared_tls_context() -> Iterator[None]:
    """Let all HTTP clients share a TLS context: loading the root certificates takes 30 ms, even for plain HTTP."""
    create = ssl.create_default_context
    roots = os.environ.get("SSL_CERT_FILE") or certifi.where()  # where httpx looks for them
    shared = create(cafile=roots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ssl,
            "create_default_context",
            lambda *a, **k: shared if not a and k == {"cafile": roots} else create(*a, **k),
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_command() -> Iterator[None]:
    """Let all runs of the command line share its parser, which takes as long to build as most commands to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def clock() -> Clock:
    """The clock of the test, which the test can advance."""
    return Clock()


@pytest.fixture(scope="session")
def shared_folder(request: pytest.FixtureRequest) -> Path:
    """The folder that all processes of this test run share; see `tests.postgres`."""
    return request.config.stash[SHARED_FOLDER]


@pytest.fixture(scope="session")
def postgres_server(shared_folder: Path) -> str:
    """The URL of the PostgreSQL server of this test run."""
    return shared_postgres(shared_folder)


@pytest.fixture
def new_postgres_url(shared_folder: Path, postgres_server: str) -> Iterator[str]:
    """A database of this test alone on PostgreSQL, for a test that changes tables."""
    name = create_database(shared_folder)
    yield database_of(postgres_server, name)
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def reused_postgres(shared_folder: Path, postgres_server: str) -> Iterator[ReusedDatabase]:
    """A database on PostgreSQL that the tests of this process use one after the other.

    It does not end the transactions of a process that a busy machine lets wait for seconds.
    """
    url = database_of(postgres_server, create_database(shared_folder))
    url = f"{url}{'&' if '?' in url else '?'}options=-c%20idle_in_transaction_session_timeout%3D60s"
    with closing(ReusedDatabase(url)) as database:
        yield database


@pytest.fixture
def postgres_url(reused_postgres: ReusedDatabase) -> Iterator[str]:
    """An empty, migrated database on PostgreSQL. Creating a new one would take longer than most tests."""
    yield reused_postgres.url
    reused_postgres.empty()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new, migrated database on SQLite."""
    return create_sqlite(tmp_path / "bridge.db")


@pytest.fixture(scope="session")
def sqlite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `reused_sqlite_url`."""
    return tmp_path_factory.mktemp("sqlite")


@pytest.fixture
def reused_sqlite_url(sqlite_folder: Path) -> Iterator[str]:
    """An empty database on SQLite in a file that the tests of this process use one after the other."""
    yield create_sqlite(sqlite_folder / "bridge.db")
    for file in sqlite_folder.iterdir():
        file.unlink()


@pytest.fixture(
    params=["reused_sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], ids=["sqlite", "postgres"]
)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty, migrated database of either kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def engine_of() -> Iterator[Callable[[str, int], sqlalchemy.Engine]]:
    """Return the engine of a URL, the same for all tests of this process."""
    engines: list[sqlalchemy.Engine] = []

    @cache
    def engine_of(url: str, pool_size: int) -> sqlalchemy.Engine:
        engines.append(reused_engine(url, pool_size))
        return engines[-1]

    yield engine_of
    for engine in engines:
        engine.pool.dispose()


@pytest.fixture
def database(
    database_url: str, clock: Clock, engine_of: Callable[[str, int], sqlalchemy.Engine]
) -> Iterator[Database]:
    """An empty, migrated database of either kind, on the test's clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module, "_engine", engine_of)
        database = Database(database_url, clock)
    yield database
    database.close()


def pytest_configure(config: pytest.Config) -> None:
    """Create the folder that all processes of this test run share, or take it from the main process."""
    if hasattr(config, "workerinput"):  # a process of xdist
        config.stash[SHARED_FOLDER] = Path(config.workerinput["shared_folder"])
    else:
        config.stash[SHARED_FOLDER] = create_shared_folder()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # like Ctrl-C: fixtures stop the processes they started


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the shared folder to a process of xdist."""
    node.workerinput["shared_folder"] = str(node.config.stash[SHARED_FOLDER])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the files whose tests wait for processes among the others, so that no processor idles at the end.

    Each process of xdist begins with an equal part of the list.
    """
    if not hasattr(config, "workerinput"):
        return
    files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    waiting = [file for file in files if file[0].path.relative_to(TESTS).parts[0] in WAITING]
    others = [file for file in files if file not in waiting]
    tests_between = sum(map(len, others)) // (len(waiting) + 1)
    items.clear()
    passed = 0
    for file in others:
        items += file
        passed += len(file)
        while waiting and passed >= tests_between:
            items += waiting.pop(0)
            passed -= tests_between
    items += chain.from_iterable(waiting)


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection, which would examine them again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the PostgreSQL server, when all other processes of this test run have ended."""
    if not hasattr(config, "workerinput"):
        delete_shared_folder(config.stash[SHARED_FOLDER])


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
