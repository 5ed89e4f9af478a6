"""Fixtures: one service and its mock providers for all tests of the command line.

Each test looks only at the events it sent.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.commands import RULES
from tests.acceptance.service_process import ServiceProcess, running_service


@pytest.fixture(scope="session")
def providers() -> Iterator[RunningSandbox]:
    """The mock providers of `service`."""
    with start_sandbox() as running:
        yield running


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, providers: RunningSandbox) -> Iterator[ServiceProcess]:
    """A running service."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    with running_service(folder, providers.environment) as running:
        yield running


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Mock providers for one test."""
    with start_sandbox() as running:
        yield running
