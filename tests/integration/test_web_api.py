"""JSON API: lists, records, operator actions and errors of /api."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from bridge.clock import Clock
from bridge.errors import OutcomeUnknown, PermanentError, StoreUnavailable
from bridge.rules.model import Diagnostic
from bridge.store import queries
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from bridge.store.possible_duplicates import save_possible_duplicate
from tests.integration.dashboard_site import RULES, Site
from tests.integration.engine import raising

PHONE = "+12125550167"


def failed_delivery(site: Site, error: Exception) -> str:
    """Return the ID of a delivery whose attempt raised `error`."""

    def fail() -> None:
        site.engine.provider.before = None
        raise error

    site.engine.provider.before = fail
    delivery_id = site.engine.deliver("send")
    site.engine.run_due()
    return delivery_id


def delivery_in_review(site: Site) -> str:
    site.engine.provider.lookup_works = False
    delivery_id = failed_delivery(site, OutcomeUnknown("no answer"))
    site.engine.run_for(seconds=30)
    assert site.engine.show(delivery_id)["state"] == "needs_review"
    return delivery_id


# ------------------------------------------------------------ lists


def test_deliveries_are_paginated_newest_first(site: Site, api: httpx.Client) -> None:
    delivery_ids = [site.engine.deliver("send") for _ in range(5)]
    first = api.get("/api/deliveries", params={"limit": 3}).json()
    second = api.get("/api/deliveries", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == delivery_ids[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"state": "failed"}, 1),
        ({"state": "failed,pending"}, 2),
        ({"state": ["failed", "pending"]}, 2),
        ({"state": ""}, 3),
        ({"state": "needs_review"}, 0),
        ({"connection": "desk"}, 3),
        ({"connection": "other"}, 0),
        ({"rule": "test"}, 2),
        ({"rule": "another", "state": "pending"}, 1),
    ],
)
def test_deliveries_filter_returns_only_matches(
    site: Site, api: httpx.Client, query: dict[str, Any], count: int
) -> None:
    failed_delivery(site, PermanentError("no such number"))
    succeeded_id = site.engine.deliver("post")
    site.engine.run_due()
    assert site.engine.show(succeeded_id)["state"] == "succeeded"
    site.engine.deliver("send", rule="another")
    assert len(api.get("/api/deliveries", params=query).json()["items"]) == count


def test_times_are_iso_8601_utc_and_addresses_are_not_masked(site: Site, api: httpx.Client) -> None:
    site.engine.deliver("send")
    [item] = api.get("/api/deliveries").json()["items"]
    assert item["created_at"].endswith("Z")
    assert item["recipient"] == PHONE


def test_events_are_listed_with_delivery_counts(site: Site, api: httpx.Client, clock: Clock) -> None:
    event_id = site.routed_event("call.busy")
    clock.advance(hours=3)
    site.routed_event("chat.resolved")
    items = api.get("/api/events").json()["items"]
    assert [item["type"] for item in items] == ["chat.resolved", "call.busy"]
    assert items[1]["deliveries"] == {"pending": 1}
    assert [item["id"] for item in api.get("/api/events?type=call.busy").json()["items"]] == [event_id]
    assert [item["type"] for item in api.get("/api/events?since=2h").json()["items"]] == ["chat.resolved"]
    until = clock.now().isoformat().replace("+00:00", "Z")
    assert len(api.get("/api/events", params={"until": until}).json()["items"]) == 2


def test_event_includes_body_trace_deliveries_and_audit(site: Site, api: httpx.Client) -> None:
    event = api.get(f"/api/events/{site.routed_event('call.busy')}").json()
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


def test_delivery_includes_params_attempts_and_audit(site: Site, api: httpx.Client) -> None:
    delivery_id = failed_delivery(site, PermanentError("no such number"))
    delivery = api.get(f"/api/deliveries/{delivery_id}").json()
    assert delivery["params"] == {"to": PHONE}
    assert [entry["outcome"] for entry in delivery["attempt_history"]] == ["rejected"]
    assert delivery["audit"] == []


def test_rejected_request_is_shown_and_accepted_once(site: Site, api: httpx.Client, clock: Clock) -> None:
    body = b'{"event": "call.busy", "conversationId": "conv_9", "timestamp": "2026-01-01T00:00:00Z"}'
    record_rejected_requests(
        site.database, [RejectedRequest("timestamp", "400 s away", 401, True, clock.now(), body)]
    )
    [item] = api.get("/api/rejected-requests").json()["items"]
    assert api.get(f"/api/rejected-requests/{item['id']}").json()["body"] == body.decode()
    assert api.post(f"/api/rejected-requests/{item['id']}/accept").json()["done"] is True
    second = api.post(f"/api/rejected-requests/{item['id']}/accept")
    assert (second.status_code, "already accepted" in second.json()["error"]) == (409, True)
    assert len(api.get("/api/events").json()["items"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        PHONE, "(212) 555-0167", "212.555.0167", "0012125550167", " +1 212 555 0167 ",
        "sms-{delivery}", "{delivery}", "{event}", "{conversation}", "{webhook}",
    ],
)  # fmt: skip
def test_search_finds_phone_number_formats_and_ids(site: Site, api: httpx.Client, query: str) -> None:
    site.engine.deliver("send", site.engine.event(metadata={"contactPhone": "+13105550111"}))
    event = site.engine.event()
    delivery = site.engine.deliver("send", event)
    site.engine.run_due()
    query = query.format(
        delivery=delivery, event=event.id, conversation=event.conversation.id, webhook=event.dedupe_key
    )
    results = api.get("/api/search", params={"q": query}).json()
    delivery_ids = [item["id"] for item in results["deliveries"]]
    assert delivery in delivery_ids
    assert len(delivery_ids) == 1 or "conversation" in query or query == event.conversation.id
    if not query.startswith(("sms-", "dlv_")):
        assert event.id in [item["id"] for item in results["events"]]


def test_why_reports_what_decided_about_each_event(site: Site, api: httpx.Client) -> None:
    ids = [site.routed_event(direction="inbound") for _ in range(3)]
    page = api.post("/api/why", json={"contact": "(212) 555-0167", "since": "2d", "limit": 2}).json()
    assert [item["id"] for item in page["items"]] == ids[1:]
    assert page["items"][0]["rules"][0]["answer"] == (
        "did not fire: event.direction is inbound, expected outbound"
    )
    older = api.post("/api/why", json={"contact": PHONE, "cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in older["items"]] == ids[:1]
    invalid: dict[str, Any] = {
        "`contact` is missing": {},
        "`limit` must be a number": {"contact": "x", "limit": 0},
        "`since` must be a time": {"contact": "x", "since": "foo"},
        "unknown field": {"q": "x"},
    }
    for words, body in invalid.items():
        response = api.post("/api/why", json=body)
        assert (response.status_code, words in response.json()["error"]) == (400, True)


def test_search_finds_email_address_case_insensitively(site: Site, api: httpx.Client) -> None:
    event = site.engine.event("chat.abandoned", metadata={"contactEmail": "Ines@Okafor.example"})
    delivery_id = site.engine.deliver("mail", event)
    site.engine.run_due()
    results = api.get("/api/search", params={"q": " Ines@OKAFOR.example"}).json()
    assert [item["id"] for item in results["events"]] == [event.id]
    results = api.get("/api/search", params={"q": "ines@okafor.example"}).json()
    assert [item["id"] for item in results["deliveries"]] == [delivery_id]
    assert api.get("/api/search", params={"q": "nobody@example.com"}).json() == {
        "events": [],
        "deliveries": [],
        "contacts": [],
    }


def test_connections_show_pause_cause_reason_and_end(site: Site, api: httpx.Client) -> None:
    paused = api.post("/api/connections/desk/pause", json={"reason": "moving house"}).json()
    assert (paused["paused"], paused["pause_cause"], paused["pause_reason"]) == (
        True,
        "operator",
        "moving house",
    )
    assert paused["paused_until"] is None
    items = {item["name"]: item for item in api.get("/api/connections").json()["items"]}
    assert (items["desk"]["paused"], items["twilio"]["paused"]) == (True, False)
    site.engine.deliver("send")
    assert site.engine.step() == 0
    assert api.post("/api/connections/desk/resume").json()["paused"] is False
    site.engine.run_due()
    assert len(site.engine.provider.messages) == 1
    assert [entry["action"] for entry in api.get("/api/audit").json()["items"]] == ["resume", "pause"]


def test_connections_do_not_show_settings(api: httpx.Client) -> None:
    for item in api.get("/api/connections").json()["items"]:
        assert "settings" not in item


def test_rules_show_active_rules_and_load_error(site: Site, api: httpx.Client) -> None:
    rules_status = api.get("/api/rules").json()
    assert rules_status["hash"] == site.rules.current.hash
    assert rules_status["loaded_at"].endswith("Z")
    assert (rules_status["load_error"], rules_status["diagnostics"]) == (None, [])
    assert [(rule["name"], rule["shadow"]) for rule in rules_status["rules"]] == [
        ("text-when-not-reached", False),
        ("post-every-resolved-chat", False),
        ("only-in-german", True),
    ]
    assert rules_status["rules"][0]["do"] == ["twilio.send_sms"]
    site.rules.load_error = "rules.yaml:3:1: unknown key"
    site.rules.diagnostics = (Diagnostic(3, 1, "unknown key `evnt`", "did you mean `event`?"),)
    [problem] = api.get("/api/rules").json()["diagnostics"]
    assert (problem["line"], problem["hint"]) == (3, "did you mean `event`?")


def test_stats_count_deliveries_and_unrouted_events(site: Site, api: httpx.Client) -> None:
    site.engine.deliver("send")
    stats = api.get("/api/stats").json()
    assert stats["deliveries"]["pending"] == 1
    assert stats["unrouted"] == 1
    assert stats["oldest_due"].endswith("Z")


def test_stats_stop_counting_at_the_maximum(
    site: Site, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_COUNTED", 2)
    for _ in range(3):
        site.engine.deliver("send")
    stats = api.get("/api/stats").json()
    assert (stats["deliveries"]["pending"], stats["unrouted"]) == (2, 2)


def test_audit_log_is_paginated(api: httpx.Client) -> None:
    for _ in range(3):
        api.post("/api/connections/desk/resume")
    first = api.get("/api/audit?limit=2").json()
    rest = api.get("/api/audit", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    assert first["items"][0]["actor"] == "api"


# ------------------------------------------------------------ operator actions


def test_possible_duplicates_are_listed_and_dismissed(site: Site, api: httpx.Client) -> None:
    for number in range(3):
        save_possible_duplicate(site.database, "hubspot", "dlv_1", "51001", f"5100{number + 2}")
    save_possible_duplicate(site.database, "salesforce", "dlv_2", "003A", "003B")

    page = api.get("/api/contacts/duplicates", params={"connection": "hubspot", "limit": 2}).json()
    assert [item["second_record"] for item in page["items"]] == ["51004", "51003"]
    newest = page["items"][0]
    assert (newest["connection"], newest["first_record"], newest["delivery_id"]) == (
        "hubspot",
        "51001",
        "dlv_1",
    )
    rest = api.get("/api/contacts/duplicates", params={"cursor": page["next_cursor"]}).json()
    assert [item["second_record"] for item in rest["items"]] == ["51002"]

    path = f"/api/contacts/duplicates/{newest['id']}/dismiss"
    assert api.post(path).json() == {"id": newest["id"], "dismissed": True}
    assert api.post(path).status_code == 404
    assert len(api.get("/api/contacts/duplicates").json()["items"]) == 3


def test_failed_delivery_is_retried(site: Site, api: httpx.Client) -> None:
    delivery_id = failed_delivery(site, PermanentError("no such number"))
    assert api.post(f"/api/deliveries/{delivery_id}/retry").json()["done"] is True
    site.engine.run_due()
    shown = api.get(f"/api/deliveries/{delivery_id}").json()
    assert shown["state"] == "succeeded"
    assert [(entry["action"], entry["actor"]) for entry in shown["audit"]] == [("retry", "api")]


def test_pending_delivery_is_cancelled(site: Site, api: httpx.Client) -> None:
    delivery_id = site.engine.deliver("send")
    assert api.post(f"/api/deliveries/{delivery_id}/cancel").status_code == 200
    site.engine.run_due()
    assert site.engine.provider.messages == []


@pytest.mark.parametrize(
    ("resolution", "state"), [("delivered", "succeeded"), ("retry", "pending"), ("discard", "cancelled")]
)
def test_needs_review_is_resolved(site: Site, api: httpx.Client, resolution: str, state: str) -> None:
    delivery_id = delivery_in_review(site)
    response = api.post(
        f"/api/deliveries/{delivery_id}/resolve", json={"resolution": resolution, "external_id": "SM1"}
    )
    assert response.status_code == 200
    assert site.engine.show(delivery_id)["state"] == state


def test_impossible_action_returns_409_with_advice(site: Site, api: httpx.Client) -> None:
    delivery_id = delivery_in_review(site)
    response = api.post(f"/api/deliveries/{delivery_id}/retry")
    assert (response.status_code, "resolve" in response.json()["error"]) == (409, True)
    succeeded_id = site.engine.deliver("post")
    site.engine.run_due()
    for action in ("retry", "cancel"):
        assert api.post(f"/api/deliveries/{succeeded_id}/{action}").status_code == 409


def test_replay_uses_active_rules(site: Site, api: httpx.Client) -> None:
    event_id = site.routed_event("chat.resolved")
    done = api.post(f"/api/events/{event_id}/replay", json={"rule": "post-every-resolved-chat"}).json()
    assert len(done["deliveries"]) == 1
    assert len(api.get(f"/api/events/{event_id}").json()["deliveries"]) == 2
    assert (
        api.post(f"/api/events/{event_id}/replay", json={"rule": "text-when-not-reached"}).json()[
            "deliveries"
        ]
        == []
    )
    unknown_rule = api.post(f"/api/events/{event_id}/replay", json={"rule": "gone"})
    assert (unknown_rule.status_code, "no active rule is called" in unknown_rule.json()["error"]) == (
        400,
        True,
    )


def test_replay_after_reload_uses_new_rules(site: Site, api: httpx.Client) -> None:
    event_id = site.routed_event("chat.resolved")
    site.rules.current = replace(site.rules.current, rules=(), hash="other")
    assert api.post(f"/api/events/{event_id}/replay").json()["deliveries"] == []


def test_replay_of_unrouted_event_returns_409(site: Site, api: httpx.Client) -> None:
    response = api.post(f"/api/events/{site.engine.event().id}/replay")
    assert (response.status_code, "not routed yet" in response.json()["error"]) == (409, True)


# ------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/deliveries?state=dad", "`state` must be one of pending, running"),
        ("/api/deliveries?states=failed", "unknown parameter `states`"),
        ("/api/deliveries?limit=0", "a number from 1 to 500"),
        ("/api/deliveries?limit=501", "a number from 1 to 500"),
        ("/api/deliveries?limit=99999999999999999999", "a number from 1 to 500"),
        ("/api/deliveries?limit=000000500999", "a number from 1 to 500"),
        (f"/api/deliveries?limit=000000001{'9' * 50}", "a number from 1 to 500"),
        ("/api/deliveries?limit=x", "a number from 1 to 500"),
        ("/api/deliveries?limit=%D9%A3", "a number from 1 to 500"),
        ("/api/deliveries?rule=%00", "a string of at most"),
        ("/api/events?since=yesterday", "a time like"),
        ("/api/events?since=999999w", "a time like"),
        ("/api/events?until=9999-99-99", "a time like"),
        ("/api/events?cursor=%00", "must be the `next_cursor` of the previous page"),
        ("/api/rejected-requests?state=failed", "unknown parameter `state`"),
        ("/api/search", "?q="),
        ("/api/search?q=", "?q="),
        ("/api/search?q=%00", "a string of at most"),
        (f"/api/search?q={'x' * 501}", "a string of at most"),
    ],
)
def test_invalid_parameter_returns_400_with_valid_values(api: httpx.Client, path: str, message: str) -> None:
    response = api.get(path)
    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("resolve", b"", "`resolution` must be one of delivered, retry, discard"),
        ("resolve", b'{"resolution": ["delivered"]}', "`resolution` must be one of"),
        ("resolve", b'{"resolution": "delivered", "external_id": 5}', "`external_id` must be a string"),
        ("resolve", b"resolution=delivered", "a JSON object"),
        ("resolve", b"[]", "a JSON object"),
        ("resolve", b"[" * 50_000, "a JSON object"),
        ("resolve", b"\xff", "a JSON object"),
        ("retry", b'{"now": true}', "unknown field `now`"),
    ],
)
def test_invalid_body_returns_400_with_advice(
    site: Site, api: httpx.Client, path: str, body: bytes, message: str
) -> None:
    response = api.post(f"/api/deliveries/{site.engine.deliver('send')}/{path}", content=body)
    assert response.status_code == 400
    assert message in response.json()["error"]


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
        ("POST", "/api/connections/unknown/pause"),
        ("POST", "/api/connections/unknown/resume"),
    ],
)
def test_unknown_id_returns_404(api: httpx.Client, method: str, path: str) -> None:
    body = {"reason": "a wrong text"} if path.endswith("/pause") else None
    response = api.request(method, path, json=body)
    assert response.status_code == 404
    assert response.json()["error"].startswith("there is no")


def test_unavailable_database_returns_503(
    site: Site, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.database, "read", raising(StoreUnavailable("no disk")))
    assert api.get("/api/events").status_code == 503


def test_site_uses_rules_of_test(site: Site) -> None:
    assert site.rules.current.text == RULES


# ------------------------------------------------------------ opt-outs


def test_opt_outs_are_added_listed_and_removed(api: httpx.Client) -> None:
    added = api.post("/api/opt-outs", json={"address": "+1 (212) 555-0167", "reason": "asked on the phone"})
    assert added.status_code == 200
    assert [(item["channel"], item["changed"]) for item in added.json()["items"]] == [
        ("sms", True), ("whatsapp", True), ("call", True),
    ]  # fmt: skip
    listed = api.get("/api/opt-outs", params={"channel": "sms"}).json()
    [entry] = listed["items"]
    assert (entry["address"], entry["source"], entry["actor"], entry["reason"]) == (
        PHONE, "API", "api", "asked on the phone",
    )  # fmt: skip
    removed = api.request("DELETE", "/api/opt-outs", json={"address": PHONE, "channel": "sms"})
    assert removed.json()["items"] == [
        {"channel": "sms", "address": PHONE, "opted_out": False, "changed": True}
    ]
    assert api.get("/api/opt-outs", params={"channel": "sms"}).json()["items"] == []
    audit = api.get("/api/audit").json()["items"]
    assert {(item["action"], item["target"]) for item in audit} == {
        ("opt_out", "+121***67"),
        ("opt_in", "+121***67"),
    }


def test_invalid_items_are_reported_and_valid_ones_stored(api: httpx.Client) -> None:
    items = [
        {"address": "ada@engine.example"},
        {"address": "+1415555"},
        {"address": PHONE, "channel": "email"},
        "x",
    ]
    response = api.post("/api/opt-outs", json={"items": items})
    assert response.status_code == 200
    assert [item["address"] for item in response.json()["items"]] == ["ada@engine.example"]
    errors = response.json()["errors"]
    assert [error["index"] for error in errors] == [1, 2, 3]
    assert "too short" in errors[0]["error"]
    assert "must be one of sms, whatsapp, call" in errors[1]["error"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "`address` is missing"),
        ({"items": []}, "1 to 500"),
        ({"items": [{"address": PHONE}] * 501}, "1 to 500"),
        ({"items": [{"address": PHONE}], "reason": "x"}, "1 to 500"),
        ({"address": "nobody"}, "neither a phone number"),
        ({"address": 5}, "must be a string"),
        ({"address": PHONE, "reason": "half a character: \ud83d"}, "must be a string"),
        ({"address": PHONE, "reason": "\0"}, "must be a string"),
        ({"number": PHONE}, "unknown field `number`"),
    ],
)
def test_invalid_request_for_opt_outs_is_400(api: httpx.Client, body: dict[str, Any], error: str) -> None:
    for method in ("POST", "DELETE"):
        response = api.request(method, "/api/opt-outs", content=json.dumps(body))
        assert response.status_code == 400
        assert error in response.json()["error"]


def test_opt_outs_need_the_admin_token(site: Site) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert httpx.request(method, f"{site.url}/api/opt-outs").status_code == 401


# ------------------------------------------------------------ requests that no endpoint takes


def test_other_methods_are_405_with_every_method_of_the_path(api: httpx.Client) -> None:
    response = api.put("/api/opt-outs")
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")
    assert "use DELETE or GET or HEAD or POST" in response.json()["error"]
    assert api.get("/api/deliveries/dlv_1/retry").status_code == 405


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/api/event", "did you mean /api/events?"),
        ("/api/events/", "did you mean /api/events?"),
        ("/api/nothing/like/this/exists", "see /api/openapi.json"),
    ],
)
def test_unknown_path_is_404_with_a_hint(api: httpx.Client, path: str, hint: str) -> None:
    for method in ("GET", "POST"):
        response = api.request(method, path)
        assert (response.status_code, hint in response.json()["error"]) == (404, True)


def test_head_returns_no_body(api: httpx.Client) -> None:
    response = api.head("/api/events")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b'{"reason": "a", "reason": "b"}', 400, "`reason` occurs more than once"),
        (b'{"reason": NaN}', 400, "send a JSON object"),
        (b'{"reason": 1' + b"0" * 5000 + b"}", 400, "send a JSON object"),
        (b'{"reason": 5}', 400, "`reason` must be a string"),
        (b"{}", 400, "`reason` is missing"),
        (b"", 400, "`reason` is missing"),
        (b'{"reason": " "}', 400, "`reason`"),
        (b'{"raeson": "x"}', 400, "unknown field `raeson`; did you mean `reason`?"),
        (b'{"reason": "' + b"x" * 70_000 + b'"}', 413, "larger than 65,536 bytes"),
    ],
)
def test_body_is_read_strictly(api: httpx.Client, content: bytes, status: int, message: str) -> None:
    response = api.post("/api/connections/desk/pause", content=content)
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text


def test_body_of_another_type_is_415(api: httpx.Client) -> None:
    response = api.post("/api/pause", content=b"<a/>", headers={"Content-Type": "application/xml"})
    assert (response.status_code, "application/json" in response.json()["error"]) == (415, True)
    assert api.post("/api/resume", content=b"", headers={"Content-Type": "text/plain"}).status_code == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=1&limit=2", "`limit` is given 2 times"),
        ("cursor=dlv_1", "`cursor` must be the `next_cursor` of the previous page"),
        ("limt=5", "did you mean `limit`?"),
        ("limit=0&since=x", "`limit` must be a number from 1 to 500"),
        ("limit=0&since=x", "`since` must be a time like 2026-03-02T21:30:00Z"),
    ],
)
def test_query_is_read_strictly(api: httpx.Client, query: str, message: str) -> None:
    response = api.get(f"/api/events?{query}")
    assert (response.status_code, message in response.json()["error"]) == (400, True), response.text


def test_empty_parameters_count_as_missing(api: httpx.Client) -> None:
    assert api.get("/api/events", params={"cursor": "", "type": ""}).status_code == 200
    assert api.get("/api/deliveries?state=&state=failed").status_code == 200


def test_command_that_reads_takes_no_query(api: httpx.Client) -> None:
    response = api.post("/api/resume?all=yes")
    assert (response.status_code, "takes no parameters" in response.json()["error"]) == (400, True)
