"""Every form of the dashboard: after an action the browser is on a page that says what was done, or why nothing was."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from bridge.clock import Clock
from tests.integration.dashboard_site import READ_TOKEN, running_site
from tests.integration.populated_site import PopulatedSite, fill
from tests.integration.test_web_admin import READING_POSTS

SAMPLES = {"address": "+13105550111"}
"""Field -> value that the action accepts."""
PREVIEWS = ("/contacts/import",)
"""Their first POST shows a preview, and changes nothing."""


@pytest.fixture
def populated(tmp_path: Path, clock: Clock) -> Iterator[PopulatedSite]:
    with running_site(tmp_path, clock) as site:
        yield fill(site)


class Forms(HTMLParser):
    """The forms of a page that post: their action, and their fields with the values that a reader could send."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []
        self._fields: dict[str, str] | None = None
        self._select = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        name, value = values.get("name") or "", values.get("value") or ""
        if tag == "form":
            self._fields = {} if values.get("method") == "post" else None
            if self._fields is not None:
                self.forms.append((values.get("action") or "", self._fields))
        elif self._fields is None or not (name or tag == "option"):
            return
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            self._fields.setdefault(self._select, value)
        elif tag == "textarea":
            self._fields[name] = "a reason"
        elif tag in ("input", "button") and values.get("type") not in ("checkbox", "radio"):
            sample = SAMPLES.get(name, "a reason") if "required" in values else ""
            self._fields.setdefault(name, value or sample)

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "form":
            self._fields = None


def test_every_action_is_followed_by_a_message(populated: PopulatedSite) -> None:
    silent, sent = {}, set()
    with populated.site.browser() as browser:
        for path in populated.pages:
            page = browser.get(path)
            for action, fields in Forms(page.text).forms:
                target = str(page.url.join(action)) if action else str(page.url)
                if (
                    httpx.URL(target).path in (*READING_POSTS, *PREVIEWS, "/logout")
                    or (target, *fields) in sent
                ):
                    continue
                sent.add((target, *fields))
                response = browser.post(target, data=fields, follow_redirects=True)
                if response.status_code != 200 or 'role="status"' not in response.text.partition("<main")[2]:
                    silent[f"{path}: {target.removeprefix(populated.site.url)}"] = response.status_code
    assert silent == {}
    assert len(sent) > 10


def test_a_reader_without_the_right_to_act_sees_no_action(populated: PopulatedSite) -> None:
    actions = set()
    with populated.site.browser(token=READ_TOKEN) as browser:
        for path in populated.pages:
            page = browser.get(path)
            for action, _ in Forms(page.text).forms:
                if page.url.join(action).path not in (*READING_POSTS, "/logout"):
                    actions.add(f"{path}: {action}")
    assert actions == set()
