"""Fixtures: one browser for all tests of this process, because a start costs as much CPU time as ten pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser that the tests of this process use one after the other. Each begins with `reset`."""
    with chromium(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


@pytest.fixture
def chrome(browser: Chromium) -> Chromium:
    """A browser without cookies."""
    browser.reset()
    return browser
