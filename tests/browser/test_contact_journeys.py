"""Journeys of an operator who is asked about a person, within their budget of clicks, on a phone as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.clock import Clock
from tests.browser.chromium import Chromium
from tests.integration.contact_stories import KENJI, ROSA, Stories, tell
from tests.integration.dashboard_site import TOKEN, Site, running_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), Clock()) as site:
        yield site


@pytest.fixture(scope="module")
def stories(site: Site) -> Stories:
    return tell(site)


@pytest.fixture(scope="module", autouse=True)
def logged_in(browser: Chromium, site: Site) -> None:
    browser.reset()
    browser.log_in(site.url, TOKEN)


def ask(browser: Chromium, site: Site, query: str) -> str:
    """Type into the search box of the overview and press its button, the one click; return the visible text."""
    browser.open(site.url)
    browser.fill("#q", query)
    browser.click(".search button")
    return browser.text


def is_above_the_fold(browser: Chromium, text: str) -> bool:
    """Return whether the element with this text is visible without scrolling."""
    return bool(
        browser.run(
            "[...document.querySelectorAll('main *')].some(element => element.children.length < 3"
            f" && element.textContent.includes({text!r}) && element.getBoundingClientRect().bottom <= innerHeight)"
        )
    )


@pytest.mark.parametrize("width", [390, 1440])
def test_opted_out_person_is_explained_after_one_click(
    browser: Chromium, site: Site, stories: Stories, width: int
) -> None:
    """J2: why did +1 415 555 0123 get no text?"""
    browser.emulate(width, 844)
    text = ask(browser, site, "+1 (415) 555-0123")
    assert browser.url == f"{site.url}/contacts/{stories.rosa}", "no number in the URL"
    assert "the recipient opted out of text messages" in text
    assert is_above_the_fold(browser, "No text message, WhatsApp message or call")


@pytest.mark.parametrize("width", [390, 1440])
def test_unmet_condition_is_named_after_one_click(
    browser: Chromium, site: Site, stories: Stories, width: int
) -> None:
    """J2b: a rule did not fire. Its event is one more click away, and reads well on a phone."""
    browser.emulate(width, 844)
    text = ask(browser, site, KENJI[-4:])
    assert "text-when-not-reached did not fire: event.direction is inbound, expected outbound" in text
    browser.click("details.panel a")
    assert browser.url == f"{site.url}/events/{stories.inbound}"
    assert is_above_the_fold(
        browser, "missed by one condition: event.direction is inbound, expected outbound"
    )
    marks = browser.run(
        "[...document.querySelectorAll('.conditions .mark')].map(mark => mark.textContent).join('')"
    )
    assert marks.startswith("✓✗✓✓")


def test_unknown_number_shows_what_may_be_the_cause(browser: Chromium, site: Site, stories: Stories) -> None:
    """J2c: the event was rejected, or the number has no country code."""
    browser.emulate()
    text = ask(browser, site, "+14155550888")
    assert "Nothing is stored about +14155550888." in text
    assert "8 requests were rejected (signature wrong)" in text
    browser.click("main a[href$=rejected]")
    assert "bridge heppu webhooks list" in browser.text
    assert browser.url == f"{site.url}/rejected"
    ask(browser, site, "(415) 555-0123")
    assert ROSA in browser.text, "a national number of the most frequent country"


def test_opt_out_takes_two_clicks_and_can_be_undone(browser: Chromium, site: Site, stories: Stories) -> None:
    browser.emulate(scripts=False)
    browser.open(f"{site.url}/contacts/{stories.inbound}")
    browser.emulate()
    browser.click(".permissions summary")
    browser.click(".permissions details[open] button")
    assert "The opt-out was saved." in browser.text
    browser.click("form.inline button")
    assert "The opt-out was removed." in browser.text
    assert browser.console == []
