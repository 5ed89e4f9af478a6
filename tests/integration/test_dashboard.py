"""The log page: what people find on it, what they can do, and that nothing from outside runs in it."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.clock import Clock
from bridge.connector import StatusUpdate
from bridge.errors import OutcomeUnknown, PermanentError, StoreUnavailable, TransientError
from bridge.store.connections import pause
from bridge.store.delivery_status import apply_callback
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from tests.integration.dashboard_site import Site, site

HOSTILE = (
    "\"'></textarea></title><script>window.hacked=1</script><img src=x onerror=window.hacked=1>{{ 7*7 }}"
)


@pytest.fixture
def running(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with site(tmp_path, clock) as running:
        yield running


@pytest.fixture
def browser(running: Site) -> Iterator[httpx.Client]:
    with running.browser() as client:
        yield client


class Reader(HTMLParser):
    """A page as elements and text."""

    def __init__(self, page: httpx.Response) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for found, attrs in self.elements if found == tag]


def read(browser: httpx.Client, path: str, status: int = 200) -> Reader:
    page = browser.get(path)
    assert page.status_code == status, page.text
    return Reader(page)


def failing(running: Site, error: Exception, *, after: bool = False, use: str = "send") -> str:
    partner, moment = running.engine.partner, "after" if after else "before"

    def fail() -> None:
        setattr(partner, moment, None)
        raise error

    setattr(partner, moment, fail)
    ident = running.engine.deliver(use, running.engine.event(metadata={"contactPhone": "+13105550111"}))
    running.engine.lookup_delay()
    return ident


def in_review(running: Site) -> str:
    running.engine.partner.can_tell = False
    ident = failing(running, OutcomeUnknown("no answer within 20 s"), after=True)
    running.engine.run_for(seconds=30)
    return ident


# ------------------------------------------------------------ what there is to see


def test_an_empty_log_says_what_will_be_here(browser: httpx.Client) -> None:
    page = read(browser, "/")
    assert "No deliveries yet" in page.text
    assert "bridge send call.busy" in page.text
    assert "Waiting for you" not in page.text


def test_the_log_shows_deliveries_with_masked_addresses_and_the_latest_events(
    running: Site, browser: httpx.Client
) -> None:
    ident = running.routed_event()
    page = read(browser, "/")
    assert "twilio.send_sms" in page.text
    assert "+121***67" in page.text
    assert "+12125550167" not in page.text
    assert {"href": f"./events/{ident}"} in page.all("a")


def test_what_waits_for_a_person_comes_first_with_what_to_do(running: Site, browser: httpx.Client) -> None:
    ident = in_review(running)
    running.engine.deliver("post")
    page = read(browser, "/")
    assert page.text.index("Waiting for you: 1") < page.text.index("Deliveries, the newest first")
    assert "Look at the partner, then say what you found" in page.text
    forms = [form for form in page.all("form") if form.get("action") == f"./deliveries/{ident}/resolve"]
    assert len(forms) == 1
    resolutions = [button["value"] for button in page.all("button") if button.get("name") == "resolution"]
    assert resolutions == ["delivered", "retry", "discard"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("state=dead", ["failed"]),
        ("state=pending", ["pending"]),
        ("connection=desk&state=", ["failed", "pending"]),
        ("connection=twilio", []),
        ("rule=another", ["pending"]),
        ("rule=another&state=dead", []),
    ],
)
def test_the_log_is_filtered(running: Site, browser: httpx.Client, query: str, shown: list[str]) -> None:
    failing(running, PermanentError("no such number"))
    running.engine.deliver("send", rule="another")
    page = read(browser, f"/?{query}")
    badges = [str(span["class"]) for span in page.all("span") if str(span.get("class")).startswith("badge")]
    assert sorted(badges) == [f"badge {state}" for state in shown]
    assert "Latest events" not in page.text


def test_a_filter_is_kept_by_older_and_by_the_states(running: Site, browser: httpx.Client) -> None:
    for _ in range(4):
        running.engine.deliver("post", rule="a & b")
    page = read(browser, "/?rule=a+%26+b&limit=3&state=pending")
    links = [link["href"] or "" for link in page.all("a")]
    [older] = [link for link in links if "cursor=" in link]
    assert [link for link in links if "state=dead" in link] == ["./?rule=a+%26+b&limit=3&state=dead"]
    rest = Reader(browser.get(older))
    assert len([link for link in rest.all("a") if "deliveries/" in (link["href"] or "")]) == 1


def test_an_event_says_why_each_rule_fired_or_not(running: Site, browser: httpx.Client) -> None:
    page = read(browser, f"/events/{running.routed_event()}")
    assert "fired text-when-not-reached" in page.text
    assert "did not fire only-in-german" in page.text
    assert "event.language eq de missing unknown event.language is missing" in page.text
    assert "1 rule is for other events" in page.text
    assert "Ines Okafor" in page.text
    assert '"conversationType": "phone"' in page.text


def test_an_event_that_no_rule_wanted_says_so(running: Site, browser: httpx.Client) -> None:
    page = read(browser, f"/events/{running.routed_event('chat.abandoned')}")
    assert "No rule made one; why, is below." in page.text


def test_an_event_that_waits_to_be_routed_says_so(running: Site, browser: httpx.Client) -> None:
    page = read(browser, f"/events/{running.engine.event().id}")
    assert "Not routed yet." in page.text
    assert "Replay" not in page.text


def test_a_delivery_tells_its_story(running: Site, browser: httpx.Client) -> None:
    ident = failing(running, TransientError("502 Bad Gateway"))
    running.engine.run_for(seconds=15)
    apply_callback(running.database, "desk", [StatusUpdate("undelivered", None, ident, "a landline")])
    page = read(browser, f"/deliveries/{ident}")
    story = [
        "created", "attempt 1 started", "attempt 1 finished: failed: server_error: 502 Bad Gateway", "attempt 2 started",
        "attempt 2 finished: succeeded", "message status: undelivered",
    ]  # fmt: skip
    places = [page.text.index(words) for words in story]
    assert places == sorted(places)
    assert "a landline" in page.text
    assert "+13105550111" in page.text, "here the whole address is shown"


def test_a_delivery_that_could_not_be_rendered_leads_to_the_replay(
    running: Site, browser: httpx.Client
) -> None:
    event = running.engine.event()
    ident = running.engine.deliver("post", event, render_error="contact.name is missing")
    page = read(browser, f"/deliveries/{ident}")
    assert "Mend the rule, then replay its event" in page.text
    assert not [form for form in page.all("form") if "retry" in (form.get("action") or "")]


def test_a_paused_connection_is_said_on_every_page_and_where_it_holds_things_up(
    running: Site, browser: httpx.Client
) -> None:
    pause(running.database, "desk", "moving house", "ada")
    ident = running.engine.deliver("send")
    for path in ("/", "/events", "/rules", "/audit", f"/deliveries/{ident}"):
        page = read(browser, path)
        assert "desk is paused : somebody paused it. moving house" in page.text
        assert "Resume" in page.text
    assert "waits: desk is paused" in read(browser, "/").text


def test_a_rules_file_with_problems_is_said_with_the_whole_report(
    running: Site, browser: httpx.Client
) -> None:
    running.rules.load_error = "rules.yaml:6:7: unknown key `evnt`\n  6 |       evnt: call.busy\n    |       ^"
    page = read(browser, "/")
    assert "The rules file on disk is not the one that runs" in page.text
    assert running.rules.load_error in browser.get("/").text
    assert "open" in read(browser, "/rules").all("details")[0]


def test_rules_connections_refused_requests_and_the_audit_have_their_pages(
    running: Site, browser: httpx.Client, clock: Clock
) -> None:
    record_rejected_requests(
        running.database, [RejectedRequest("too_large", "the body has 2 MiB", 413, False, clock.now())]
    )
    pause(running.database, "twilio", "", "ada")
    assert "text-when-not-reached" in read(browser, "/rules").text
    assert "shadow" in read(browser, "/rules").text
    assert "desk in use" in read(browser, "/connections").text
    assert "twilio paused somebody paused it" in read(browser, "/connections").text
    assert "too large the body has 2 MiB" in read(browser, "/rejected").text
    assert "ada pause twilio" in read(browser, "/audit").text


def test_a_search_leads_to_what_it_names_or_shows_all_of_a_person(
    running: Site, browser: httpx.Client
) -> None:
    event = running.engine.event()
    ident = running.engine.deliver("send", event)
    for words, path in ((ident, f"deliveries/{ident}"), (event.id, f"events/{event.id}")):
        answer = browser.get("/search", params={"q": f" {words} "})
        assert (answer.status_code, answer.headers["location"]) == (303, f"./{path}")
    page = read(browser, "/search?q=(212)+555-0167")
    assert ident in browser.get("/search?q=(212)+555-0167").text
    assert "call.busy" in page.text
    assert "Nothing." in read(browser, "/search?q=nobody").text
    assert "What are you looking for?" in read(browser, "/search?q=").text


# ------------------------------------------------------------ what there is to do


def test_a_review_is_resolved_from_the_log(running: Site, browser: httpx.Client) -> None:
    ident = in_review(running)
    answer = browser.post(f"/deliveries/{ident}/resolve", data={"resolution": "delivered", "back": "log"})
    assert (answer.status_code, answer.headers["location"]) == (303, "../../")
    assert running.engine.show(ident)["state"] == "succeeded"
    assert "Waiting for you" not in read(browser, "/").text
    assert "resolve by log page (resolution: delivered)" in read(browser, f"/deliveries/{ident}").text


def test_a_dead_delivery_is_retried_and_a_waiting_one_cancelled(running: Site, browser: httpx.Client) -> None:
    dead = failing(running, PermanentError("no such number"))
    answer = browser.post(f"/deliveries/{dead}/retry")
    assert (answer.status_code, answer.headers["location"]) == (303, f"../../deliveries/{dead}")
    running.engine.lookup_delay()
    assert running.engine.show(dead)["state"] == "succeeded"
    waiting = running.engine.deliver("send")
    assert browser.post(f"/deliveries/{waiting}/cancel").status_code == 303
    assert running.engine.show(waiting)["state"] == "cancelled"


def test_what_is_not_possible_now_comes_back_with_the_reason(running: Site, browser: httpx.Client) -> None:
    sent = running.engine.deliver("post")
    running.engine.lookup_delay()
    answer = browser.post(f"/deliveries/{sent}/retry")
    assert answer.status_code == 409
    assert "only dead and retrying deliveries are retried" in Reader(answer).text
    event = running.engine.event()
    assert "not routed yet" in Reader(browser.post(f"/events/{event.id}/replay")).text


def test_an_event_is_replayed_with_one_rule(running: Site, browser: httpx.Client) -> None:
    ident = running.routed_event("chat.resolved")
    answer = browser.post(f"/events/{ident}/replay", data={"rule": "post-every-resolved-chat"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"../../events/{ident}")
    page = read(browser, f"/events/{ident}")
    assert len([link for link in page.all("a") if "deliveries/dlv_" in (link["href"] or "")]) == 2
    assert "replay by log page" in page.text
    assert "force" not in page.text.split("What people did")[1]


def test_a_refused_request_is_accepted_after_all(running: Site, browser: httpx.Client, clock: Clock) -> None:
    body = b'{"event": "call.busy", "conversationId": "conv_9", "timestamp": "2026-01-01T00:00:00Z"}'
    record_rejected_requests(
        running.database, [RejectedRequest("timestamp", "400 s away", 401, True, clock.now(), body)]
    )
    [link] = [a["href"] for a in read(browser, "/rejected").all("a") if "rejected/rej_" in (a["href"] or "")]
    path = f"/{link}".replace("/./", "/")
    assert browser.post(f"{path}/accept").status_code == 303
    assert "Accepted as evt_" in read(browser, path).text
    assert browser.post(f"{path}/accept").status_code == 409


def test_a_connection_is_paused_and_resumed(running: Site, browser: httpx.Client) -> None:
    browser.post("/connections/desk/pause", data={"reason": "a new number"})
    assert "somebody paused it: a new number" in read(browser, "/connections").text
    assert browser.post("/connections/desk/resume", data={"back": "log"}).headers["location"] == "../../"
    assert "is paused" not in read(browser, "/connections").text


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/deliveries/dlv_404", 404, "there is no delivery"),
        ("GET", "/events/evt_404", 404, "there is no event"),
        ("GET", "/rejected/rej_404", 404, "there is no rejected request"),
        ("GET", "/events/%00", 404, "there is no such id"),
        ("GET", "/?state=dad", 400, "no state is called `dad`"),
        ("GET", "/?color=red", 400, "there is no parameter `color`"),
        ("GET", "/events?since=yesterday", 400, "an instant like"),
        ("GET", "/search?q=%00", 400, "a text of at most"),
        ("POST", "/deliveries/dlv_404/retry", 404, "there is no delivery"),
        ("POST", "/deliveries/dlv_404/resolve", 400, "`resolution` must be one of"),
        ("POST", "/connections/nobody/pause", 404, "there is no connection"),
    ],
)
def test_what_cannot_be_is_a_page_that_says_so(
    browser: httpx.Client, method: str, path: str, status: int, words: str
) -> None:
    answer = browser.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert words in Reader(answer).text


def test_without_a_database_there_is_a_page_that_says_so(
    running: Site, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise StoreUnavailable("no disk")

    monkeypatch.setattr(running.database, "read", broken)
    answer = browser.get("/")
    assert (answer.status_code, "Try again soon" in answer.text) == (503, True)


# ------------------------------------------------------------ what must not happen


def hostile_pages(running: Site, clock: Clock) -> list[str]:
    """Pages full of what strangers can write."""
    event = running.routed_event(
        "call.busy",
        metadata={"contactName": HOSTILE, "contactEmail": f"a@{HOSTILE}"},
        summary=HOSTILE,
        conversationId=HOSTILE,
        language=HOSTILE,
    )
    unknown = running.engine.event(event=HOSTILE[:60]).id
    delivery = failing(running, PermanentError(HOSTILE))
    named = running.engine.deliver("send", rule=HOSTILE, params={"to": HOSTILE}, recipient=HOSTILE)
    running.engine.partner.can_tell = False
    review = in_review(running)
    apply_callback(running.database, "desk", [StatusUpdate("failed", HOSTILE, delivery, HOSTILE)])
    record_rejected_requests(
        running.database, [RejectedRequest("timestamp", HOSTILE, 401, True, clock.now(), HOSTILE.encode())]
    )
    pause(running.database, "desk", HOSTILE, HOSTILE)
    running.rules.load_error = HOSTILE
    with running.client() as api:
        rejected_request = api.get("/api/rejected-requests").json()["items"][0]["id"]
    quoted = str(httpx.QueryParams({"q": HOSTILE}))[2:]
    return [
        "/", "/events", f"/events/{event}", f"/events/{unknown}", f"/deliveries/{delivery}", f"/deliveries/{named}",
        f"/deliveries/{review}", "/connections", "/rules", "/rejected", f"/rejected/{rejected_request}", "/audit",
        f"/search?q={quoted}", f"/?rule={quoted}", f"/?event={quoted}", f"/events?name={quoted}", f"/events/{quoted}",
        f"/?state={quoted}", f"/?{quoted}=1", f"/login?next={quoted}",
    ]  # fmt: skip


def test_nothing_from_outside_becomes_part_of_a_page(
    running: Site, browser: httpx.Client, clock: Clock
) -> None:
    seen = 0
    for path in hostile_pages(running, clock):
        answer = browser.get(path)
        page = Reader(answer)
        assert answer.status_code in (200, 400, 404)
        assert "49" not in page.words
        for tag, attributes in page.elements:
            assert tag != "img", path
            assert tag != "script" or attributes == {"src": "./static/login.js", "defer": None}, path
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (
                path,
                attributes,
            )
            assert not (attributes.get("href") or "").startswith("javascript"), path
        seen += "window.hacked" in page.text
    assert seen >= 10, "the hostile text is there, as text"


def test_every_page_names_its_language_its_title_and_its_parts(running: Site, browser: httpx.Client) -> None:
    event = running.routed_event()
    delivery = in_review(running)
    for path in ("/", "/events", f"/events/{event}", f"/deliveries/{delivery}", "/connections", "/rules",
                 "/rejected", "/audit", "/search?q=x", "/login", "/nothing"):  # fmt: skip
        page = Reader(browser.get(path))
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("title")) == len(page.all("main")) == len(page.all("h1")) == 1, path
        assert page.all("meta")[1]["content"] == "width=device-width, initial-scale=1"
        assert len(page.all("table")) == len(page.all("caption"))
        assert all(head.get("scope") == "col" for head in page.all("th"))
        labelled = sum(
            "aria-label" in field or field.get("type") in ("hidden", "checkbox")
            for field in page.all("input")
        )
        assert len(page.all("input")) + len(page.all("select")) <= labelled + len(page.all("label")) + 1, path


def test_pages_work_under_a_path_of_a_proxy(running: Site, browser: httpx.Client) -> None:
    event = running.routed_event()
    for path in ("/", f"/events/{event}", "/connections"):
        for tag, attributes in Reader(browser.get(path)).elements:
            for name in ("href", "src", "action"):
                link = attributes.get(name)
                assert link is None or not link.startswith(("/", "http")), (path, tag, link)
