"""Journeys on the overview: is all well, and did the outage of the night recover, each without a click."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.clock import Clock
from bridge.store.workers import record_heartbeat
from tests.browser.chromium import Chromium
from tests.integration.dashboard_site import TOKEN, running_site
from tests.integration.test_web_overview import outage, recover

ABOVE_THE_FOLD = """
(text => {
  const found = [...document.querySelectorAll("main h1, main li, main p")]
    .filter(item => item.textContent.includes(text));
  return found.length > 0 && found[0].getBoundingClientRect().bottom <= innerHeight;
})(%r)
"""


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_overview_answers_without_a_click(
    tmp_path: Path, clock: Clock, chrome: Chromium, width: int, height: int
) -> None:
    with running_site(tmp_path, clock) as site:
        record_heartbeat(site.database, "one", "1.0.0")
        site.routed_event()
        outage(site)
        recover(site)
        chrome.emulate(width=width, height=height)
        chrome.log_in(site.url, TOKEN)
        assert chrome.run("document.title").startswith("All is well")
        for answer in (
            "All is well.",
            "Nothing needs you.",
            "Desk did not respond from",
            "had been processed by",
        ):
            assert chrome.run(ABOVE_THE_FOLD % answer), answer
        assert chrome.run("document.documentElement.scrollWidth") <= width
        assert chrome.console == []
