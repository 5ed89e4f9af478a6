"""The audit log: what is recorded, its filters, and its page."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from bridge.connector.discovery import Registry
from bridge.errors import RateLimited
from bridge.rules.load import load_or_raise
from bridge.store.audit_log import list_audit_entries
from bridge.store.audit_text import ACTIONS, describe_entry
from bridge.store.connections import pause, resume
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.workers import deregister, record_heartbeat
from bridge.worker.earlier_deliveries import report_reload
from tests.integration.dashboard_site import RULES, Site
from tests.integration.test_dashboard import get_page


def sentences(site: Site, **filters: str) -> list[str]:
    return [describe_entry(entry) for entry in list_audit_entries(site.database, **filters)]


def test_opt_out_of_a_recipient_is_recorded_once(site: Site) -> None:
    change = OptOutChange("sms", "+12125550167", True, "STOP to twilio")
    save_opt_out(site.database, change)
    save_opt_out(site.database, change)
    save_opt_out(site.database, OptOutChange("sms", "+12125550167", True, "dashboard", "ada", "on the phone"))
    assert sentences(site, action="opt_out", actor="recipient") == [
        "+121***67 opted out (channel: sms, source: STOP to twilio)"
    ]
    assert sentences(site, actor="ada") == ["ada opted out +121***67 (channel: sms, reason: on the phone)"]


def test_automatic_pause_and_recovery_are_recorded(site: Site) -> None:
    def fail() -> None:
        site.engine.provider.before = None
        raise RateLimited("429", retry_after=timedelta(minutes=2))

    site.engine.provider.before = fail
    site.engine.deliver("post")
    site.engine.run_due()
    site.database.clock.advance(minutes=5)
    site.engine.run_due()
    recovered, paused = sentences(site, target="desk")
    assert recovered.startswith("bridge resumed desk automatically")
    assert paused.startswith("bridge paused desk (cause: rate_limit")


def test_end_of_a_pause_by_an_operator_is_one_entry(site: Site) -> None:
    pause(site.database, "desk", "moving house", "ada")
    resume(site.database, "desk", "bob")
    assert sentences(site, target="desk") == ["bob resumed desk", "ada paused desk (reason: moving house)"]


def test_workers_and_reloads_are_recorded(site: Site) -> None:
    record_heartbeat(site.database, "w1", "1.2.3")
    record_heartbeat(site.database, "w1", "1.2.3")
    deregister(site.database, "w1")
    deregister(site.database, "w1")
    assert [entry["action"] for entry in list_audit_entries(site.database, actor="bridge")] == [
        "stop",
        "start",
    ]
    rules = load_or_raise(RULES, path="rules.yaml", registry=Registry())
    report_reload(site.database, rules).join(20)
    assert sentences(site, action="reload_rules") == [
        f"bridge loaded the rules of version {rules.hash[:12]} (rules: 3)"
    ]


def test_page_filters_and_links(site: Site, browser: httpx.Client) -> None:
    delivery = site.engine.deliver("send")
    browser.post(f"/deliveries/{delivery}/cancel")
    pause(site.database, "desk", "moving house", "ada")
    page = get_page(browser, "/audit")
    assert "ada paused desk reason: moving house" in page.text
    hrefs = [link["href"] for link in page.all("a")]
    assert f"./deliveries/{delivery}" in hrefs
    assert "./connections/desk" in hrefs
    text_of = {
        query: get_page(browser, f"/audit?{query}").text
        for query in ("actor=ada", "action=login", "target=x")
    }
    assert delivery not in text_of["actor=ada"]
    assert "dashboard logged in to the dashboard" in text_of["action=login"]
    assert "No entry matches this filter." in text_of["target=x"]
    with site.client() as api:
        [entry] = api.get("/api/audit?actor=ada&action=pause&target=desk").json()["items"]
        assert entry["detail"] == {"reason": "moving house"}


def test_page_says_how_to_give_tokens_names(site: Site, browser: httpx.Client) -> None:
    pause(site.database, "desk", "moving house", "ada")
    assert "BRIDGE_ADMIN_TOKEN=ada:TOKEN" in get_page(browser, "/audit").text  # the login is by `dashboard`
    assert "BRIDGE_ADMIN_TOKEN" not in get_page(browser, "/audit?actor=ada").text


def test_actions_of_the_filter_are_in_alphabetical_order(browser: httpx.Client) -> None:
    page = get_page(browser, "/audit")
    titles = sorted(action.title for action in ACTIONS.values())
    places = [page.text.index(title) for title in titles[:5]]
    assert places == sorted(places)


def test_pages_of_the_audit_log_keep_the_filter(site: Site, browser: httpx.Client) -> None:
    for number in range(3):
        pause(site.database, "desk", str(number), "ada")
    page = get_page(browser, "/audit?actor=ada&limit=2")
    [older] = [link["href"] or "" for link in page.all("a") if "cursor=" in (link["href"] or "")]
    assert older.startswith("?actor=ada&limit=2&cursor=aud_")
    page = get_page(browser, f"/audit{older}")
    assert page.text.count("ada paused desk") == 1
    assert "./audit?actor=ada&limit=2" in [link["href"] for link in page.all("a")]


@pytest.mark.parametrize("column", ["target", "action", "actor"])
def test_filters_use_an_index(site: Site, column: str) -> None:
    query = f"EXPLAIN QUERY PLAN SELECT * FROM audit_log WHERE {column} = 'x' ORDER BY id DESC LIMIT 51"
    with site.database.read() as conn:
        plan = " ".join(row[3] for row in conn.execute(text(query)))
    assert f"USING INDEX audit_log_{column}" in plan
    assert "TEMP B-TREE" not in plan


def test_every_action_has_a_sentence_about_its_target() -> None:
    assert all("{target}" in action.sentence for action in ACTIONS.values())
    entry = {"actor": "ada", "action": "of_a_newer_version", "target": "x", "detail": None}
    assert describe_entry(entry) == "ada of a newer version x"
