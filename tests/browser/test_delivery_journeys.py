"""What operators do with deliveries and reviews, in a real browser without scripts, within a number of clicks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.clock import Clock
from tests.browser.chromium import Chromium
from tests.integration.dashboard_site import TOKEN, Site, running_site
from tests.integration.test_dashboard_deliveries import NO_NUMBER, failed_delivery, reviews


class Operator:
    """A person at a phone or a desk who counts their clicks."""

    def __init__(self, chrome: Chromium, site: Site) -> None:
        self._chrome = chrome
        self._site = site
        self.clicks = 0

    def open(self, path: str) -> None:
        self._chrome.open(f"{self._site.url}{path}")
        self.clicks = 0

    def click(self, selector: str) -> None:
        self._chrome.click(selector)
        self.clicks += 1

    @property
    def text(self) -> str:
        return self._chrome.text


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(tmp_path, clock) as site:
        yield site


@pytest.fixture
def operator(chrome: Chromium, site: Site) -> Operator:
    chrome.log_in(site.url, TOKEN)
    chrome.emulate(390, 844, scripts=False)
    return Operator(chrome, site)


def test_review_is_marked_as_delivered_with_one_click(operator: Operator, site: Site) -> None:
    (review,) = reviews(site)
    operator.open("/review")
    assert "Did this text message reach Kari 0 Nord?" in operator.text
    operator.click("button[value=delivered]")
    assert "The delivery was marked as delivered." in operator.text
    assert (operator.clicks, site.engine.show(review)["state"]) == (1, "succeeded")


def test_review_is_resent_with_two_clicks_the_first_of_which_asks(operator: Operator, site: Site) -> None:
    (review,) = reviews(site)
    operator.open("/review")
    assert "gets it twice" not in operator.text
    operator.click("summary[aria-label^='Not delivered']")
    assert "goes to +13105550110 at once" in operator.text
    assert site.engine.show(review)["state"] == "needs_review"
    operator.click("button[value=retry]")
    assert "The delivery will be sent again." in operator.text
    assert (operator.clicks, site.engine.show(review)["state"]) == (2, "pending")


def test_three_reviews_with_one_cause_are_decided_with_two_clicks(operator: Operator, site: Site) -> None:
    ids = reviews(site, 3)
    operator.open("/review")
    operator.click(".group summary")
    operator.click(".group button[value=delivered]")
    assert "3 deliveries were marked as delivered." in operator.text
    assert (operator.clicks, {site.engine.show(one)["state"] for one in ids}) == (2, {"succeeded"})


def test_failed_deliveries_of_a_connection_are_retried_with_four_clicks(
    operator: Operator, site: Site
) -> None:
    ids = [failed_delivery(site, NO_NUMBER) for _ in range(3)]
    operator.open("/deliveries?connection=desk")
    operator.click(".chips a[href*='state=failed']")
    operator.click("button[value=retry-all]")
    assert "Retry 3 deliveries?" in operator.text
    operator.click("input[required]")
    operator.click("button.danger")
    assert "3 deliveries will be retried now" in operator.text
    assert (operator.clicks, {site.engine.show(one)["state"] for one in ids}) == (4, {"pending"})


def test_retry_that_is_not_confirmed_changes_nothing(operator: Operator, site: Site) -> None:
    delivery_id = failed_delivery(site, NO_NUMBER)
    operator.open("/deliveries/confirm?action=retry-all&state=failed")
    operator.click("button.danger")
    assert "Retry 1 delivery?" in operator.text, "the browser asks for the confirmation first"
    assert site.engine.show(delivery_id)["state"] == "failed"
