"""Stop sending on the dashboard and in the API: all connections, and the waiting deliveries of a rule."""

from __future__ import annotations

import re

import httpx

from bridge.clock import Clock
from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.store.audit_log import list_audit_entries
from bridge.store.connection_status import pause_of_all
from bridge.store.connections import register_accounts
from bridge.store.delivery_list import list_deliveries
from bridge.store.pause_all import current_stop
from tests.integration.dashboard_site import READ_TOKEN, RULES, Site
from tests.integration.test_dashboard import ParsedPage, get_page


def change_rules(site: Site, old: str, new: str) -> None:
    site.rules.current = load_or_raise(RULES.replace(old, new), path="rules.yaml", registry=Registry())


def links(page: ParsedPage) -> list[str | None]:
    return [link["href"] for link in page.all("a")]


def test_sending_is_stopped_with_a_reason_and_started(site: Site, browser: httpx.Client) -> None:
    site.routed_event()
    assert "./stop" in links(get_page(browser, "/connections"))
    assert "1 waits now" in get_page(browser, "/stop").text
    response = browser.post("/stop", data={"reason": "wrong text", "scope": "deliveries"})
    assert (response.status_code, response.headers["location"]) == (303, "./?done=stopped")
    page = get_page(browser, "/events")
    assert re.search(
        r"Sending has been stopped by dashboard since \d\d:\d\d: wrong text Start sending", page.text
    )
    assert "./start" in links(page)
    assert "./stop" not in links(page)
    register_accounts(site.database, {"slack": "new"})
    assert get_page(browser, "/connections").text.count("with all connections") == 3
    start = get_page(browser, "/start").text
    assert "twilio text messages to people 1 0 0" in start
    assert "Send all 1" in start
    assert "Change what is stopped" in get_page(browser, "/stop").text
    assert browser.post("/start").headers["location"] == "./?done=started"
    assert "Sending has been stopped" not in get_page(browser, "/connections").text
    assert "Sending is not stopped" in get_page(browser, "/start").text
    assert browser.post("/start").headers["location"] == "./start?refused=not_stopped"
    actions = [(item["actor"], item["action"], item["target"]) for item in list_audit_entries(site.database)]
    assert actions == [
        ("dashboard", "resume", "all connections"),
        ("dashboard", "pause", "all connections"),
        ("dashboard", "login", "dashboard"),
    ]


def test_stop_needs_a_reason(browser: httpx.Client, site: Site) -> None:
    response = browser.post("/stop", data={"reason": " "}, follow_redirects=True)
    assert "Nothing was changed: enter a reason." in ParsedPage(response).text
    assert current_stop(site.database) is None
    assert browser.post("/stop", data={"reason": "x", "scope": "all"}).status_code == 400


def test_messages_to_people_are_stopped_and_records_are_not(site: Site, browser: httpx.Client) -> None:
    site.routed_event()
    browser.post("/stop", data={"reason": "wrong text"})
    assert "Messages to people have been stopped by dashboard since" in get_page(browser, "/events").text
    assert "with all connections" not in get_page(browser, "/connections").text
    assert "Messages to people are stopped." in get_page(browser, "/deliveries").text
    [delivery] = list_deliveries(site.database).items
    page = get_page(browser, f"/deliveries/{delivery['id']}")
    assert "It waits: messages to people are paused by an operator." in page.text
    assert "Messages to people are stopped." in get_page(browser, "/deliveries").text
    [delivery] = list_deliveries(site.database).items
    page = get_page(browser, f"/deliveries/{delivery['id']}")
    assert "It waits: messages to people are paused by an operator." in page.text


def test_old_deliveries_are_cancelled_before_sending_starts(
    site: Site, browser: httpx.Client, clock: Clock
) -> None:
    old = site.engine.deliver("send")
    browser.post("/stop", data={"reason": "wrong text"})
    record = site.engine.deliver("post")
    clock.advance(hours=2)
    new = site.engine.deliver("send")
    assert "Cancel the 1 that are older than 1h, send the others" in get_page(browser, "/start").text
    response = browser.post("/start", data={"cancel_older": "1h"})
    assert response.headers["location"] == "./?done=started_without_old&n=1"
    assert [site.engine.show(one)["state"] for one in (old, new, record)] == [
        "cancelled",
        "pending",
        "pending",
    ]
    assert current_stop(site.database) is None


def test_token_that_only_reads_sees_no_button_to_stop(site: Site) -> None:
    with site.browser(token=READ_TOKEN) as browser:
        page = get_page(browser, "/stop")
        assert "./stop" not in links(page)
        assert "Your token only reads" in page.text
        assert [form.get("action") for form in page.all("form")] == ["./search", "./logout"]
        assert browser.post("/stop", data={"reason": "x"}).status_code == 403


def test_connection_with_a_pause_of_its_own_stays_paused(browser: httpx.Client) -> None:
    browser.post("/connections/desk/pause", data={"reason": "a new number"})
    browser.post("/stop", data={"reason": "wrong text"})
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
    api.post("/api/pause", json={"reason": "wrong text", "scope": "messages"})
    stop = api.get("/api/pause").json()
    assert (stop["stopped"], stop["scope"], stop["reason"], stop["actor"]) == (
        True,
        "messages",
        "wrong text",
        "api",
    )
    assert not any(item["paused"] for item in api.get("/api/connections").json()["items"])
    api.post("/api/resume", json={"cancel_older": "6h"})
    assert api.get("/api/pause").json()["stopped"] is False
    assert api.post("/api/resume", json={"cancel_older": "soon"}).status_code == 400
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
    assert 'there is no rule "unknown"' in get_page(browser, "/rules/unknown/cancel", 404).text


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
    assert "done=rule_rerendered&n=1" in response.headers["location"]
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
