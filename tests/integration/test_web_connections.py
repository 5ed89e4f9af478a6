"""Connections on the dashboard and in the API: state, history, pause, resume, probe and check of the account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from bridge.clock import Clock
from bridge.store.audit_log import list_audit_entries
from bridge.store.connection_status import connection_statuses
from bridge.store.connections import pause
from bridge.web.accounts import AccountInfo, CheckResult, Setting
from tests.integration.dashboard_site import READ_TOKEN, Site, running_site
from tests.integration.test_dashboard import get_page
from tests.integration.test_web_overview import outage, recover

WORKS = CheckResult(True, "logged in as desk")


@dataclass
class OneAccount:
    """An account directory with the account `desk`."""

    result: CheckResult = WORKS
    checked: list[str] = field(default_factory=list)

    def describe(self, name: str) -> AccountInfo | None:
        settings = [Setting("DESK_TOKEN", True), Setting("DESK_URL", False)]
        return AccountInfo("desk", settings, 4.0, 2, 20.0) if name == "desk" else None

    def check(self, name: str) -> CheckResult | None:
        self.checked.append(name)
        return self.result if name == "desk" else None


@pytest.fixture
def accounts() -> OneAccount:
    return OneAccount()


@pytest.fixture
def site(tmp_path: Path, clock: Clock, accounts: OneAccount) -> Iterator[Site]:
    with running_site(tmp_path, clock, accounts=accounts) as site:
        yield site


def test_history_of_an_outage_stays_on_the_page(browser: httpx.Client, site: Site, api: httpx.Client) -> None:
    outage(site)
    page = get_page(browser, "/connections")
    assert "Not responding" in page.text
    assert "one call is tried every 10 s" in page.text
    page = get_page(browser, "/connections/desk")
    assert "Try desk now" in page.text
    assert "ongoing" in page.text
    recover(site)
    page = get_page(browser, "/connections/desk")
    assert page.text.startswith("Active: Desk")
    assert "all processed by" in page.text
    for span in ("1h", "7d", "30d"):
        assert "Attempts per" in get_page(browser, f"/connections/desk?span={span}").text
    details = api.get("/api/connections/desk").json()
    assert [item["cause"] for item in details["pauses"]] == ["circuit_open"]
    assert sum(item["succeeded"] for item in details["attempts"]) == 6
    assert sum(item["failed"] for item in details["attempts"]) > 6
    assert (details["due"], details["later"], details["paused"]) == (0, 0, False)


def test_probe_tries_an_open_circuit_at_once(browser: httpx.Client, site: Site, api: httpx.Client) -> None:
    assert api.post("/api/connections/desk/probe").status_code == 409
    outage(site)
    assert site.engine.step() == 0
    assert browser.post("/connections/desk/probe").headers["location"].endswith("done=connection_probed")
    site.engine.provider.before = None
    assert site.engine.step() == 1
    assert all(status.pause is None for status in connection_statuses(site.database))
    assert "circuit_closed" in browser.post("/connections/desk/probe").headers["location"]
    assert "probe" in [entry["action"] for entry in list_audit_entries(site.database)]


def test_pause_needs_a_reason(browser: httpx.Client, site: Site) -> None:
    response = browser.post("/connections/desk/pause", data={"reason": " "})
    assert response.headers["location"] == "../../connections/desk?refused=reason_missing"
    assert all(status.pause is None for status in connection_statuses(site.database))
    response = browser.post("/connections/desk/pause", data={"reason": "CRM-418"})
    assert response.headers["location"] == "../../connections/desk?done=connection_paused"
    assert "The connection was paused." in get_page(browser, "/connections/desk?done=connection_paused").text


def test_resume_says_what_leaves(browser: httpx.Client, site: Site) -> None:
    pause(site.database, "desk", "CRM-418", "ada")
    for number in range(3):
        site.engine.deliver("send", site.engine.event(metadata={"contactPhone": f"+1212555{4000 + number}"}))
    site.engine.deliver("post")
    text = get_page(browser, "/connections/desk").text
    assert "by ada" in text
    assert "CRM-418" in text
    assert "3 sms to people" in text
    assert "leave at once when it is resumed" in text
    browser.post("/connections/desk/resume")
    assert site.engine.step() == 4


def test_settings_are_shown_by_name_and_the_account_is_checked(
    browser: httpx.Client, api: httpx.Client, accounts: OneAccount
) -> None:
    text = get_page(browser, "/connections/desk").text
    assert "DESK_TOKEN set" in text
    assert "DESK_URL not set" in text
    assert browser.post("/connections/desk/check").headers["location"].endswith("done=account_works")
    assert "ok: True, result: logged in as desk" in get_page(browser, "/connections/desk").text
    accounts.result = CheckResult(False, "the token is expired")
    assert browser.post("/connections/desk/check").headers["location"].endswith("done=account_fails")
    assert api.post("/api/connections/desk/check").json() == {"ok": False, "text": "the token is expired"}
    assert api.post("/api/connections/twilio/check").status_code == 409
    assert accounts.checked == ["desk", "desk", "desk", "twilio"]


def test_reader_sees_no_action(site: Site) -> None:
    with site.browser(token=READ_TOKEN) as reader:
        for path in ("/connections", "/connections/desk", "/"):
            forms = [form.get("action", "") or "" for form in get_page(reader, path).all("form")]
            assert not [action for action in forms if "connections/" in action], path
        assert reader.post("/connections/desk/check").status_code == 403


def test_unknown_connections_are_not_found(browser: httpx.Client, api: httpx.Client) -> None:
    assert browser.get("/connections/unknown").status_code == 404
    assert browser.get("/connections/desk?span=2y").status_code == 400
    assert api.get("/api/connections/unknown").status_code == 404
    for action in ("pause", "resume", "probe", "check"):
        assert browser.post(f"/connections/unknown/{action}", data={"reason": "x"}).status_code == 404
