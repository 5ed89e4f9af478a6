"""The mock Zendesk is as strict as Zendesk's documentation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from bridge.sandbox import RunningSandbox
from bridge.sandbox.zendesk.account import CLIENT_ID, CLIENT_SECRET, Zendesk

HELP = {"subject": "Help", "comment": {"body": "It rattles."}}


@pytest.fixture
def account(sandbox: RunningSandbox) -> Zendesk:
    return sandbox.zendesk


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[httpx.Client]:
    token = login(sandbox, scope="read write").json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{sandbox.url}/zendesk/api/v2", headers=headers) as client:
        yield client


def login(sandbox: RunningSandbox, **changes: Any) -> httpx.Response:
    body = {
        "grant_type": "client_credentials",
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        **changes,
    }
    return httpx.post(f"{sandbox.url}/zendesk/oauth/tokens", json=body)


def create(api: httpx.Client, key: str | None = None, **values: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return api.post("/tickets", json={"ticket": HELP | values}, headers=headers)


def refused_field(response: httpx.Response) -> str:
    assert response.status_code == 422
    return next(iter(response.json()["details"]))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"scope": "read admin"}, "invalid_scope"),
    ],
)
def test_login_is_refused(sandbox: RunningSandbox, changes: dict[str, str], error: str) -> None:
    assert login(sandbox, **{"scope": "read", **changes}).json()["error"] == error


def test_form_is_not_a_login(sandbox: RunningSandbox) -> None:
    response = httpx.post(f"{sandbox.url}/zendesk/oauth/tokens", data={"grant_type": "client_credentials"})
    assert response.status_code == 400


def test_requests_need_credentials_and_scopes(sandbox: RunningSandbox, account: Zendesk) -> None:
    base = f"{sandbox.url}/zendesk/api/v2"
    account.scopes |= {"tickets:read"}
    account.add_ticket()
    assert httpx.get(f"{base}/tickets").status_code == 401
    token = login(sandbox, scope="tickets:read").json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{base}/tickets/1", headers=headers).status_code == 200
    assert httpx.get(f"{base}/tickets/1/audits", headers=headers).status_code == 403
    assert httpx.post(f"{base}/tickets", json={"ticket": HELP}, headers=headers).status_code == 403


def test_idempotency_key_lives_two_hours_and_knows_its_body(
    api: httpx.Client, sandbox: RunningSandbox, account: Zendesk
) -> None:
    account.token_lifetime = timedelta(days=1)
    api.headers["Authorization"] = f"Bearer {login(sandbox, scope='read write').json()['access_token']}"
    first, second = create(api, "key"), create(api, "key")
    assert [item.headers["x-idempotency-lookup"] for item in (first, second)] == ["miss", "hit"]
    assert first.json() == second.json()
    other = create(api, "key", priority="low")
    assert (other.status_code, other.json()["error"]) == (400, "IdempotentRequestError")
    sandbox.clock.shift += timedelta(hours=2)
    assert create(api, "key").headers["x-idempotency-lookup"] == "miss"
    assert len(account.tickets) == 2


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"comment": {"body": " "}}, "base"),
        ({"comment": {"body": "ä" * 40_000}}, "comment"),
        ({"subject": "x" * 151}, "subject"),
        ({"group_id": 1}, "group"),
        ({"assignee_id": 1}, "assignee"),
        ({"requester_id": 1}, "requester"),
        ({"status": "done"}, "status"),
        ({"custom_status_id": 712}, "custom_status_id"),
        ({"custom_fields": [{"id": 602, "value": "boat"}]}, "base"),
        ({"via_followup_source_id": 1}, "base"),
        ({"voice_comment": {"from": "+12125550123", "to": "+12125550100"}}, "voice_comment"),
    ],
)
def test_invalid_ticket_is_refused(
    api: httpx.Client, account: Zendesk, values: dict[str, Any], field: str
) -> None:
    account.add_ticket()
    assert refused_field(create(api, **values)) == field
    assert len(account.tickets) == 1


def test_unknown_custom_field_is_ignored(api: httpx.Client) -> None:
    response = create(api, custom_fields=[{"id": 99, "value": "x"}])
    assert response.json()["ticket"]["custom_fields"] == []


def test_closed_ticket_cannot_be_changed_but_followed_up(api: httpx.Client, account: Zendesk) -> None:
    create(api)
    account.close(1)
    assert refused_field(api.put("/tickets/1", json={"ticket": {"priority": "low"}})) == "status"
    assert create(api, via_followup_source_id=1).status_code == 201


def test_safe_update_of_a_changed_ticket_conflicts(api: httpx.Client) -> None:
    create(api)
    stale = {"tags": [], "safe_update": True, "updated_stamp": "2026-01-01T00:00:00Z"}
    assert api.put("/tickets/1", json={"ticket": stale}).status_code == 409


def test_ticket_takes_thirty_updates_in_ten_minutes(api: httpx.Client, sandbox: RunningSandbox) -> None:
    create(api)
    create(api)
    update = {"ticket": {"priority": "low"}}
    assert {api.put("/tickets/1", json=update).status_code for _ in range(30)} == {200}
    refused = api.put("/tickets/1", json=update)
    assert (refused.status_code, int(refused.headers["Retry-After"]) > 500) == (429, True)
    assert api.put("/tickets/2", json=update).status_code == 200
    sandbox.clock.shift += timedelta(minutes=11)
    assert api.put("/tickets/1", json=update).status_code == 200


def test_limit_of_the_plan_and_of_user_writes(api: httpx.Client, account: Zendesk) -> None:
    account.limits_user_writes = True
    maya = {"user": {"name": "Maya", "email": "maya@example.com"}}
    assert api.post("/users/create_or_update", json=maya).status_code == 201
    assert api.post("/users/create_or_update", json=maya).status_code == 429
    account.requests_per_minute = 1
    assert [api.get("/users/me").status_code for _ in range(2)] == [200, 429]


def test_search_lags_and_finds_additional_addresses(
    api: httpx.Client, account: Zendesk, sandbox: RunningSandbox
) -> None:
    account.add_user(name="Maya", email="m@example.com", emails=["m@example.com", "maya@example.com"])
    query = {"query": 'email:"maya@example.com"'}
    assert len(api.get("/users/search", params=query).json()["users"]) == 1
    sandbox.fault("zendesk", lag=60)
    assert api.get("/users/search", params=query).json()["users"] == []
    sandbox.clock.shift += timedelta(minutes=2)
    assert len(api.get("/users/search", params=query).json()["users"]) == 1


def test_lists_have_pages(api: httpx.Client, account: Zendesk) -> None:
    account.page_size = 2
    first = api.get("/groups", params={"page[size]": 100}).json()
    assert (len(first["groups"]), first["meta"]["has_more"]) == (2, True)
    rest = api.get("/groups", params={"page[size]": 100, "page[after]": first["meta"]["after_cursor"]}).json()
    assert (len(rest["groups"]), rest["meta"]["has_more"]) == (1, False)
    offset = api.get("/groups").json()
    assert len(api.get(offset["next_page"]).json()["groups"]) == 1
