"""Overview: the page and the API say whether all is well, what needs an operator, and what recovered by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.clock import Clock
from bridge.errors import AuthenticationError, PermanentError, StoreUnavailable, TransientError
from bridge.rules.model import Routing
from bridge.store.connections import pause
from bridge.store.history_upkeep import update_history
from bridge.store.pause_all import pause_all
from bridge.store.routing import route_unrouted
from bridge.store.workers import record_heartbeat
from bridge.web import overview as web_overview
from tests.integration.dashboard_site import Site, running_site
from tests.integration.engine import raising
from tests.integration.test_dashboard import delivery_in_review, get_page


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(tmp_path, clock) as site:
        record_heartbeat(site.database, "one", "1.2.3")
        yield site


def title(browser: httpx.Client, path: str = "/") -> str:
    return get_page(browser, path).text.split(" · bridge ")[0]


def outage(site: Site, deliveries: int = 6) -> None:
    for number in range(deliveries):
        event = site.engine.event("call.completed", metadata={"contactPhone": f"+1212555{4000 + number}"})
        site.engine.deliver("post", event)
    route_unrouted(site.database, site.rules.current, lambda *_: Routing((), ()))
    site.engine.provider.before = raising(TransientError("HubSpot answered 503", reason="server_error"))
    site.engine.run_for(minutes=3)


def recover(site: Site) -> None:
    site.engine.provider.before = None
    site.engine.run_for(minutes=30)
    update_history(site.database)
    record_heartbeat(site.database, "one", "1.2.3")


def test_first_day_shows_the_first_steps(browser: httpx.Client, site: Site) -> None:
    page = get_page(browser, "/")
    assert "Ready. No event has arrived yet." in page.text
    assert "Rules: 3 active." in page.text
    assert "bridge send call.busy" in page.text
    assert f"{site.url}/webhooks/heppu" in {field.get("value") for field in page.all("input")}
    assert "Nothing needs you." in page.text


def test_all_is_well_with_the_facts_that_make_it_true(browser: httpx.Client, site: Site) -> None:
    site.routed_event()
    page = get_page(browser, "/")
    assert title(browser) == "All is well"
    assert "Last event" in page.text
    assert "(call.busy)" in page.text
    assert "1 worker" in page.text
    assert f"version {site.rules.current.hash[:8]}" in page.text
    assert "nothing is overdue" in page.text


def test_no_worker_and_a_stop_come_first(browser: httpx.Client, site: Site) -> None:
    delivery_in_review(site)
    pause_all(site.database, "wrong campaign", "ada")
    assert title(browser) == "Sending is stopped"
    site.database.clock.advance(minutes=5)
    assert title(browser) == "Nothing is sent: no worker is running"


def test_what_needs_an_operator_is_counted_and_linked(browser: httpx.Client, site: Site) -> None:
    delivery_in_review(site)

    site.engine.provider.before = raising(PermanentError("no such number"))
    site.engine.deliver("post", site.engine.event(metadata={"contactPhone": "+12125553333"}))
    site.engine.run_due()
    pause(site.database, "twilio", "CRM-418", "ada")
    record_heartbeat(site.database, "one", "1.2.3")
    page = get_page(browser, "/")
    assert title(browser) == "3 things need you"
    assert "1 delivery needs review" in page.text
    assert "1 delivery failed: 1 × Desk rejected." in page.text
    assert "by ada: CRM-418" in page.text
    links = {link.get("href") for link in page.all("a")}
    assert {"./review", "./connections/twilio", "./deliveries?state=failed&not_dismissed=yes"} <= links


def test_rejected_credentials_need_an_operator(browser: httpx.Client, site: Site) -> None:
    site.engine.deliver("post")
    site.engine.provider.before = raising(AuthenticationError("401", fix="set DESK_TOKEN to a new key"))
    site.engine.step()
    text = get_page(browser, "/").text
    assert "Desk has been rejecting the credentials since" in text
    assert "set DESK_TOKEN to a new key" in text
    assert "1 delivery is waiting." in text


def test_outage_recovers_by_itself_and_is_remembered(browser: httpx.Client, site: Site) -> None:
    outage(site)
    record_heartbeat(site.database, "one", "1.2.3")
    page = get_page(browser, "/")
    assert title(browser).startswith("Desk has not responded since")
    assert "What recovers by itself" in page.text
    assert "Nothing needs you." in page.text
    recover(site)
    page = get_page(browser, "/")
    assert title(browser) == "All is well"
    assert "What recovered by itself" in page.text
    assert "Desk did not respond from" in page.text
    assert "all had been processed by" in page.text


def test_numbers_and_charts_cover_the_span(browser: httpx.Client, site: Site, api: httpx.Client) -> None:
    site.routed_event()
    site.engine.deliver("post")
    site.engine.run_due()
    for span in ("1h", "24h", "7d", "30d"):
        page = get_page(browser, f"/?span={span}")
        assert "by result" in page.text
        overview = api.get("/api/overview", params={"span": span}).json()
        assert overview["totals"]["events"] == 2, span
        assert overview["totals"]["succeeded"] == 1, span
    assert browser.get("/?span=2y").status_code == 400
    site.database.clock.advance(hours=30)
    while update_history(site.database):
        pass
    assert api.get("/api/overview", params={"span": "24h"}).json()["totals"]["events"] == 0
    week = api.get("/api/overview", params={"span": "7d"}).json()
    assert (week["totals"]["events"], week["totals"]["succeeded"]) == (2, 1), "from the counts per hour"
    assert {rule["name"]: rule["succeeded"] for rule in week["rules"]}["test"] == 1
    assert week["uncounted_hours"] == 0


def test_unusual_silence_is_reported(api: httpx.Client, site: Site) -> None:
    clock = site.database.clock
    for week in range(3):
        for hour in range(4):
            for _ in range(6):
                site.engine.event(
                    metadata={"contactPhone": "+12125557777"}, conversationId=f"c{week}{hour}{_}"
                )
            clock.advance(hours=1)
        clock.advance(days=7, hours=-4)
    site.engine.event(conversationId="last")
    route_unrouted(site.database, site.rules.current, lambda *_: Routing((), ()), limit=500)
    clock.advance(hours=3)
    while update_history(site.database):
        pass
    record_heartbeat(site.database, "one", "1.2.3")
    assert (
        api.get("/api/overview")
        .json()["title"]
        .startswith("Heppu has sent nothing for 3 h, which is unusual for this time.")
    )


def test_block_that_cannot_be_read_says_so_in_its_place(
    browser: httpx.Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("took too long", kind="timeout")

    site.routed_event()
    monkeypatch.setattr(web_overview, "read_activity", fail)
    page = get_page(browser, "/")
    assert "This could not be counted just now." in page.text
    assert "Latest events" in page.text
    monkeypatch.setattr(web_overview, "read_vitals", fail)
    assert title(browser) == "Part of the state could not be read"
    monkeypatch.setattr(web_overview, "read_tasks", fail)
    assert browser.get("/").status_code == 503


def test_api_says_the_same_as_the_page(browser: httpx.Client, site: Site, api: httpx.Client) -> None:
    outage(site)
    recover(site)
    overview = api.get("/api/overview").json()
    text = get_page(browser, "/").text
    assert overview["title"] in text
    assert overview["recovered"][0] in text
    assert overview["status"] == "good"
    assert overview["needs"] == []
    assert [worker["version"] for worker in overview["workers"]] == ["1.2.3"]
