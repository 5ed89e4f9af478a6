"""JSON API: filters of deliveries, and actions on many of them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from bridge.errors import PermanentError
from tests.integration.dashboard_site import READ_TOKEN, Site
from tests.integration.test_web_api import delivery_in_review, failed_delivery


def post(api: httpx.Client, path: str, **body: Any) -> Any:
    response = api.post(f"/api/deliveries/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_dry_run_says_what_a_retry_would_do_and_changes_nothing(site: Site, api: httpx.Client) -> None:
    delivery_id = failed_delivery(site, PermanentError("no such number"))
    preview = post(api, "retry", state=["failed"], connection="desk", dry_run=True)
    assert preview == {
        "dry_run": True, "action": "retry", "deliveries": 1, "messages": {"sms": 1}, "actions": {}, "later": 0,
        "held_back": {}, "connections": {"desk": 1}, "first": [delivery_id], "not_possible": 0, "obstacles": {},
    }  # fmt: skip
    assert site.engine.show(delivery_id)["state"] == "failed"
    outcome = post(api, "retry", state="failed", connection="desk", expected=1)
    assert (outcome["deliveries"], site.engine.show(delivery_id)["state"]) == (1, "pending")
    (entry,) = api.get("/api/audit").json()["items"]
    assert (entry["id"], entry["target"]) == (outcome["audit_id"], "deliveries")


def test_actions_on_chosen_ids_say_which_are_not_possible(site: Site, api: httpx.Client) -> None:
    failed, waiting = failed_delivery(site, PermanentError("no")), site.engine.deliver("post")
    outcome = post(api, "dismiss", ids=[failed, waiting])
    assert (outcome["deliveries"], outcome["obstacles"]) == (1, {"it is pending": 1})
    listed = api.get("/api/deliveries", params={"state": "failed", "not_dismissed": "yes"}).json()["items"]
    assert listed == []
    assert post(api, f"{failed}/dismiss", undo=True)["text"] == "no longer dismissed"
    assert post(api, "cancel", ids=[waiting])["deliveries"] == 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "name `ids`, or at least one criterion"),
        ({"ids": ["dlv_1"], "state": ["failed"]}, 400, "either `ids` or the criteria"),
        ({"state": ["sent"]}, 400, "`state[0]` must be one of pending, running"),
        ({"reason": "why"}, 400, "`reason` must be one of opted_out, no_consent"),
        ({"state": ["failed"], "expected": 7}, 409, "0 deliveries match now, and not 7 as before"),
        ({"person": "evt_none"}, 404, "no contact is stored for the event"),
    ],
)
def test_unclear_selections_are_rejected(
    api: httpx.Client, body: dict[str, Any], status: int, message: str
) -> None:
    response = api.post("/api/deliveries/retry", json=body)
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text


def test_reviews_are_resolved_together(site: Site, api: httpx.Client) -> None:
    review = delivery_in_review(site)
    results = post(api, "resolve", ids=[review, "dlv_0"], resolution="delivered")
    assert [(item["done"], item["text"]) for item in results["items"]] == [
        (True, "marked as delivered"),
        (False, "there is no such delivery"),
    ]


def test_counts_follow_the_filter(site: Site, api: httpx.Client) -> None:
    failed_delivery(site, PermanentError("no"))
    site.engine.deliver("post", rule="other")
    counts = api.get("/api/deliveries/counts", params={"rule": "other"}).json()
    assert counts["pending"] == {"number": 1, "is_exact": True}
    assert counts["failed"] == {"number": 0, "is_exact": True}


def test_read_token_changes_nothing(site: Site) -> None:
    delivery_id = failed_delivery(site, PermanentError("no"))
    with site.client(READ_TOKEN) as reader:
        assert reader.post("/api/deliveries/retry", json={"state": ["failed"]}).status_code == 403
    assert site.engine.show(delivery_id)["state"] == "failed"


@pytest.mark.parametrize("operation", ["retry", "dismiss", "resolve"])
def test_operation_on_a_delivery_that_is_not_as_it_was_seen_is_refused(
    site: Site, api: httpx.Client, operation: str
) -> None:
    review = operation == "resolve"
    delivery_id = delivery_in_review(site) if review else failed_delivery(site, PermanentError("no"))
    shown = api.get(f"/api/deliveries/{delivery_id}").json()
    more = {"resolution": "retry"} if review else {}
    path = f"/api/deliveries/{delivery_id}/{operation}"
    stale = api.post(path, json={"seen": f"{shown['state']}.99", **more})
    assert (stale.status_code, "it has changed" in stale.json()["error"]) == (409, True)
    seen = {"seen": f"{shown['state']}.{shown['fencing_token']}", **more}
    assert api.post(path, json=seen).status_code == 200
    if operation != "dismiss":
        assert api.post(path, json=seen).status_code == 409
