"""Stop sending on the dashboard and in the API: all connections, and the waiting deliveries of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bridge.clock import Clock
from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.store.audit_log import list_audit_entries
from bridge.store.connections import pause_of_all, register_accounts
from bridge.store.delivery_list import list_deliveries
from tests.integration.dashboard_site import RULES, Site, running_site
from tests.integration.test_dashboard import ParsedPage, get_page


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(tmp_path, clock) as site:
        yield site


@pytest.fixture
def browser(site: Site) -> Iterator[httpx.Client]:
    with site.browser() as client:
        yield client


@pytest.fixture
def api(site: Site) -> Iterator[httpx.Client]:
    with site.client() as client:
        yield client


def change_rules(site: Site, old: str, new: str) -> None:
    site.rules.current = load_or_raise(RULES.replace(old, new), path="rules.yaml", registry=Registry())


def links(page: ParsedPage) -> list[str | None]:
    return [link["href"] for link in page.all("a")]


def test_sending_is_stopped_with_a_reason_and_resumed(site: Site, browser: httpx.Client) -> None:
    site.routed_event()
    assert "./stop" in links(get_page(browser, "/connections"))
    assert "1 delivery waits now" in get_page(browser, "/stop").text
    response = browser.post("/stop", data={"reason": "wrong text"})
    assert (response.status_code, response.headers["location"]) == (303, "./connections?done=stopped")
    assert "Sending is stopped: wrong text." in get_page(browser, "/events").text
    assert "waiting: twilio is paused" in get_page(browser, "/").text
    connections = get_page(browser, "/connections")
    assert "by an operator, with all connections" in connections.text
    assert [
        form["action"] for form in connections.all("form") if "/resume" in (form.get("action") or "")
    ] == []
    assert "./start" in links(connections)
    assert "./stop" not in links(connections)
    register_accounts(site.database, {"slack": "new"})
    assert get_page(browser, "/connections").text.count("with all connections") == 3
    assert "1 delivery waits. Those that are due are sent at once." in get_page(browser, "/start").text
    assert browser.post("/start").status_code == 303
    assert "Sending is stopped" not in get_page(browser, "/connections").text
    assert "Sending was not stopped" in get_page(browser, "/start").text
    actions = [(item["actor"], item["action"], item["target"]) for item in list_audit_entries(site.database)]
    assert actions == [
        ("dashboard", "resume", "all connections"),
        ("dashboard", "pause", "all connections"),
        ("dashboard", "login", "dashboard"),
    ]


def test_connection_with_a_pause_of_its_own_stays_paused(browser: httpx.Client) -> None:
    browser.post("/connections/desk/pause", data={"reason": "a new number"})
    browser.post("/stop")
    assert "desk stays paused by an operator." in get_page(browser, "/start").text


def test_api_pauses_and_resumes_all_connections(site: Site, api: httpx.Client) -> None:
    items = api.post("/api/pause", json={"reason": "wrong text"}).json()["items"]
    assert [(item["name"], item["paused"], item["paused_with_all"]) for item in items] == [
        ("desk", True, True),
        ("twilio", True, True),
    ]
    assert {item["pause_reason"] for item in items} == {"wrong text"}
    with site.client() as metrics:
        assert 'bridge_connection_paused{connection="twilio"} 1.0' in metrics.get("/metrics").text
    assert not any(item["paused"] for item in api.post("/api/resume").json()["items"])
    assert pause_of_all(site.database) is None
    assert api.post("/api/pause", json={"why": "x"}).status_code == 400


def test_waiting_deliveries_of_a_rule_are_cancelled_after_confirmation(
    site: Site, browser: httpx.Client
) -> None:
    site.routed_event()
    site.routed_event("chat.resolved")
    assert "./rules/text-when-not-reached/cancel" in links(get_page(browser, "/rules"))
    path = "/rules/text-when-not-reached/cancel"
    page = get_page(browser, path)
    assert "1 delivery waits : 1 twilio.send_sms." in page.text
    response = browser.post(path)
    query = "rule=text-when-not-reached&state=cancelled"
    assert response.headers["location"] == f"../../deliveries?{query}&done=rule_cancelled&n=1"
    assert (
        "cancelled with its rule by dashboard"
        in get_page(browser, f"/deliveries?{query}&done=rule_cancelled&n=1").text
    )
    assert [item["state"] for item in list_deliveries(site.database).items] == ["pending", "cancelled"]
    assert "No delivery of this rule waits" in get_page(browser, path).text
    assert "there is no rule `unknown`" in get_page(browser, "/rules/unknown/cancel", 404).text


def test_deliveries_of_a_removed_rule_are_listed_and_cancelled(site: Site, browser: httpx.Client) -> None:
    site.routed_event()
    change_rules(site, "text-when-not-reached", "call-back")
    page = get_page(browser, "/rules")
    assert (
        "text-when-not-reached was removed or renamed, but 1 of its deliveries waits and will be sent as before"
        in page.text
    )
    confirm = get_page(browser, "/rules/text-when-not-reached/cancel")
    assert "Apply the active version" not in confirm.text
    browser.post("/rules/text-when-not-reached/cancel")
    assert "will be sent as before" not in get_page(browser, "/rules").text


def test_waiting_deliveries_take_the_active_version_of_the_rule(site: Site, browser: httpx.Client) -> None:
    site.routed_event()
    [delivery] = list_deliveries(site.database).items
    change_rules(site, "we tried to reach you", "we called you")
    assert "was changed, but 1 of its deliveries waits" in get_page(browser, "/rules").text
    response = browser.post("/rules/text-when-not-reached/cancel", data={"rerender": "yes"})
    assert "text-when-not-reached: 1 rendered again" in ParsedPage(response).text
    assert "we called you" in get_page(browser, f"/deliveries/{delivery['id']}").text
    assert "rerender by dashboard" in get_page(browser, f"/deliveries/{delivery['id']}").text


def test_api_shows_and_cancels_what_waits_of_a_rule(site: Site, api: httpx.Client) -> None:
    site.routed_event()
    change_rules(
        site, "when: [call.busy, call.no-answer]", "enabled: false\n    when: [call.busy, call.no-answer]"
    )
    rules_status = api.get("/api/rules").json()
    assert rules_status["rules"][0]["waiting"] == 1
    [earlier] = rules_status["earlier_deliveries"]
    assert (earlier["rule"], earlier["change"], earlier["waiting"]) == (
        "text-when-not-reached",
        "disabled",
        1,
    )
    assert earlier["advice"] == "`bridge cancel --rule text-when-not-reached` stops it"
    path = "/api/rules/text-when-not-reached/cancel"
    assert api.post(path, json={"rerender": "yes"}).json() == {"error": "`rerender` must be true or false"}
    [group] = api.post(path, json={"rerender": True}).json()["cancelled"]
    assert (group["reason"], group["total"]) == ("the rule no longer fires for its event", 1)
    cancelled = api.post(path).json()
    assert (cancelled["cancelled"], cancelled["running"]) == (0, 0)
    assert api.post("/api/rules/unknown/cancel").status_code == 404
    assert api.post("/api/rules/unknown/cancel", json={"rerender": True}).status_code == 404


def test_deliveries_are_filtered_by_reason(site: Site, browser: httpx.Client, api: httpx.Client) -> None:
    shadow = site.engine.deliver("post", shadow=True)
    site.engine.deliver("post")
    site.engine.run_due()
    query = "state=suppressed&reason=shadow"
    assert [item["id"] for item in api.get(f"/api/deliveries?{query}").json()["items"]] == [shadow]
    page = get_page(browser, f"/deliveries?{query}")
    assert [option["value"] for option in page.all("option") if "selected" in option] == ["shadow"]
    assert len([link for link in links(page) if "deliveries/dlv_" in (link or "")]) == 1
    assert "No deliveries match this filter." in get_page(browser, "/deliveries?reason=opted_out").text
    assert "`reason` must be one of opted_out" in api.get("/api/deliveries?reason=shade").json()["error"]


def test_name_of_a_rule_may_have_spaces_slashes_and_quotes(
    site: Site, browser: httpx.Client, api: httpx.Client
) -> None:
    site.routed_event()
    name = "busy / no-answer: 'text' & <b>"
    change_rules(site, "name: text-when-not-reached", f'name: "{name}"')
    site.routed_event(conversationId="conv_2")
    [link] = [
        href
        for href in links(get_page(browser, "/rules"))
        if "busy" in (href or "") and "cancel" in (href or "")
    ]
    assert link is not None
    path = link.removeprefix(".")
    page = get_page(browser, path)
    assert f"Waiting deliveries of {name}" in page.text
    [form, _] = [form for form in page.all("form") if "action" not in form]
    assert form == {"method": "post", "class": "actions"}
    response = browser.post(path)
    assert response.status_code == 303
    assert browser.get(httpx.URL(f"{site.url}{path}").join(response.headers["location"])).status_code == 200
    [earlier] = api.get("/api/rules").json()["earlier_deliveries"]
    assert earlier["rule"] == "text-when-not-reached"
