"""Dashboard pages and operator actions, and escaping of hostile content."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from bridge.clock import Clock
from bridge.connector import StatusUpdate
from bridge.connector.discovery import Registry
from bridge.errors import OutcomeUnknown, PermanentError, StoreUnavailable, TransientError
from bridge.rules.load import load_or_raise
from bridge.store.connections import pause
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.delivery_status import apply_callback
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from bridge.store.pause_all import pause_all
from bridge.store.possible_duplicates import list_possible_duplicates, save_possible_duplicate
from bridge.store.workers import record_heartbeat
from tests.integration.dashboard_site import Site
from tests.integration.engine import raising

HOSTILE = (
    "\"'></textarea></title><script>window.hacked=1</script><img src=x onerror=window.hacked=1>{{ 7*7 }}"
)


class ParsedPage(HTMLParser):
    """Elements and text of an HTML page."""

    def __init__(self, page: httpx.Response) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.strings: list[str] = []
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.strings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.strings).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def get_page(browser: httpx.Client, path: str, status: int = 200) -> ParsedPage:
    page = browser.get(path)
    assert page.status_code == status, page.text
    return ParsedPage(page)


def failed_delivery(
    site: Site, error: Exception, *, after: bool = False, use: str = "send", **planned: Any
) -> str:
    provider, hook = site.engine.provider, "after" if after else "before"

    def fail() -> None:
        setattr(provider, hook, None)
        raise error

    setattr(provider, hook, fail)
    event = site.engine.event(metadata={"contactPhone": "+13105550111"})
    delivery_id = site.engine.deliver(use, event, **planned)
    site.engine.run_due()
    return delivery_id


def delivery_in_review(site: Site) -> str:
    site.engine.provider.lookup_works = False
    delivery_id = failed_delivery(site, OutcomeUnknown("no answer within 20 s"), after=True)
    site.engine.run_for(seconds=30)
    return delivery_id


# ------------------------------------------------------------ pages


def test_start_page_lists_masked_latest_events(site: Site, browser: httpx.Client) -> None:
    event_id = site.routed_event()
    page = get_page(browser, "/")
    assert "+121***67" in page.text
    assert "+12125550167" not in page.text
    assert {"href": f"./events/{event_id}"} in page.all("a")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("state=failed", ["bad"]),
        ("state=pending", ["wait"]),
        ("connection=desk&state=", ["bad", "wait"]),
        ("connection=twilio", []),
        ("rule=another", ["wait"]),
        ("rule=another&state=failed", []),
    ],
)
def test_deliveries_filter_returns_only_matches(
    site: Site, browser: httpx.Client, query: str, shown: list[str]
) -> None:
    failed_delivery(site, PermanentError("no such number"))
    site.engine.deliver("send", rule="another")
    page = get_page(browser, f"/deliveries?{query}")
    badges = [str(span["class"]) for span in page.all("span") if str(span.get("class")).startswith("badge")]
    assert sorted(badges) == [f"badge {color}" for color in shown]


def test_deliveries_filter_is_kept_in_pagination_and_state_links(site: Site, browser: httpx.Client) -> None:
    failed_delivery(site, PermanentError("no such number"), rule="a & b")
    for _ in range(4):
        site.engine.deliver("post", rule="a & b")
    page = get_page(browser, "/deliveries?rule=a+%26+b&limit=3&state=pending")
    links = [link["href"] or "" for link in page.all("a")]
    [older] = [link for link in links if "cursor=" in link]
    assert "./deliveries?rule=a+%26+b&state=failed" in links
    next_page = ParsedPage(browser.get(f"/{older}"))
    assert len([link for link in next_page.all("a") if "deliveries/dlv_" in (link["href"] or "")]) == 1
    [newer] = [link["href"] or "" for link in next_page.all("a") if link.get("rel") == "prev"]
    assert "newer_than=dlv_" in newer


def test_event_page_shows_rule_trace(site: Site, browser: httpx.Client) -> None:
    page = get_page(browser, f"/events/{site.routed_event()}")
    assert "fired text-when-not-reached" in page.text
    assert "did not fire only-in-german" in page.text
    assert "Unknown: event.language is missing, expected de" in page.text
    assert "1 rule is for other event types: post-every-resolved-chat" in page.text
    assert "Ines Okafor" in page.text
    assert '"conversationType": "phone"' in page.text


def test_event_page_lists_fields_that_could_not_be_read(site: Site, browser: httpx.Client) -> None:
    page = get_page(
        browser,
        f"/events/{site.routed_event(metadata={'contactPhone': '040 123 4567'}, duration='2:05')}",
    )
    assert "Could not be read" in page.text
    assert "duration is a string that is not a number; send digits only, such as 125" in page.text
    assert "metadata.contactPhone has no country code; send + and the country code" in page.text
    assert (
        "Not met: contact.phone is unreadable, expected a value (metadata.contactPhone has no country"
        in page.text
    )


def test_events_can_be_filtered_by_fields_that_could_not_be_read(site: Site, browser: httpx.Client) -> None:
    readable, unreadable = site.routed_event(), site.routed_event(metadata={"contactPhone": "040 123 4567"})
    page = get_page(browser, "/events")
    assert "unreadable: phone" in page.text
    html = browser.get("/events?unreadable=yes").text
    assert (readable in html, unreadable in html) == (False, True)
    with site.client() as client:
        (item,) = client.get("/api/events?unreadable=yes").json()["items"]
    assert (item["id"], item["unreadable"]) == (unreadable, ["phone"])


def test_delivery_page_shows_what_the_delivery_does_without(site: Site, browser: httpx.Client) -> None:
    text = "version: 1\nrules: [{name: a, when: call.busy, do: [{use: slack.post, with: {text: '%s'}}]}]"
    site.rules.current = load_or_raise(
        text % "{{ event.duration | default(0) }} s", path="rules.yaml", registry=Registry()
    )
    event_id = site.routed_event(duration="2:05")
    (delivery,) = list_deliveries(site.database, DeliveryFilter(event=event_id)).items
    page = get_page(browser, f"/deliveries/{delivery['id']}")
    assert "duration is a string that is not a number; send digits only, such as 125" in page.text
    assert '"text": "0 s"' in page.text


def test_event_page_without_unreadable_fields_has_no_such_list(site: Site, browser: httpx.Client) -> None:
    assert "Could not be read" not in get_page(browser, f"/events/{site.routed_event()}").text


def test_event_page_without_matching_rule_refers_to_details(site: Site, browser: httpx.Client) -> None:
    page = get_page(browser, f"/events/{site.routed_event('chat.abandoned')}")
    assert "No rule fired: the conditions are below." in page.text


def test_event_page_of_unrouted_event_offers_no_replay(site: Site, browser: httpx.Client) -> None:
    page = get_page(browser, f"/events/{site.engine.event().id}")
    assert "Not routed yet." in page.text
    assert "Replay" not in page.text


def test_delivery_page_shows_timeline(site: Site, browser: httpx.Client) -> None:
    delivery_id = failed_delivery(site, TransientError("502 Bad Gateway"))
    site.engine.run_for(seconds=15)
    apply_callback(site.database, "desk", [StatusUpdate("undelivered", None, delivery_id, "a landline")])
    page = get_page(browser, f"/deliveries/{delivery_id}")
    descriptions = [
        "accepted it, but it did not reach the recipient",
        "created", "attempt 1 started", "attempt 1 finished: failed: server_error: 502 Bad Gateway",
        "attempt 2 started",
        "attempt 2 finished: succeeded", "succeeded", "message status: undelivered",
    ]  # fmt: skip
    positions = [page.text.index(description) for description in descriptions]
    assert positions == sorted(positions)
    assert "A landline." in page.text
    assert "+13105550111" in page.text, "this page does not mask the address"


def test_delivery_page_after_render_error_links_to_replay(site: Site, browser: httpx.Client) -> None:
    event = site.engine.event()
    delivery_id = site.engine.deliver("post", event, render_error="contact.name is missing")
    page = get_page(browser, f"/deliveries/{delivery_id}")
    assert "It cannot be retried: a template could not be rendered: fix the rule, then" in page.text
    assert "Open the event" in page.text
    assert not [form for form in page.all("form") if "retry" in (form.get("action") or "")]


def test_paused_connection_is_shown_on_every_page_and_on_waiting_deliveries(
    site: Site, browser: httpx.Client
) -> None:
    pause(site.database, "desk", "moving house", "ada")
    delivery_id = site.engine.deliver("send")
    record_heartbeat(site.database, "worker", "1.0")
    for path in ("/events", "/rules", "/audit", f"/deliveries/{delivery_id}"):
        page = get_page(browser, path)
        assert "1 connection is paused: desk (by an operator)." in page.text


def test_rules_load_error_is_shown_in_full(site: Site, browser: httpx.Client) -> None:
    site.rules.load_error = "rules.yaml:6:7: unknown key `evnt`\n  6 |       evnt: call.busy\n    |       ^"
    record_heartbeat(site.database, "worker", "1.0")
    assert "The rules file has errors. The previous rules stay active." in get_page(browser, "/events").text
    assert site.rules.load_error in browser.get("/rules").text


def test_list_pages_show_their_records(site: Site, browser: httpx.Client, clock: Clock) -> None:
    record_rejected_requests(
        site.database, [RejectedRequest("too_large", "the body has 2 MiB", 413, False, clock.now())]
    )
    pause(site.database, "twilio", "", "ada")
    assert "text-when-not-reached" in get_page(browser, "/rules").text
    assert "Shadow" in get_page(browser, "/rules").text
    assert "desk Active" in get_page(browser, "/connections").text
    assert re.search("twilio Paused (now|[0-9]+ s ago) by ada", get_page(browser, "/connections").text)
    assert "1 × too large" in get_page(browser, "/rejected").text
    assert "the body has 2 MiB" in get_page(browser, "/rejected/all").text
    assert "ada paused twilio" in get_page(browser, "/audit").text


def test_possible_duplicates_are_listed_and_dismissed(site: Site, browser: httpx.Client) -> None:
    assert "No possible duplicates." in browser.get("/contacts/duplicates").text
    save_possible_duplicate(site.database, "hubspot", "dlv_1", "51001", "51002")
    [pair] = list_possible_duplicates(site.database).items
    assert "Possible duplicates" in browser.get("/contacts").text
    assert "51001, 51002" in browser.get("/contacts/duplicates").text

    response = browser.post(f"/contacts/duplicates/{pair['id']}/dismiss", follow_redirects=True)
    assert "No possible duplicates." in response.text


def test_search_redirects_to_exact_id_or_lists_results(site: Site, browser: httpx.Client) -> None:
    event = site.engine.event()
    delivery_id = site.engine.deliver("send", event)
    for query, path in ((delivery_id, f"deliveries/{delivery_id}"), (event.id, f"events/{event.id}")):
        response = browser.get("/search", params={"q": f" {query} "})
        assert (response.status_code, response.headers["location"]) == (303, f"./{path}")
    response = browser.get("/search?q=(212)+555-0167")
    assert (response.status_code, response.headers["location"]) == (303, f"./contacts/{event.id}")
    assert "Nothing is stored about “nobody”." in get_page(browser, "/search?q=nobody").text
    assert "a phone number in any format" in get_page(browser, "/search?q=").text


def test_filters_of_the_former_start_page_lead_to_the_deliveries(browser: httpx.Client) -> None:
    response = browser.get("/?state=failed&rule=a")
    assert (response.status_code, response.headers["location"]) == (308, "./deliveries?state=failed&rule=a")


# ------------------------------------------------------------ operator actions


def test_resolve_redirects_to_the_delivery(site: Site, browser: httpx.Client) -> None:
    delivery_id = delivery_in_review(site)
    response = browser.post(f"/deliveries/{delivery_id}/resolve", data={"resolution": "delivered"})
    location = f"../../deliveries/{delivery_id}?done=delivered"
    assert (response.status_code, response.headers["location"]) == (303, location)
    assert site.engine.show(delivery_id)["state"] == "succeeded"
    assert "Needs review" not in get_page(browser, "/").text
    assert (
        "resolve by dashboard (resolution: delivered)" in get_page(browser, f"/deliveries/{delivery_id}").text
    )


def test_retry_and_cancel_redirect_to_delivery(site: Site, browser: httpx.Client) -> None:
    failed_id = failed_delivery(site, PermanentError("no such number"))
    response = browser.post(f"/deliveries/{failed_id}/retry")
    assert (response.status_code, response.headers["location"]) == (
        303,
        f"../../deliveries/{failed_id}?done=retried",
    )
    site.engine.run_due()
    assert site.engine.show(failed_id)["state"] == "succeeded"
    pending_id = site.engine.deliver("send")
    assert browser.post(f"/deliveries/{pending_id}/cancel").status_code == 303
    assert site.engine.show(pending_id)["state"] == "cancelled"


def test_impossible_action_redirects_to_page_with_reason(site: Site, browser: httpx.Client) -> None:
    succeeded_id = site.engine.deliver("post")
    site.engine.run_due()
    response = browser.post(f"/deliveries/{succeeded_id}/retry", follow_redirects=True)
    assert response.url.path == f"/deliveries/{succeeded_id}"
    assert "the state of the delivery no longer allows this" in ParsedPage(response).text
    event = site.engine.event()
    response = browser.post(f"/events/{event.id}/replay", follow_redirects=True)
    assert "was not routed again" in ParsedPage(response).text


def test_replay_with_one_rule_creates_its_delivery(site: Site, browser: httpx.Client) -> None:
    event_id = site.routed_event("chat.resolved")
    response = browser.post(f"/events/{event_id}/replay", data={"rule": "post-every-resolved-chat"})
    assert (response.status_code, response.headers["location"]) == (
        303,
        f"../../events/{event_id}?done=replayed",
    )
    page = get_page(browser, f"/events/{event_id}")
    assert len([link for link in page.all("a") if "deliveries/dlv_" in (link["href"] or "")]) == 2
    assert "replay by dashboard" in page.text
    assert "force" not in page.text.split("Operator actions")[1]


def test_rejected_request_is_accepted_once(site: Site, browser: httpx.Client, clock: Clock) -> None:
    body = b'{"event": "call.busy", "conversationId": "conv_9", "timestamp": "2026-01-01T00:00:00Z"}'
    record_rejected_requests(
        site.database, [RejectedRequest("timestamp", "400 s away", 401, True, clock.now(), body)]
    )
    [link] = [
        a["href"] for a in get_page(browser, "/rejected").all("a") if "rejected/rej_" in (a["href"] or "")
    ]
    path = f"/{link}".replace("/./", "/")
    assert browser.post(f"{path}/accept").status_code == 303
    assert "Accepted as evt_" in get_page(browser, path).text
    assert "was accepted already" in browser.post(f"{path}/accept", follow_redirects=True).text


def test_connection_is_paused_and_resumed(browser: httpx.Client) -> None:
    browser.post("/connections/desk/pause", data={"reason": "a new number"})
    assert "by dashboard: a new number" in get_page(browser, "/connections").text
    response = browser.post("/connections/desk/resume")
    assert response.headers["location"] == "../../connections/desk?done=connection_resumed"
    assert "a new number" not in get_page(browser, "/connections").text


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/deliveries/dlv_404", 404, "there is no delivery"),
        ("GET", "/events/evt_404", 404, "there is no event"),
        ("GET", "/rejected/rej_404", 404, "there is no rejected request"),
        ("GET", "/events/%00", 404, "there is no such ID"),
        ("GET", "/deliveries?state=dad", 400, "must be one of pending, running"),
        ("GET", "/deliveries?color=red", 400, 'unknown parameter "color"'),
        ("GET", "/events?since=yesterday", 400, "a time like"),
        ("GET", "/search?q=%00", 400, "a string of at most"),
        ("POST", "/deliveries/dlv_404/retry", 404, "there is no delivery"),
        ("POST", "/deliveries/dlv_404/resolve", 400, '"resolution" must be one of'),
        ("POST", "/connections/unknown/pause", 404, "there is no connection"),
    ],
)
def test_invalid_request_returns_error_page(
    browser: httpx.Client, method: str, path: str, status: int, message: str
) -> None:
    response = browser.request(method, path)
    assert (response.status_code, response.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert message in ParsedPage(response).text


def test_unavailable_database_returns_503_page(
    site: Site, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.database, "read", raising(StoreUnavailable("no disk")))
    response = browser.get("/")
    assert (response.status_code, "The database is unavailable" in response.text) == (503, True)


# ------------------------------------------------------------ safety and structure


def hostile_pages(site: Site, clock: Clock) -> list[str]:
    """Return the paths of pages that show hostile content from events, providers, operators and the URL."""
    event = site.routed_event(
        "call.busy",
        metadata={"contactName": HOSTILE, "contactEmail": f"a@{HOSTILE}"},
        summary=HOSTILE,
        conversationId=HOSTILE,
        language=HOSTILE,
    )
    unknown = site.engine.event(event=HOSTILE[:60]).id
    delivery = failed_delivery(site, PermanentError(HOSTILE))
    named = site.engine.deliver("send", rule=HOSTILE, params={"to": HOSTILE}, recipient=HOSTILE)
    site.engine.provider.lookup_works = False
    review = delivery_in_review(site)
    apply_callback(site.database, "desk", [StatusUpdate("failed", HOSTILE, delivery, HOSTILE)])
    record_rejected_requests(
        site.database, [RejectedRequest("timestamp", HOSTILE, 401, True, clock.now(), HOSTILE.encode())]
    )
    pause(site.database, "desk", HOSTILE, HOSTILE)
    pause_all(site.database, HOSTILE, HOSTILE)
    site.rules.load_error = HOSTILE
    with site.client() as api:
        rejected_request = api.get("/api/rejected-requests").json()["items"][0]["id"]
    quoted = str(httpx.QueryParams({"q": HOSTILE}))[2:]
    return [
        "/", "/events", f"/events/{event}", f"/events/{unknown}", f"/deliveries/{delivery}", f"/deliveries/{named}",
        f"/deliveries/{review}", "/connections", "/stop", "/start", "/review", "/status", "/settings",
        "/deliveries", "/rules", "/rules/text-when-not-reached", "/rules/text-when-not-reached/cancel",
        "/rules/try", "/rules/versions", "/rejected", f"/rejected/{rejected_request}", "/audit",
        f"/search?q={quoted}", f"/deliveries?rule={quoted}", f"/deliveries?event={quoted}",

        f"/events?type={quoted}", f"/events/{quoted}",
        f"/events/{event}/replay", "/events/replay?since=1h", "/events/replay?since=1h&force=yes",
        f"/events/replay?type={quoted}", "/deliveries/confirm?action=retry-all&state=failed",
        f"/deliveries/confirm?action=cancel&id={named}&id={quoted}",
        f"/deliveries/confirm?action=retry-all&rule={quoted}",
        f"/deliveries?state={quoted}", f"/deliveries?{quoted}=1", f"/login?next={quoted}",
    ]  # fmt: skip


def test_hostile_content_is_escaped_on_every_page(site: Site, browser: httpx.Client, clock: Clock) -> None:
    pages_with_text = 0
    for path in hostile_pages(site, clock):
        response = browser.get(path, follow_redirects=True)
        page = ParsedPage(response)
        assert response.status_code in (200, 400, 404)
        assert "49" not in page.strings
        for tag, attributes in page.elements:
            assert tag != "img", path
            assert tag != "script" or attributes == {"src": "./static/login.js", "defer": None}, path
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (
                path,
                attributes,
            )
            assert not (attributes.get("href") or "").startswith("javascript"), path
        pages_with_text += "window.hacked" in page.text
    assert pages_with_text >= 10, "the hostile content is shown as text"


def test_every_page_has_accessible_structure(site: Site, browser: httpx.Client) -> None:
    event = site.routed_event()
    delivery = delivery_in_review(site)
    save_possible_duplicate(site.database, "hubspot", delivery, "51001", "51002")
    for path in ("/", "/events", f"/events/{event}", f"/deliveries/{delivery}", "/connections", "/rules",
                 "/rejected", "/contacts", "/audit", "/search?q=x", "/login", "/nothing", "/stop", "/start",
                 "/review", "/status", "/settings", "/deliveries"):  # fmt: skip
        page = ParsedPage(browser.get(path))
        assert page.all("html") == [{"lang": "en"}]
        head = page.elements[: [tag for tag, _ in page.elements].index("body")]
        assert len([tag for tag, _ in head if tag == "title"]) == 1, path
        assert len(page.all("main")) == len(page.all("h1")) == 1, path
        assert page.all("meta")[1]["content"] == "width=device-width, initial-scale=1"
        assert len(page.all("table")) == len(page.all("caption"))
        assert all(head.get("scope") == "col" for head in page.all("th"))
        labelled = sum(
            "aria-label" in field or field.get("type") in ("hidden", "checkbox", "radio")
            for field in page.all("input")
        )
        assert len(page.all("input")) + len(page.all("select")) <= labelled + len(page.all("label")) + 1, path


def test_links_are_relative_for_proxy_path_prefix(site: Site, browser: httpx.Client) -> None:
    event = site.routed_event()
    for path in ("/", f"/events/{event}", "/connections"):
        for tag, attributes in ParsedPage(browser.get(path)).elements:
            for name in ("href", "src", "action"):
                link = attributes.get(name)
                assert link is None or not link.startswith(("/", "http")), (path, tag, link)
