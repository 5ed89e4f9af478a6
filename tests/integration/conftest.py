"""Fixtures for tests that talk to the providers of the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from bridge.sandbox import RunningSandbox, start_sandbox


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[RunningSandbox]:
    """One sandbox for the whole session. Tests use `sandbox`."""
    with start_sandbox() as running:
        yield running


@pytest.fixture
def sandbox(running_sandbox: RunningSandbox) -> RunningSandbox:
    """All providers with empty accounts, no faults and the current time."""
    running_sandbox.clock.shift = timedelta(0)
    running_sandbox.reset()
    return running_sandbox
