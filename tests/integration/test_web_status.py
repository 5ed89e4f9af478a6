"""The status page, the settings of the reader, and the layout of every page."""

from __future__ import annotations

import httpx
import pytest

from bridge.clock import Clock
from bridge.store.connections import pause
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from bridge.store.service_status import read_service_status
from bridge.store.workers import record_heartbeat
from bridge.web.dashboard.status import format_bytes
from tests.integration.dashboard_site import NAMED_TOKEN, READ_TOKEN, Site
from tests.integration.engine import Engine
from tests.integration.query_plans import query_plans
from tests.integration.test_dashboard import ParsedPage, get_page


def test_status_page_shows_workers_receiving_and_database(
    site: Site, browser: httpx.Client, clock: Clock
) -> None:
    assert "No worker is running" in get_page(browser, "/status").text
    record_heartbeat(site.database, "w1", "1.2.3")
    site.engine.event()
    requests = [RejectedRequest("signature_wrong", "the signature is wrong", 401, False, clock.now())] * 2
    record_rejected_requests(site.database, requests)
    text = get_page(browser, "/status").text
    assert "Alive 1.2.3" in text
    assert "Events, 24 h 1" in text
    assert "Rejected, 24 h 2 signature wrong" in text
    assert "Not routed yet 1" in text
    assert "SQLite 3." in text
    assert "in step with this process" in text
    clock.advance(minutes=5)
    assert "No heartbeat" in get_page(browser, "/status").text


def test_status_is_read_from_both_databases_and_the_api(engine: Engine) -> None:
    record_heartbeat(engine.database, "w1", "1.2.3")
    engine.event()
    status = read_service_status(engine.database)
    assert [worker.is_alive for worker in status.workers] == [True]
    assert (status.received[0].total, status.unrouted) == (1, 1)
    assert status.revision == status.newest_revision
    assert status.size > 0
    assert abs(status.clock_difference.total_seconds()) < 60


@pytest.fixture
def engine(database: object) -> Engine:
    return Engine(database)  # type: ignore[arg-type]


def test_api_returns_the_status(site: Site) -> None:
    with site.client() as api:
        status = api.get("/api/status").json()
    assert status["workers"] == []
    assert status["received"] == {"event": 0}


def test_sizes_are_readable() -> None:
    assert [format_bytes(size) for size in (0, 1023, 1536, 5 * 1024**3)] == [
        "0 bytes", "1023 bytes", "1.5 KiB", "5.0 GiB",
    ]  # fmt: skip


# ------------------------------------------------------------ settings


def test_times_are_shown_in_the_zone_of_the_reader(browser: httpx.Client) -> None:
    assert " UTC" in get_page(browser, "/settings").text
    response = browser.post("/settings", data={"zone": "Asia/Tokyo"})
    assert response.headers["location"] == "./settings?done=settings_saved"
    page = get_page(browser, "/settings?done=settings_saved")
    assert "Your settings were saved." in page.text
    assert " JST" in page.text
    assert [option for option in page.all("option") if "selected" in option] == [{"selected": None}]
    response = browser.post("/settings", data={"zone": "Mars/Base"}, follow_redirects=True)
    assert "choose a time zone from the list" in ParsedPage(response).text
    browser.cookies.set("tz", "../etc/passwd")
    assert get_page(browser, "/settings").text


def test_token_that_only_reads_can_choose_its_zone(site: Site) -> None:
    with site.browser(token=READ_TOKEN) as browser:
        assert browser.post("/settings", data={"zone": "Europe/Berlin"}).status_code == 303


# ------------------------------------------------------------ layout


def test_status_line_shows_the_most_important_problem(site: Site, browser: httpx.Client) -> None:
    assert "No worker is running: nothing is sent." in get_page(browser, "/events").text
    record_heartbeat(site.database, "w1", "1.2.3")
    for name in ("desk", "twilio"):
        pause(site.database, name, "moving house", "ada")
    assert (
        "2 connections are paused: desk (by an operator), twilio (by an operator)."
        in get_page(browser, "/events").text
    )
    site.rules.load_error = "rules.yaml:6:7: unknown key"
    page = get_page(browser, "/events")
    assert "The rules file has errors." in page.text
    assert "connections are paused" not in page.text
    browser.post("/stop", data={"reason": "wrong text"})
    page = get_page(browser, "/events")
    assert "Messages to people have been stopped" in page.text
    assert "The rules file has errors." not in page.text


