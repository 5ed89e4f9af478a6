"""Checks of every page of the dashboard in a real browser: geometry, accessibility, markup and the keyboard.

The pages are those of `tests.integration.populated_site`. One browser opens each page once, in several sizes and both
color schemes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest

from bridge.clock import Clock
from tests.browser.chromium import Chromium, chromium
from tests.integration.dashboard_site import TOKEN, running_site
from tests.integration.populated_site import PopulatedSite, fill

WIDTHS = (320, 390, 1440)
GEOMETRY = Path(__file__).with_name("page_checks.js").read_text()
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
RUN_AXE = """
axe.run(document, {resultTypes: ["violations"]}).then(result => result.violations.map(
  violation => `${violation.id}: ${violation.nodes.slice(0, 3).map(node => node.html.slice(0, 120)).join(" | ")}`))
"""
OPEN_DETAILS = "document.querySelectorAll('details').forEach(details => { details.open = true })"
MARKUP = """
({
  inline: [...document.querySelectorAll("*")].filter(element => element.getAttributeNames()
    .some(name => name === "style" || name.startsWith("on"))).map(element => element.outerHTML.slice(0, 100)),
  title: document.title,
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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, populated: PopulatedSite) -> Iterator[Chromium]:
    """A browser that is logged in."""
    with chromium(tmp_path_factory.mktemp("chromium")) as chrome:
        chrome.emulate()
        chrome.open(f"{populated.site.url}/login")
        chrome.fill("#token", TOKEN)
        chrome.click("button.primary")
        yield chrome


@pytest.fixture(scope="module")
def results(page: Chromium, populated: PopulatedSite) -> dict[str, dict[str, Any]]:
    """What the browser found on each page."""
    found = {}
    for path in populated.pages:
        page.emulate(1440)
        page.console.clear()
        page.open(f"{populated.site.url}{path}")
        result: dict[str, Any] = {"markup": page.run(MARKUP)}
        for state in ("closed", "open"):
            for width in WIDTHS:
                page.emulate(width)
                result[f"{state} {width}"] = page.run(GEOMETRY)
            page.run(OPEN_DETAILS)
        page.run(AXE)
        page.emulate(1440)
        result["axe light"] = page.run(RUN_AXE)
        page.emulate(390, dark=True)
        result["axe dark"] = page.run(RUN_AXE)
        result["console"] = [message for message in page.console if "status of 4" not in message]
        found[path] = result
    return found


def problems(results: dict[str, dict[str, Any]], *keys: str) -> dict[str, Any]:
    """Return what was found on each page under these keys, without what is in order."""
    return {
        f"{path} {key}": result[key]
        for path, result in results.items()
        for key in keys
        if any(result[key].values() if isinstance(result[key], dict) else result[key])
    }


def test_nothing_overflows_overlaps_or_breaks(results: dict[str, dict[str, Any]]) -> None:
    sizes = [f"{state} {width}" for state in ("closed", "open") for width in WIDTHS]
    found = problems(results, *sizes)
    assert not found, json.dumps(found, indent=1, ensure_ascii=False)


def test_axe_finds_no_violations(results: dict[str, dict[str, Any]]) -> None:
    found = problems(results, "axe light", "axe dark")
    assert not found, json.dumps(found, indent=1)


def test_content_security_policy_has_nothing_to_block(results: dict[str, dict[str, Any]]) -> None:
    assert problems(results, "console") == {}
    assert {path: inline for path, result in results.items() if (inline := result["markup"]["inline"])} == {}


def test_no_page_shows_backticks(results: dict[str, dict[str, Any]]) -> None:
    assert [path for path, result in results.items() if result["markup"]["backticks"]] == []


def test_titles_are_unique(results: dict[str, dict[str, Any]]) -> None:
    titles = Counter(result["markup"]["title"] for path, result in results.items() if "?" not in path)
    assert {title: count for title, count in titles.items() if count > 1} == {}
    assert all(result["markup"]["headings"] == 1 for result in results.values())
    assert {
        path: result for path, result in results.items() if result["markup"]["firstHeading"] != "H1"
    } == {}


def test_buttons_and_links_say_what_they_are_about(results: dict[str, dict[str, Any]]) -> None:
    found = {}
    for path, result in results.items():
        buttons = Counter(result["markup"]["buttons"])
        targets: dict[str, set[str]] = {}
        for name, target in result["markup"]["links"]:
            targets.setdefault(name, set()).add(target)
        same = [name for name, count in buttons.items() if count > 1]
        same += [name for name, urls in targets.items() if len(urls) > 1]
        if same:
            found[path] = same
    assert not found, json.dumps(found, indent=1)


def test_skip_link_leads_to_the_heading(page: Chromium, populated: PopulatedSite) -> None:
    page.emulate(1440)
    page.open(f"{populated.site.url}/deliveries")
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    page.press("Enter")
    assert page.run("document.activeElement.tagName") == "H1"
