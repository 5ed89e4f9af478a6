"""The dashboard and the unsubscribe page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from bridge.clock import Clock
from bridge.store.opt_out_list import list_opt_outs
from bridge.unsubscribe_links import unsubscribe_link
from tests.acceptance.service_process import eventually
from tests.asgi_server import serving
from tests.browser.chromium import Chromium
from tests.integration.dashboard_site import TOKEN, Site, running_site
from tests.integration.test_dashboard import delivery_in_review, hostile_pages

SECRET = "a secret of at least sixteen"


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(tmp_path, clock, keys=[SECRET]) as site:
        yield site


@pytest.fixture
def page(chrome: Chromium, site: Site) -> Chromium:
    """A browser that is logged in."""
    chrome.log_in(site.url, TOKEN)
    return chrome


def test_login_link_logs_in_and_removes_token_from_history(chrome: Chromium, site: Site) -> None:
    chrome.open(f"{site.url}/login#token={TOKEN.replace(' ', '%20')}")
    assert chrome.url == f"{site.url}/"
    assert "Overview" in chrome.text
    assert chrome.run("document.cookie") == "", "scripts cannot read the cookie"
    chrome.back()
    assert "token=" not in chrome.url


def test_login_redirects_to_requested_page(chrome: Chromium, site: Site) -> None:
    event = site.routed_event()
    chrome.open(f"{site.url}/events/{event}?x=1")
    assert "/login?next=" in chrome.url
    chrome.fill("#token", "wrong")
    chrome.click("button.primary")
    assert "Invalid admin token" in chrome.text
    chrome.fill("#token", TOKEN)
    chrome.click("button.primary")
    assert chrome.url == f"{site.url}/events/{event}?x=1"


def test_search_for_a_person_keeps_the_number_out_of_the_url(page: Chromium, site: Site) -> None:
    site.routed_event(direction="inbound")
    page.fill("[name=q]", "+1 212 555 0167")
    page.click(".search button")
    assert page.url.startswith(f"{site.url}/contacts/evt_")
    assert "did not fire: event.direction is inbound, expected outbound" in page.text


def test_cross_site_link_opens_with_session(page: Chromium, site: Site) -> None:
    link = f"{site.url}/events/{site.routed_event()}"

    async def chat(_: object) -> HTMLResponse:
        return HTMLResponse(f'<a href="{link}">look</a>')

    with serving(Starlette(routes=[Route("/", chat)])) as other_site:
        page.open(other_site.replace("127.0.0.1", "localhost"))
        page.click("a")
    # The page without a session leads to itself, so that the browser sends the cookie.
    assert eventually(lambda: "call.busy" in page.text)
    assert page.url == link


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_review_is_resolved_with_and_without_scripts(page: Chromium, site: Site, scripts: bool) -> None:
    delivery_id = delivery_in_review(site)
    page.emulate(scripts=scripts)
    page.open(f"{site.url}/review")
    page.click('button[value="delivered"]')
    assert page.url == f"{site.url}/review?done=delivered"
    assert "Nothing needs review" in page.text
    assert "marked as delivered" in page.text
    assert site.engine.show(delivery_id)["state"] == "succeeded"


def test_cross_site_form_changes_nothing(page: Chromium, site: Site) -> None:
    target = f"{site.url}/connections/desk/pause"

    async def attacker(_: object) -> HTMLResponse:
        return HTMLResponse(f'<form method="post" action="{target}"><button>win a prize</button></form>')

    with serving(Starlette(routes=[Route("/", attacker)])) as other_site:
        for address in (
            other_site,
            other_site.replace("127.0.0.1", "localhost"),
        ):  # same site, and cross-site
            page.open(address)
            page.click("button")
    page.open(f"{site.url}/connections")
    assert "paused" not in page.run("document.querySelector('tbody').innerText")


def test_page_cannot_be_framed(page: Chromium, site: Site) -> None:
    async def frame(_: object) -> HTMLResponse:
        return HTMLResponse(f'<iframe src="{site.url}/"></iframe>')

    with serving(Starlette(routes=[Route("/", frame)])) as other_site:
        page.open(other_site)
        assert any("frame-ancestors" in message for message in page.console), page.console


def test_hostile_content_does_not_execute(page: Chromium, site: Site, clock: Clock) -> None:
    page.emulate(320, 800)
    for path in hostile_pages(site, clock):
        page.open(f"{site.url}{path}")
        assert page.run("document.documentElement.scrollWidth") <= 320, path
        assert page.run("window.hacked") is None, path
        assert page.run("document.images.length") == 0, path
    errors = [message for message in page.console if "the server responded with a status of 4" not in message]
    assert errors == [], "the content security policy had nothing to block either"


def test_controls_are_keyboard_accessible_and_labeled(page: Chromium, site: Site) -> None:
    delivery_in_review(site)
    event = site.routed_event()
    for path in ("/", f"/events/{event}", "/connections", "/login"):
        page.open(f"{site.url}{path}")
        unlabeled = page.run(
            "[...document.querySelectorAll('a, button, input:not([type=hidden]):not([hidden]), select, summary')]"
            ".filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
        )
        assert unlabeled == [], path
        assert (
            page.run('document.querySelectorAll(\'[tabindex]:not([tabindex="0"], [tabindex="-1"])\').length')
            == 0
        )


def test_operator_stops_and_resumes_all_sending(page: Chromium, site: Site) -> None:
    site.routed_event()
    page.open(site.url)
    page.click("a.stop")
    page.fill("input[name=reason]", "wrong text in the morning message")
    page.click("main button.danger")
    assert page.url == f"{site.url}/?done=stopped"
    assert "Sending was stopped." in page.text
    page.open(f"{site.url}/events")
    assert "have been stopped by dashboard since" in page.text
    assert "wrong text in the morning message" in page.text
    page.click(".status-line a")
    assert "Send all 1" in page.text
    page.click("main button.primary")
    assert "Sending was started again." in page.text


def test_operator_cancels_what_waits_of_a_rule(page: Chromium, site: Site) -> None:
    site.routed_event()
    page.open(f"{site.url}/rules")
    page.click("a[href$='text-when-not-reached/cancel']")
    assert "1 twilio.send_sms" in page.text
    page.click("main button.danger")
    assert "1 waiting delivery was cancelled." in page.text


def test_recipient_unsubscribes_with_one_button(chrome: Chromium, site: Site) -> None:
    link = unsubscribe_link(site.url, [SECRET])("email", "ines@okafor.example")
    assert link is not None
    chrome.emulate(390, 800)
    chrome.open(link)
    assert "Do you want to stop receiving emails at i***@okafor.example?" in chrome.text
    assert list_opt_outs(site.database).items == []
    chrome.click("button")
    assert "You are unsubscribed" in chrome.text
    assert [row["address"] for row in list_opt_outs(site.database).items] == ["ines@okafor.example"]
