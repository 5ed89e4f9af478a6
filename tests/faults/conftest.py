"""Fixtures of the fault tests, and the table that they print in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox import RunningSandbox, start_sandbox
from tests.faults.harness import Deployment, Outcome

_OUTCOMES = pytest.StashKey[list[Outcome]]()


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
def report(request: pytest.FixtureRequest) -> Callable[[Outcome], None]:
    """Puts a scenario's outcome into the table at the end of the run."""
    return request.config.stash.setdefault(_OUTCOMES, []).append


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table."""
    outcomes = config.stash.get(_OUTCOMES, [])
    if not outcomes:
        return
    rows = [[field.name for field in fields(Outcome)]]
    rows += [[str(value) for value in astuple(outcome)] for outcome in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    terminalreporter.section("what the faults led to")
    for row in rows:
        terminalreporter.line(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
