"""Checks of every page of the dashboard in a real browser: geometry, accessibility, markup and the keyboard.

The pages are those of `tests.integration.populated_site`. Each is opened once, in several sizes and both color schemes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest

from bridge.clock import Clock
from tests.browser.chromium import Chromium
from tests.integration.dashboard_site import TOKEN, running_site
from tests.integration.populated_site import PopulatedSite, fill

WIDTHS = (320, 390, 1440)
PARTS = 3
"""Tests that share the pages, so that none takes long on a busy machine."""
GEOMETRY = Path(__file__).with_name("page_checks.js").read_text()
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
RUN_AXE = """
axe.run(document, {resultTypes: ["violations"], %s}).then(result => result.violations.map(
  violation => `${violation.id}: ${violation.nodes.slice(0, 3).map(node => node.html.slice(0, 120)).join(" | ")}`))
"""
DEPENDS_ON_THE_SCREEN = 'runOnly: ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]'
"""The rules of axe whose result depends on colors and widths. The others, which take most of its time, run once."""
OPEN_DETAILS = "document.querySelectorAll('details').forEach(details => { details.open = true })"
MARKUP = """
({
  inline: [...document.querySelectorAll("*")].filter(element => element.getAttributeNames()
    .some(name => name === "style" || name.startsWith("on"))).map(element => element.outerHTML.slice(0, 100)),
  backticks: document.querySelector("main").innerText.includes("`"),
  headings: document.querySelectorAll("h1").length,
  firstHeading: document.querySelector("h1, h2, h3")?.tagName,
  buttons: [...document.querySelectorAll("main :is(button, summary)")]
    .filter(element => !element.closest(".numbers"))
    .map(element => element.ariaLabel || element.textContent.trim()),
  // The rest of the row or item says what a link in a table or list is about.
  links: [...document.querySelectorAll("main a:not(td a, li a)")]
    .map(link => [link.ariaLabel || link.textContent.trim(), link.href]),
})
"""


@pytest.fixture(scope="module")
def populated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PopulatedSite]:
    with running_site(tmp_path_factory.mktemp("site"), Clock()) as site:
        yield fill(site)


@pytest.fixture
def page(chrome: Chromium, populated: PopulatedSite) -> Chromium:
    """A browser that is logged in."""
    chrome.log_in(populated.site.url, TOKEN)
    return chrome


def geometry_problems(page: Chromium) -> dict[str, Any]:
    """Return what overflows, overlaps or breaks at each width."""
    found = {}
    for width in WIDTHS:
        page.emulate(width)
        found |= {f"{width}: {kind}": value for kind, value in page.run(GEOMETRY).items() if value}
    return found


def axe_violations(page: Chromium) -> dict[str, list[str]]:
    """Return the accessibility rules that the page violates, on a large light screen and on a small dark one."""
    page.run(AXE)
    page.emulate(1440)
    light = page.run(RUN_AXE % "")
    page.emulate(390, dark=True)
    dark = page.run(RUN_AXE % DEPENDS_ON_THE_SCREEN)
    return {name: result for name, result in (("axe, light", light), ("axe, dark", dark)) if result}


def markup_problems(page: Chromium) -> dict[str, Any]:
    """Return what is wrong in the markup, with the buttons that have one name and the links that share theirs."""
    markup = page.run(MARKUP)
    buttons = Counter(markup["buttons"])
    targets: dict[str, set[str]] = {}
    for name, target in markup["links"]:
        targets.setdefault(name, set()).add(target)
    found = {
        "inline styles and scripts": markup["inline"],
        "backticks": markup["backticks"],
        "first headings": []
        if (markup["headings"], markup["firstHeading"]) == (1, "H1")
        else markup["headings"],
        "buttons with one name": [name for name, count in buttons.items() if count > 1],
        "links with one name": [name for name, urls in targets.items() if len(urls) > 1],
    }
    return {kind: value for kind, value in found.items() if value != [] and value is not False}


@pytest.mark.parametrize("part", range(PARTS))
def test_pages_are_in_order(page: Chromium, populated: PopulatedSite, part: int) -> None:
    """Nothing overflows, overlaps or breaks, axe finds nothing, and the content security policy blocks nothing."""
    found: dict[str, dict[str, Any]] = {}
    for path in populated.pages[part::PARTS]:
        page.emulate(WIDTHS[0])
        page.console.clear()
        page.open(f"{populated.site.url}{path}")
        problems = markup_problems(page) | geometry_problems(page)
        page.run(OPEN_DETAILS)
        problems |= {f"open, {kind}": value for kind, value in geometry_problems(page).items()}
        problems |= axe_violations(page)
        if console := [message for message in page.console if "status of 4" not in message]:
            problems["console"] = console
        if problems:
            found[path] = problems
    assert not found, json.dumps(found, indent=1, ensure_ascii=False)


def test_titles_are_unique(populated: PopulatedSite) -> None:
    with populated.site.browser() as client:
        pages = [client.get(path).text for path in populated.pages if "?" not in path]
    titles = Counter(re.findall(r"<title>(.*?)</title>", page)[0] for page in pages)
    assert {title: count for title, count in titles.items() if count > 1} == {}


def test_skip_link_leads_to_the_heading(page: Chromium, populated: PopulatedSite) -> None:
    page.open(f"{populated.site.url}/deliveries")
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    page.press("Enter")
    assert page.run("document.activeElement.tagName") == "H1"
