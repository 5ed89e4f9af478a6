"""The mock of Pipedrive is as strict as its documentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bridge.sandbox import RunningSandbox

PERSON = {
    "name": "Maya Lindqvist",
    "emails": [{"value": "maya@example.com"}],
    "phones": [{"value": "(212) 555-0123"}],
}


@pytest.fixture
def http(sandbox: RunningSandbox) -> Iterator[httpx.Client]:
    environ = sandbox.environment
    headers = {"x-api-token": environ["PIPEDRIVE_API_TOKEN"]}
    with httpx.Client(
        base_url=environ["PIPEDRIVE_URL"] + "/api/v2", headers=headers, trust_env=False
    ) as client:
        yield client


def test_token_is_accepted_in_its_header_only(sandbox: RunningSandbox, http: httpx.Client) -> None:
    token = http.headers.pop("x-api-token")
    for options in ({"params": {"api_token": token}}, {"headers": {"Authorization": f"Bearer {token}"}}):
        response = http.get("/persons", **options)  # type: ignore[arg-type]
        assert (response.status_code, response.json()["errorCode"]) == (401, 401)
    http.get("/persons", headers={"x-api-token": token})
    assert sandbox.requests_to("pipedrive")[-1].headers["x-api-token"] == "***"


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/persons", {}, "'name' is required"),
        ("/persons", {"name": "M", "org_id": "5"}, "'org_id' is not valid"),
        ("/persons", {"name": "M", "org_id": 5}, "Organization does not exist"),
        ("/persons", {"name": "M", "email": "m@example.com"}, "'email' is not allowed"),
        ("/persons", {"name": "M", "custom_fields": {"plan": "x"}}, "custom field 'plan' does not exist"),
        ("/persons", {"name": "M", "marketing_status": "subscribed"}, "'marketing_status' is not allowed"),
        ("/deals", {"value": 5}, "'title' is required"),
        ("/deals", {"title": "D", "stage_id": 99}, "Stage does not exist"),
        ("/deals", {"title": "D", "stage_id": 21, "pipeline_id": 1}, "Stage does not belong to the pipeline"),
        ("/deals", {"title": "D", "owner_id": 7}, "'owner_id' is not an active user"),
        ("/activities", {"subject": "A", "person_id": 1}, "'person_id' is a read-only field"),
        ("/activities", {"subject": "A", "done": 1}, "'done' is not valid"),
        ("/activities", {"subject": "A", "type": "chat"}, "Activity type does not exist"),
        ("/activities", {"subject": "A", "due_time": "3 pm"}, "'due_time' is not valid"),
        ("/activities", {"subject": "A", "participants": [{"person_id": 9}]}, "Person does not exist"),
    ],
)
def test_invalid_body_is_refused(http: httpx.Client, path: str, body: dict[str, Any], text: str) -> None:
    response = http.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["code"] == "ERR_BAD_REQUEST"
    assert text in response.json()["error"]


def test_contact_sync_fields_are_forbidden(http: httpx.Client) -> None:
    assert http.post("/persons", json={"name": "M", "job_title": "Buyer"}).status_code == 403


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"term": "MAYA@example.com", "fields": "email", "exact_match": "true"}, 1),
        ({"term": "maya", "fields": "email", "exact_match": "true"}, 0),
        ({"term": "2125550123", "fields": "phone"}, 1),
        ({"term": "m", "fields": "name"}, None),
        ({"term": "maya", "fields": "email", "exact_match": "1"}, None),
        ({"term": "maya", "fields": "mail"}, None),
        ({"term": "maya", "fields": "name", "limit": "501"}, None),
    ],
)
def test_search(http: httpx.Client, query: dict[str, str], found: int | None) -> None:
    http.post("/persons", json=PERSON)
    response = http.get("/persons/search", params=query)
    if found is None:
        assert response.status_code == 400
    else:
        assert len(response.json()["data"]["items"]) == found


def test_search_lags_and_lists_do_not(sandbox: RunningSandbox, http: httpx.Client) -> None:
    sandbox.fault("pipedrive", lag=60)
    http.post("/persons", json=PERSON)
    query = {"term": "maya@example.com", "fields": "email", "exact_match": "true"}
    assert http.get("/persons/search", params=query).json()["data"]["items"] == []
    assert len(http.get("/persons").json()["data"]) == 1
    sandbox.clock.advance(seconds=61)
    assert len(http.get("/persons/search", params=query).json()["data"]["items"]) == 1


def test_lists_have_pages_and_take_no_fractions_of_a_second(http: httpx.Client) -> None:
    for _ in range(3):
        http.post("/persons", json=PERSON)
    first = http.get("/persons", params={"limit": 2}).json()
    cursor = first["additional_data"]["next_cursor"]
    second = http.get("/persons", params={"limit": 2, "cursor": cursor}).json()
    assert [item["id"] for item in first["data"] + second["data"]] == [1, 2, 3]
    assert second["additional_data"]["next_cursor"] is None
    assert http.get("/persons", params={"updated_since": "2026-03-02T15:00:00.5Z"}).status_code == 400
    assert http.get("/persons", params={"person_id": 1}).status_code == 400


def test_requests_cost_tokens_until_the_day_ends(sandbox: RunningSandbox, http: httpx.Client) -> None:
    sandbox.pipedrive.daily_budget = 26
    costs = []
    for method, path, options in (
        ("POST", "/persons", {"json": PERSON}),
        ("GET", "/persons/1", {}),
        ("GET", "/persons/search?term=maya", {}),
    ):
        before = sandbox.pipedrive.spent_today()
        assert http.request(method, path, **options).is_success  # type: ignore[arg-type]
        costs.append(sandbox.pipedrive.spent_today() - before)
    assert costs == [5, 1, 20]
    response = http.get("/persons")
    assert (response.status_code, response.headers["x-daily-ratelimit-token-remaining"]) == (429, "0")
    sandbox.clock.advance(days=1)
    assert http.get("/persons").is_success


def test_burst_limit_blocks_a_client_that_ignores_it(sandbox: RunningSandbox, http: httpx.Client) -> None:
    settings = httpx.post(f"{sandbox.url}/_sandbox/pipedrive/configure", json={"burst_limit": 2}).json()
    assert settings["result"]["burst_limit"] == 2
    statuses = [http.get("/persons/9").status_code for _ in range(24)]
    assert statuses == [404, 404, *[429] * 20, 403, 403]
    sandbox.clock.advance(seconds=3)
    assert http.get("/persons/9").status_code == 404


def test_note_is_sanitized(http: httpx.Client) -> None:
    note = "a<br>b<!-- hidden --><script>x</script>"
    created = http.post("/activities", json={"subject": "A", "note": note}).json()["data"]
    assert created["note"] == "a<br />b"
