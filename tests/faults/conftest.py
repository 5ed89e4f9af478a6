"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox, start_sandbox
from tests.faults.harness import Deployment, Outcome


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Partners of this test alone."""
    with start_sandbox() as running:
        yield running


@pytest.fixture
def deployment(tmp_path: Path, database_url: str, sandbox: RunningSandbox) -> Iterator[Deployment]:
    """An installation on either database; nothing runs yet, and nothing runs afterwards."""
    with Deployment(tmp_path, database_url, sandbox) as found:
        yield found


@pytest.fixture
def postgres_deployment(tmp_path: Path, postgres_url: str, sandbox: RunningSandbox) -> Iterator[Deployment]:
    """The same, for what only PostgreSQL can do."""
    with Deployment(tmp_path, postgres_url, sandbox) as found:
        yield found


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[Outcome], None]:
    """Puts a scenario's outcome into the table at the end of the run."""
    return lambda outcome: record_property("outcome", asdict(outcome))
