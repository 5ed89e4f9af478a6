"""/api: what it shows, what it does, and what it says to a wrong question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.clock import Clock
from bridge.errors import OutcomeUnknown, PermanentError, StoreUnavailable
from bridge.rules.model import Problem
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from tests.integration.dashboard_site import RULES, Site, site

PERSON = "+12125550167"


@pytest.fixture
def running(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with site(tmp_path, clock) as running:
        yield running


@pytest.fixture
def api(running: Site) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def failing(running: Site, error: Exception) -> str:
    """A delivery whose attempt ended with this."""

    def fail() -> None:
        running.engine.partner.before = None
        raise error

    running.engine.partner.before = fail
    ident = running.engine.deliver("send")
    running.engine.lookup_delay()
    return ident


def in_review(running: Site) -> str:
    running.engine.partner.can_tell = False
    ident = failing(running, OutcomeUnknown("no answer"))
    running.engine.run_for(seconds=30)
    assert running.engine.show(ident)["state"] == "needs_review"
    return ident


# ------------------------------------------------------------ lists


def test_deliveries_are_listed_in_pages_the_newest_first(running: Site, api: httpx.Client) -> None:
    made = [running.engine.deliver("send") for _ in range(5)]
    first = api.get("/api/deliveries", params={"limit": 3}).json()
    second = api.get("/api/deliveries", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"state": "failed"}, 1),
        ({"state": "dead,pending"}, 2),
        ({"state": ["failed", "pending"]}, 2),
        ({"state": ""}, 3),
        ({"state": "needs_review"}, 0),
        ({"connection": "desk"}, 3),
        ({"connection": "other"}, 0),
        ({"rule": "test"}, 2),
        ({"rule": "another", "state": "pending"}, 1),
    ],
)
def test_deliveries_are_filtered(running: Site, api: httpx.Client, query: dict[str, Any], count: int) -> None:
    failing(running, PermanentError("no such number"))
    sent = running.engine.deliver("post")
    running.engine.lookup_delay()
    assert running.engine.show(sent)["state"] == "succeeded"
    running.engine.deliver("send", rule="another")
    assert len(api.get("/api/deliveries", params=query).json()["items"]) == count


def test_instants_are_iso_in_utc_and_addresses_are_whole(running: Site, api: httpx.Client) -> None:
    running.engine.deliver("send")
    [item] = api.get("/api/deliveries").json()["items"]
    assert item["created_at"].endswith("Z")
    assert item["recipient"] == PERSON


def test_events_are_listed_with_what_became_of_them(running: Site, api: httpx.Client, clock: Clock) -> None:
    ident = running.routed_event("call.busy")
    clock.advance(hours=3)
    running.routed_event("chat.resolved")
    found = api.get("/api/events").json()["items"]
    assert [item["name"] for item in found] == ["chat.resolved", "call.busy"]
    assert found[1]["deliveries"] == {"pending": 1}
    assert [item["id"] for item in api.get("/api/events?name=call.busy").json()["items"]] == [ident]
    assert [item["name"] for item in api.get("/api/events?since=2h").json()["items"]] == ["chat.resolved"]
    until = clock.now().isoformat().replace("+00:00", "Z")
    assert len(api.get("/api/events", params={"until": until}).json()["items"]) == 2


def test_one_event_comes_with_body_trace_deliveries_and_audit(running: Site, api: httpx.Client) -> None:
    event = api.get(f"/api/events/{running.routed_event('call.busy')}").json()
    assert event["body"]["event"] == "call.busy"
    traces = {trace["rule"]: trace for trace in event["trace"]}
    assert traces["text-when-not-reached"]["fired"] is True
    assert traces["post-every-resolved-chat"]["fired"] is False
    checks = traces["only-in-german"]["checks"]
    assert [check["result"] for check in checks if "language" in check["condition"]] in (
        ["false"],
        ["unknown"],
    )
    assert [item["state"] for item in event["deliveries"]] == ["pending"]
    assert event["audit"] == []


def test_one_delivery_comes_with_params_attempts_and_audit(running: Site, api: httpx.Client) -> None:
    ident = failing(running, PermanentError("no such number"))
    delivery = api.get(f"/api/deliveries/{ident}").json()
    assert delivery["params"] == {"to": PERSON}
    assert [entry["outcome"] for entry in delivery["attempt_history"]] == ["rejected"]
    assert delivery["audit"] == []


def test_a_refused_request_is_shown_and_accepted(running: Site, api: httpx.Client, clock: Clock) -> None:
    body = b'{"event": "call.busy", "conversationId": "conv_9", "timestamp": "2026-01-01T00:00:00Z"}'
    record_rejected_requests(
        running.database, [RejectedRequest("timestamp", "400 s away", 401, True, clock.now(), body)]
    )
    [item] = api.get("/api/rejected-requests").json()["items"]
    assert api.get(f"/api/rejected-requests/{item['id']}").json()["body"] == body.decode()
    done = api.post(f"/api/rejected-requests/{item['id']}/accept").json()
    assert done["done"] is True
    again = api.post(f"/api/rejected-requests/{item['id']}/accept")
    assert (again.status_code, "accepted before" in again.json()["error"]) == (409, True)
    assert len(api.get("/api/events").json()["items"]) == 1


@pytest.mark.parametrize(
    "words",
    [
        PERSON, "(212) 555-0167", "212.555.0167", "0012125550167", " +1 212 555 0167 ",
        "sms-{delivery}", "{delivery}", "{event}", "{conversation}", "{webhook}",
    ],
)  # fmt: skip
def test_a_person_or_a_conversation_is_found_by_what_one_has_at_hand(
    running: Site, api: httpx.Client, words: str
) -> None:
    running.engine.deliver("send", running.engine.event(metadata={"contactPhone": "+13105550111"}))
    event = running.engine.event()
    delivery = running.engine.deliver("send", event)
    running.engine.lookup_delay()
    words = words.format(
        delivery=delivery, event=event.id, conversation=event.conversation.id, webhook=event.dedupe_key
    )
    found = api.get("/api/search", params={"q": words}).json()
    ids = [item["id"] for item in found["deliveries"]]
    assert delivery in ids
    assert len(ids) == 1 or "conversation" in words or words == event.conversation.id
    if not words.startswith(("sms-", "dlv_")):
        assert event.id in [item["id"] for item in found["events"]]


def test_a_mail_address_is_found_however_it_is_written(running: Site, api: httpx.Client) -> None:
    event = running.engine.event("chat.abandoned", metadata={"contactEmail": "Ines@Okafor.example"})
    mailed = running.engine.deliver("mail", event)
    running.engine.lookup_delay()
    found = api.get("/api/search", params={"q": " Ines@OKAFOR.example"}).json()
    assert [item["id"] for item in found["events"]] == [event.id]
    found = api.get("/api/search", params={"q": "ines@okafor.example"}).json()
    assert [item["id"] for item in found["deliveries"]] == [mailed]
    assert api.get("/api/search", params={"q": "nobody@example.com"}).json() == {
        "events": [],
        "deliveries": [],
    }


def test_connections_say_whether_why_and_until_when_they_are_paused(
    running: Site, api: httpx.Client, clock: Clock
) -> None:
    paused = api.post("/api/connections/desk/pause", json={"reason": "moving house"}).json()
    assert (paused["paused"], paused["pause_cause"], paused["pause_reason"]) == (
        True,
        "person",
        "moving house",
    )
    assert paused["paused_until"] is None
    items = {item["name"]: item for item in api.get("/api/connections").json()["items"]}
    assert (items["desk"]["paused"], items["twilio"]["paused"]) == (True, False)
    running.engine.deliver("send")
    assert running.engine.step() == 0
    assert api.post("/api/connections/desk/resume").json()["paused"] is False
    running.engine.lookup_delay()
    assert len(running.engine.partner.texts) == 1
    assert [entry["action"] for entry in api.get("/api/audit").json()["items"]] == ["resume", "pause"]


def test_connections_do_not_show_what_is_nobodys_business(api: httpx.Client) -> None:
    for item in api.get("/api/connections").json()["items"]:
        assert "settings" not in item


def test_rules_say_what_runs_since_when_and_what_is_wrong_with_the_file(
    running: Site, api: httpx.Client
) -> None:
    found = api.get("/api/rules").json()
    assert found["hash"] == running.rules.current.hash
    assert found["loaded_at"].endswith("Z")
    assert (found["trouble"], found["problems"]) == (None, [])
    assert [(rule["name"], rule["shadow"]) for rule in found["rules"]] == [
        ("text-when-not-reached", False),
        ("post-every-resolved-chat", False),
        ("only-in-german", True),
    ]
    assert found["rules"][0]["do"] == ["twilio.send_sms"]
    running.rules.trouble = "rules.yaml:3:1: unknown key"
    running.rules.problems = (Problem(3, 1, "unknown key `evnt`", "did you mean `event`?"),)
    [problem] = api.get("/api/rules").json()["problems"]
    assert (problem["line"], problem["hint"]) == (3, "did you mean `event`?")


def test_counts(running: Site, api: httpx.Client) -> None:
    running.engine.deliver("send")
    found = api.get("/api/stats").json()
    assert found["deliveries"]["pending"] == 1
    assert found["unrouted"] == 1
    assert found["oldest_due"].endswith("Z")


def test_the_audit_is_listed_in_pages(running: Site, api: httpx.Client) -> None:
    for _ in range(3):
        api.post("/api/connections/desk/resume")
    first = api.get("/api/audit?limit=2").json()
    rest = api.get("/api/audit", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    assert first["items"][0]["actor"] == "api"


# ------------------------------------------------------------ acts


def test_a_dead_delivery_is_retried(running: Site, api: httpx.Client) -> None:
    ident = failing(running, PermanentError("no such number"))
    assert api.post(f"/api/deliveries/{ident}/retry").json()["done"] is True
    running.engine.lookup_delay()
    shown = api.get(f"/api/deliveries/{ident}").json()
    assert shown["state"] == "succeeded"
    assert [(entry["action"], entry["actor"]) for entry in shown["audit"]] == [("retry", "api")]


def test_a_waiting_delivery_is_cancelled(running: Site, api: httpx.Client) -> None:
    ident = running.engine.deliver("send")
    assert api.post(f"/api/deliveries/{ident}/cancel").status_code == 200
    running.engine.lookup_delay()
    assert running.engine.partner.texts == []


@pytest.mark.parametrize(
    ("resolution", "state"), [("delivered", "succeeded"), ("retry", "pending"), ("discard", "cancelled")]
)
def test_a_review_is_resolved(running: Site, api: httpx.Client, resolution: str, state: str) -> None:
    ident = in_review(running)
    answer = api.post(
        f"/api/deliveries/{ident}/resolve", json={"resolution": resolution, "external_id": "SM1"}
    )
    assert answer.status_code == 200
    assert running.engine.show(ident)["state"] == state


def test_what_is_not_possible_now_is_a_409_with_the_way_out(running: Site, api: httpx.Client) -> None:
    ident = in_review(running)
    answer = api.post(f"/api/deliveries/{ident}/retry")
    assert (answer.status_code, "resolve" in answer.json()["error"]) == (409, True)
    sent = running.engine.deliver("post")
    running.engine.lookup_delay()
    for act in ("retry", "cancel"):
        assert api.post(f"/api/deliveries/{sent}/{act}").status_code == 409


def test_an_event_is_replayed_with_todays_rules(running: Site, api: httpx.Client) -> None:
    ident = running.routed_event("chat.resolved")
    done = api.post(f"/api/events/{ident}/replay", json={"rule": "post-every-resolved-chat"}).json()
    assert len(done["deliveries"]) == 1
    assert len(api.get(f"/api/events/{ident}").json()["deliveries"]) == 2
    assert (
        api.post(f"/api/events/{ident}/replay", json={"rule": "text-when-not-reached"}).json()["deliveries"]
        == []
    )
    wrong = api.post(f"/api/events/{ident}/replay", json={"rule": "gone"})
    assert (wrong.status_code, "no rule is called" in wrong.json()["error"]) == (400, True)


def test_a_replay_uses_the_rules_that_run_when_it_is_asked_for(running: Site, api: httpx.Client) -> None:
    ident = running.routed_event("chat.resolved")
    running.rules.current = replace(running.rules.current, rules=(), hash="other")
    assert api.post(f"/api/events/{ident}/replay").json()["deliveries"] == []


def test_an_event_that_is_not_routed_yet_is_not_replayed(running: Site, api: httpx.Client) -> None:
    answer = api.post(f"/api/events/{running.engine.event().id}/replay")
    assert (answer.status_code, "not routed yet" in answer.json()["error"]) == (409, True)


# ------------------------------------------------------------ wrong questions


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/deliveries?state=dad", "no state is called `dad`"),
        ("/api/deliveries?states=dead", "there is no parameter `states`"),
        ("/api/deliveries?limit=0", "a number from 1 to 500"),
        ("/api/deliveries?limit=501", "a number from 1 to 500"),
        ("/api/deliveries?limit=99999999999999999999", "a number from 1 to 500"),
        ("/api/deliveries?limit=x", "a number from 1 to 500"),
        ("/api/deliveries?limit=%D9%A3", "a number from 1 to 500"),
        ("/api/deliveries?rule=%00", "a text of at most"),
        ("/api/events?since=yesterday", "an instant like"),
        ("/api/events?since=999999w", "an instant like"),
        ("/api/events?until=9999-99-99", "an instant like"),
        ("/api/events?cursor=%00", "a text of at most"),
        ("/api/rejected-requests?state=dead", "there is no parameter `state`"),
        ("/api/search", "?q="),
        ("/api/search?q=", "?q="),
        ("/api/search?q=%00", "a text of at most"),
        (f"/api/search?q={'x' * 501}", "a text of at most"),
    ],
)
def test_a_wrong_parameter_is_a_400_that_says_what_may_stand_there(
    api: httpx.Client, path: str, words: str
) -> None:
    answer = api.get(path)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("resolve", b"", "`resolution` must be one of delivered, retry, discard"),
        ("resolve", b'{"resolution": ["delivered"]}', "`resolution` must be one of"),
        ("resolve", b'{"resolution": "delivered", "external_id": 5}', "`external_id` must be a text"),
        ("resolve", b"resolution=delivered", "a JSON object"),
        ("resolve", b"[]", "a JSON object"),
        ("resolve", b"[" * 50_000, "a JSON object"),
        ("resolve", b"\xff", "a JSON object"),
        ("retry", b'{"now": true}', "there is no field `now`"),
    ],
)
def test_a_wrong_body_is_a_400_that_says_what_to_send(
    running: Site, api: httpx.Client, path: str, body: bytes, words: str
) -> None:
    answer = api.post(f"/api/deliveries/{running.engine.deliver('send')}/{path}", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/events/evt_404"),
        ("GET", "/api/events/%00"),
        ("GET", "/api/deliveries/dlv_404"),
        ("GET", "/api/rejected-requests/rej_404"),
        ("GET", f"/api/rejected-requests/{'x' * 1000}"),
        ("POST", "/api/deliveries/dlv_404/retry"),
        ("POST", "/api/deliveries/evt_1/cancel"),
        ("POST", "/api/events/evt_404/replay"),
        ("POST", "/api/rejected-requests/rej_404/accept"),
        ("POST", "/api/connections/nobody/pause"),
        ("POST", "/api/connections/nobody/resume"),
    ],
)
def test_what_is_not_there_is_a_404(api: httpx.Client, method: str, path: str) -> None:
    answer = api.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("there is no")


def test_without_a_database_it_is_a_503(
    running: Site, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise StoreUnavailable("no disk")

    monkeypatch.setattr(running.database, "read", broken)
    assert api.get("/api/events").status_code == 503


def test_the_rules_of_this_test_are_what_it_thinks(running: Site) -> None:
    assert running.rules.current.text == RULES
