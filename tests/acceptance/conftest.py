"""One service with its partners for all tests of the command line; they look only at what they sent themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.commands import RULES
from tests.acceptance.service_process import Running, serving


@pytest.fixture(scope="session")
def partners() -> Iterator[RunningSandbox]:
    """The partners of `service`."""
    with start_sandbox() as running:
        yield running


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, partners: RunningSandbox) -> Iterator[Running]:
    """A running service."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    with serving(folder, partners.environment) as running:
        yield running
