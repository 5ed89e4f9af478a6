"""The log page and the unsubscribe page as people see and use them, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from bridge.clock import Clock
from bridge.store.opt_outs import opt_outs
from bridge.web.unsubscribe import unsubscribe_link
from tests.asgi_server import serving
from tests.browser.chromium import Chromium, chromium
from tests.integration.dashboard_site import TOKEN, Site, site
from tests.integration.test_dashboard import hostile_pages, in_review

SECRET = "a secret of at least sixteen"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


@pytest.fixture
def chrome(browser: Chromium) -> Chromium:
    """A browser without cookies."""
    browser.forget()
    browser.console.clear()
    browser.look()
    return browser


@pytest.fixture
def running(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with site(tmp_path, clock, secret=SECRET) as running:
        yield running


@pytest.fixture
def page(chrome: Chromium, running: Site) -> Chromium:
    """A browser that is logged in."""
    chrome.open(f"{running.url}/login")
    chrome.fill("#token", TOKEN)
    chrome.click("button.primary")
    assert chrome.url == f"{running.url}/"
    return chrome


def test_the_printed_link_logs_in_and_leaves_no_token_behind(chrome: Chromium, running: Site) -> None:
    chrome.open(f"{running.url}/login#token={TOKEN.replace(' ', '%20')}")
    assert chrome.url == f"{running.url}/"
    assert "Deliveries" in chrome.text
    assert chrome.run("document.cookie") == "", "no script can read the cookie"
    chrome.back()
    assert "token=" not in chrome.url


def test_who_is_not_logged_in_is_led_through_the_form_to_where_he_wanted(
    chrome: Chromium, running: Site
) -> None:
    event = running.routed_event()
    chrome.open(f"{running.url}/events/{event}?x=1")
    assert "/login?next=" in chrome.url
    chrome.fill("#token", "wrong")
    chrome.click("button.primary")
    assert "That is not the token" in chrome.text
    chrome.fill("#token", TOKEN)
    chrome.click("button.primary")
    assert chrome.url == f"{running.url}/events/{event}?x=1"


def test_a_link_in_a_chat_opens_for_who_is_logged_in(page: Chromium, running: Site) -> None:
    link = f"{running.url}/events/{running.routed_event()}"

    async def chat(_: object) -> HTMLResponse:
        return HTMLResponse(f'<a href="{link}">look</a>')

    with serving(Starlette(routes=[Route("/", chat)])) as elsewhere:
        page.open(elsewhere.replace("127.0.0.1", "localhost"))
        page.click("a")
    assert page.url == link
    assert "Why each rule fired or not" in page.text


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_person_resolves_a_review_with_and_without_scripts(
    page: Chromium, running: Site, scripts: bool
) -> None:
    ident = in_review(running)
    page.look(scripts=scripts)
    page.open(running.url)
    assert "Waiting for you: 1" in page.text
    page.click('button[value="succeeded"]')
    assert page.url == f"{running.url}/"
    assert "Waiting for you" not in page.text
    assert running.engine.show(ident)["state"] == "succeeded"


def test_another_site_can_act_on_nothing(page: Chromium, running: Site) -> None:
    target = f"{running.url}/connections/desk/pause"

    async def evil(_: object) -> HTMLResponse:
        return HTMLResponse(f'<form method="post" action="{target}"><button>win a prize</button></form>')

    with serving(Starlette(routes=[Route("/", evil)])) as elsewhere:
        for address in (elsewhere, elsewhere.replace("127.0.0.1", "localhost")):  # same site, and another one
            page.open(address)
            page.click("button")
    page.open(f"{running.url}/connections")
    assert "paused" not in page.run("document.querySelector('tbody').innerText")


def test_nobody_frames_it(page: Chromium, running: Site) -> None:
    async def frame(_: object) -> HTMLResponse:
        return HTMLResponse(f'<iframe src="{running.url}/"></iframe>')

    with serving(Starlette(routes=[Route("/", frame)])) as elsewhere:
        page.open(elsewhere)
        assert any("frame-ancestors" in words for words in page.console), page.console


def test_nothing_from_outside_runs(page: Chromium, running: Site, clock: Clock) -> None:
    for path in hostile_pages(running, clock):
        page.open(f"{running.url}{path}")
        assert page.run("window.hacked") is None, path
        assert page.run("document.images.length") == 0, path
    complaints = [words for words in page.console if "the server responded with a status of 4" not in words]
    assert complaints == [], "not even the content security policy had anything to stop"


@pytest.mark.parametrize("width", [360, 390, 768, 1200])
def test_every_page_fits_the_screen(page: Chromium, running: Site, clock: Clock, width: int) -> None:
    paths = hostile_pages(running, clock)[:12]
    page.look(width, 800)
    for path in paths:
        page.open(f"{running.url}{path}")
        assert page.run("document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(
    page: Chromium, running: Site, clock: Clock, dark: bool
) -> None:
    paths = hostile_pages(running, clock)[:12]
    page.look(dark=dark)
    for path in paths:
        page.open(f"{running.url}{path}")
        assert page.run(_FAINT) == [], path


# The contrast of every visible text with its ground, by WCAG's formula; 4.5 is what AA asks for.
_FAINT = """
(() => {
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')]
    .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(element => element.checkVisibility() && element.getBoundingClientRect().width > 1)
    .map(element => {
      const [one, two] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
      return [(Math.max(one, two) + .05) / (Math.min(one, two) + .05), element.outerHTML.slice(0, 80)];
    })
    .filter(([contrast]) => contrast < 4.5);
})()
"""


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Chromium, running: Site) -> None:
    in_review(running)
    event = running.routed_event()
    for path in ("/", f"/events/{event}", "/connections", "/login"):
        page.open(f"{running.url}{path}")
        nameless = page.run(
            "[...document.querySelectorAll('a, button, input:not([type=hidden]):not([hidden]), select, summary')]"
            ".filter(e => !(e.innerText.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
        )
        assert nameless == [], path
        assert page.run("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0


def test_a_reader_leaves_the_list_with_one_button(chrome: Chromium, running: Site) -> None:
    link = unsubscribe_link(running.url, SECRET)("email", "ines@okafor.example")
    assert link is not None
    chrome.look(390, 800)
    chrome.open(link)
    assert "Do you want no more e-mails to i***@okafor.example?" in chrome.text
    assert opt_outs(running.database) == []
    chrome.click("button")
    assert "You are unsubscribed" in chrome.text
    assert [row["address"] for row in opt_outs(running.database)] == ["ines@okafor.example"]
