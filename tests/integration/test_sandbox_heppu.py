"""Mock Heppu API: scheduled calls, webhooks and agents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bridge.samples import sample
from bridge.sandbox import RunningSandbox

AGENT = "3f0c6f0e-8a57-4a53-9c7e-5b2b7c1f6a10"
TO = "+12125550123"


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[httpx.Client]:
    env = sandbox.environment
    with httpx.Client(base_url=env["HEPPU_API_URL"], headers={"x-api-key": env["HEPPU_API_KEY"]}) as client:
        yield client


def schedule(api: httpx.Client, **fields: Any) -> httpx.Response:
    return api.post("/calls/schedule", json={"agentId": AGENT, "contactPhone": TO} | fields)


def test_call_is_scheduled_listed_read_and_cancelled(sandbox: RunningSandbox, api: httpx.Client) -> None:
    response = schedule(
        api,
        contactName="Ines Okafor",
        scheduledAt="2026-03-03T09:00:00-05:00",
        priority=5,
        maxRetries=0,
        metadata={"bridge": "d1"},
        callMetadata={"timezone": "America/New_York"},
    )
    assert response.status_code == 201
    call_id = response.json()["data"]["id"]
    call = sandbox.heppu.calls[0]
    assert (call.id, call.contact_phone, call.request["metadata"]) == (call_id, TO, {"bridge": "d1"})
    listed = api.get("/calls", params={"phoneNumber": TO, "status": "scheduled"}).json()["data"]
    assert [item["id"] for item in listed["calls"]] == [call_id]
    assert listed["pagination"] == {"total": 1, "limit": 50, "offset": 0, "hasMore": False}
    assert listed["calls"][0]["contact"]["name"] == "Ines Okafor"
    read = api.get(f"/calls/{call_id}").json()["data"]
    assert (read["metadata"], read["status"]) == ({"bridge": "d1"}, "scheduled")
    cancelled = api.delete(f"/calls/{call_id}").json()
    assert cancelled["data"] == {"id": call_id, "status": "cancelled"}
    assert api.delete(f"/calls/{call_id}").status_code == 409
    assert api.get("/calls/call_unknown").status_code == 404


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agentId": "agent_abc123"}, "agentId"),
        ({"agentId": None}, "agentId"),
        ({"contactPhone": "2125550123"}, "contactPhone"),
        ({"phoneNumber": TO}, "phoneNumber"),
        ({"scheduledAt": "tomorrow"}, "scheduledAt"),
        ({"scheduledAt": "2026-03-03T09:00:00"}, "scheduledAt"),
        ({"priority": 11}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"maxRetries": -1}, "maxRetries"),
        ({"metadata": "d1"}, "metadata"),
        ({"contactName": 7}, "contactName"),
        ({"retryIntervals": "2 hours"}, "retryIntervals"),
    ],
)
def test_invalid_call_is_rejected(
    sandbox: RunningSandbox, api: httpx.Client, fields: dict[str, Any], field: str
) -> None:
    response = schedule(api, **fields)
    assert response.status_code == 422
    assert response.json()["error"]["details"]["field"] == field
    assert sandbox.heppu.calls == []


def test_api_key_is_required_in_either_header(sandbox: RunningSandbox) -> None:
    url, key = sandbox.environment["HEPPU_API_URL"], sandbox.environment["HEPPU_API_KEY"]
    response = httpx.get(url + "/calls")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx.get(url + "/calls", headers={"x-api-key": "wrong"}).status_code == 401
    assert httpx.get(url + "/calls", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_call_list_is_filtered_sorted_and_paged(sandbox: RunningSandbox, api: httpx.Client) -> None:
    for hour in (3, 1, 2):
        schedule(api, contactPhone=f"+1212555010{hour}", scheduledAt=f"2026-03-03T0{hour}:00:00Z")
        sandbox.clock.advance(seconds=1)

    def phones(**query: Any) -> str:
        calls = api.get("/calls", params=query).json()["data"]["calls"]
        return "".join(call["contact"]["phone"][-1] for call in calls)

    assert phones() == "213"
    assert phones(sortBy="scheduledAt", sortOrder="asc") == "123"
    assert phones(limit=1, offset=1) == "1"
    assert api.get("/calls", params={"limit": 2}).json()["data"]["pagination"]["hasMore"] is True
    assert phones(startDate=(sandbox.clock.now() - timedelta(seconds=1.5)).isoformat()) == "2"
    assert phones(endDate=(sandbox.clock.now() - timedelta(seconds=2.5)).isoformat()) == "3"
    assert phones(agentId="b7d1a1f4-52c0-4a0c-8a3e-0d1f2c3b4a59") == ""
    assert phones(direction="inbound") == ""
    assert phones(status="completed") == ""
    for invalid_query in (
        {"limit": 101},
        {"limit": "x"},
        {"status": "done"},
        {"sortBy": "name"},
        {"direction": "up"},
    ):
        assert api.get("/calls", params=invalid_query).status_code == 400, invalid_query


def test_webhook_is_created_updated_and_deleted_without_showing_secret(
    sandbox: RunningSandbox, api: httpx.Client
) -> None:
    body = {
        "url": "https://bridge.example.com/webhooks/heppu",
        "events": ["call.busy"],
        "secret": "whsec_abcdef123",
    }
    created = api.post("/webhooks", json=body)
    assert created.status_code == 201
    webhook = created.json()["data"]
    assert (webhook["status"], webhook["secretPrefix"]) == ("active", "whsec_abc")
    assert "whsec_abcdef123" not in created.text
    updated = api.patch(
        f"/webhooks/{webhook['id']}", json={"events": ["chat.completed"], "status": "inactive"}
    )
    assert (updated.json()["data"]["events"], updated.json()["data"]["status"]) == (
        ["chat.completed"],
        "inactive",
    )
    assert [item["id"] for item in api.get("/webhooks").json()["data"]] == [webhook["id"]]
    assert sandbox.heppu.webhooks[0]["secret"] == "whsec_abcdef123"
    state = httpx.get(sandbox.url + "/_sandbox/state").text
    assert "whsec_abcdef123" not in state
    assert api.delete(f"/webhooks/{webhook['id']}").status_code == 204
    assert api.delete(f"/webhooks/{webhook['id']}").status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://bridge.example.com"},
        {"url": None},
        {"events": []},
        {"events": ["call.started"]},
        {"events": "call.busy"},
        {"secret": ""},
        {"name": "x"},
    ],
)
def test_invalid_webhook_is_rejected(api: httpx.Client, change: dict[str, Any]) -> None:
    body = {"url": "https://bridge.example.com/", "events": ["call.busy"]}
    assert api.post("/webhooks", json=body | change).status_code == 422
    webhook_id = api.post("/webhooks", json=body).json()["data"]["id"]
    assert api.patch(f"/webhooks/{webhook_id}", json=change).status_code == 422


def test_agents_match_the_samples(api: httpx.Client) -> None:
    agents = api.get("/agents").json()["data"]["agents"]
    assert {agent["id"] for agent in agents} == {
        sample(name)["agentId"] for name in ("call.busy", "chat.resolved")
    }
    voice = api.get("/agents", params={"type": "voice"}).json()["data"]["agents"]
    assert [agent["id"] for agent in voice] == [AGENT]
    assert api.get(f"/agents/{AGENT}").json()["data"]["name"] == voice[0]["name"]
    assert api.get("/agents/unknown").status_code == 404
