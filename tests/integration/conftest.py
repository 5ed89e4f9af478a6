"""Fixtures that several integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from bridge.clock import Clock
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.store.database import Database
from bridge.testing import StubServer
from tests.integration.crm import CrmConnection
from tests.integration.dashboard_site import Site, running_site
from tests.integration.engine import Engine


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


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    """A connection to a HubSpot account in which `bridge connections setup` was run."""
    connection = CrmConnection("hubspot", sandbox)
    connection.connected.setup()
    connection.requests()
    yield connection
    connection.close()


@pytest.fixture
def salesforce(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    """A connection to a Salesforce org."""
    connection = CrmConnection("salesforce", sandbox)
    yield connection
    connection.close()


@pytest.fixture
def server() -> Iterator[StubServer]:
    """A stub of a provider."""
    with StubServer() as stub:
        yield stub


@pytest.fixture
def engine(database: Database) -> Engine:
    """A worker with a fake provider, on either database."""
    return Engine(database)


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    """The web application, without events."""
    with running_site(tmp_path, clock) as site:
        yield site


@pytest.fixture
def browser(site: Site) -> Iterator[httpx.Client]:
    """A browser that is logged in to the dashboard of `site`."""
    with site.browser() as client:
        yield client


@pytest.fixture
def api(site: Site) -> Iterator[httpx.Client]:
    """A client of the API of `site` with the admin token."""
    with site.client() as client:
        yield client
