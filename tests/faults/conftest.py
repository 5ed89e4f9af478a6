"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox, start_sandbox
from tests.faults import small_disk as disks
from tests.faults.harness import Deployment, Report
from tests.faults.own_postgres import Postgres
from tests.postgres import postgres


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("new_postgres", marks=[pytest.mark.postgres, pytest.mark.faults], id="postgres"),
    ]
)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a new database of either kind: SQLite in `make test`, and PostgreSQL as well in `make test-faults`."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Mock providers for this test alone."""
    with start_sandbox() as running:
        yield running


@pytest.fixture
def deployment(tmp_path: Path, database_url: str, sandbox: RunningSandbox) -> Iterator[Deployment]:
    """An installation on either database, without running processes; all are cleaned up afterwards."""
    with Deployment(tmp_path, database_url, sandbox) as deployment:
        yield deployment


@pytest.fixture
def postgres_deployment(
    tmp_path: Path, new_postgres_url: str, sandbox: RunningSandbox
) -> Iterator[Deployment]:
    """An installation on PostgreSQL."""
    with Deployment(tmp_path, new_postgres_url, sandbox) as deployment:
        yield deployment


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Return a function that adds a scenario's outcome to the table at the end of the run."""
    return lambda outcome: record_property("outcome", asdict(outcome))


@pytest.fixture
def own_postgres(shared_folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL server of this test alone."""
    with postgres(shared_folder) as server:
        yield Postgres(server)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An 8 MB disk."""
    with disks.small_disk(tmp_path / "disk") as folder:
        yield folder