def test_flash_shows_fixed_texts_and_recent_audit_entries_only(
    site: Site, browser: httpx.Client, clock: Clock
) -> None:
    assert "3 waiting deliveries were cancelled." in get_page(browser, "/events?done=rule_cancelled&n=3").text
    assert "1 waiting delivery was cancelled." in get_page(browser, "/events?done=rule_cancelled&n=1").text
    for query in (
        "done=You+were+hacked",
        "refused=You+were+hacked",
        "done=aud_0",
        "done=cancelled%00",
        "n=x",
    ):
        page = get_page(browser, f"/events?{query}")
        assert "hacked" not in page.text
        assert not [item for item in page.all("p") if "flash" in (item.get("class") or "")]
    pause(site.database, "desk", "moving house", "ada")
    with site.client() as api:
        entry = api.get("/api/audit?actor=ada").json()["items"][0]["id"]
    assert "ada paused desk (reason: moving house)." in get_page(browser, f"/events?done={entry}").text
    clock.advance(minutes=3)
    assert "moving house" not in get_page(browser, f"/events?done={entry}").text


def test_page_refreshes_only_if_the_reader_switched_it_on(browser: httpx.Client) -> None:
    page = get_page(browser, "/events?type=call.busy")
    assert [meta for meta in page.all("meta") if meta.get("http-equiv")] == []
    assert "?type=call.busy&live=30" in [link["href"] for link in page.all("a")]
    page = get_page(browser, "/events?type=call.busy&live=30")
    assert {"http-equiv": "refresh", "content": "30"} in page.all("meta")
    assert "?type=call.busy" in [link["href"] for link in page.all("a")]


def test_navigation_names_the_current_page(site: Site) -> None:
    with site.browser(token=NAMED_TOKEN) as browser:
        page = get_page(browser, "/events")
    assert [link["href"] for link in page.all("a") if link.get("aria-current") == "page"] == ["./events"]
    assert "Log out (ada)" in page.text


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/nothing-here", 404, "This page does not exist."),
        ("POST", "/events", 405, "does not accept this kind of request"),
    ],
)
def test_error_pages_have_navigation_for_browsers_and_json_for_programs(
    site: Site, browser: httpx.Client, method: str, path: str, status: int, text: str
) -> None:
    response = browser.request(method, path)
    assert response.status_code == status
    page = ParsedPage(response)
    assert text in page.text
    assert "./deliveries" in [(link["href"] or "").replace("../", "./")[-12:] for link in page.all("a")]
    with site.client() as program:
        response = program.request(method, path)
        assert (response.status_code, "error" in response.json()) == (status, True)


def test_unexpected_error_is_a_page_with_navigation(
    browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.web.dashboard.status.read_service_status", lambda _: 1 / 0)
    response = browser.get("/status")
    assert response.status_code == 500
    assert "Audit log" in ParsedPage(response).text
    assert "ZeroDivisionError" not in response.text


def test_pages_of_the_frame_read_no_whole_table(site: Site, browser: httpx.Client) -> None:
    steps = query_plans(site.database)
    for path in ("/status", "/stop", "/start", "/audit", "/audit?actor=ada", "/settings"):
        get_page(browser, path)
    large = ("events", "deliveries", "attempts", "rejected_requests", "audit_log")
    scans = {step for step in steps if step.startswith(tuple(f"SCAN {table}" for table in large))}
    # Waiting and running deliveries are counted up to a limit, from indexes that have no others. The audit log and the
    # newest events are read in the order of an index, up to a limit.
    bounded = (
        "deliveries_due",
        "deliveries_lease",
        "sqlite_autoindex_audit_log",
        "events_received",
        "events_unrouted",
    )
    assert {step for step in scans if not any(index in step for index in bounded)} == set()
