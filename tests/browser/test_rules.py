"""Try a change in a real browser: the journey without scripts, and what its results look like."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bridge.clock import Clock
from tests.browser.chromium import Chromium
from tests.browser.test_every_page import axe_violations, geometry_problems
from tests.integration.dashboard_site import TOKEN, Site, running_site
from tests.integration.test_web_rules import TrialHere, environment


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with running_site(folder, Clock(), trial=TrialHere(environment(folder))) as site:
        site.routed_event(direction="outbound", duration=0)
        yield site


@pytest.fixture
def page(chrome: Chromium, site: Site) -> Chromium:
    """A browser that is logged in."""
    chrome.log_in(site.url, TOKEN)
    return chrome


def change(page: Chromium, old: str, new: str) -> None:
    """Replace a text in the file of the form."""
    page.run(
        f"document.querySelector('#text').value = "
        f"document.querySelector('#text').value.replaceAll({json.dumps(old)}, {json.dumps(new)})"
    )


def check_page(page: Chromium) -> None:
    """Check what `test_every_page` checks of pages that a link opens."""
    found = geometry_problems(page) | axe_violations(page)
    assert not found, json.dumps(found, indent=1)
    page.emulate()
    assert [message for message in page.console if "status of 4" not in message] == []


def test_author_tries_a_change_in_three_clicks(page: Chromium, site: Site) -> None:
    page.open(f"{site.url}/")
    page.click("nav a[href$='rules']")
    page.click("a[href$='rules/try']")
    change(page, "we tried to reach you", "we just called you")
    page.click("button[value=plan]")
    assert "1 delivery would be different: 1 changed." in page.text
    assert page.run("document.querySelector('del').innerText") == "−tried to reach "
    assert page.run("document.querySelector('ins').innerText") == "+just called "
    check_page(page)


def test_errors_and_forecast_fit_on_every_screen(page: Chromium, site: Site) -> None:
    page.open(f"{site.url}/rules/try")
    change(page, "twilio.send_sms", "twilio.send_" + "s" * 120)
    page.click("button[value=check]")
    assert "1 error: the file would not be loaded" in page.text
    check_page(page)
    page.open(f"{site.url}/rules/try")
    page.fill("[name=event]", "call.busy")
    page.click("button[value=explain]")
    assert "1 delivery for this call.busy" in page.text
    check_page(page)
