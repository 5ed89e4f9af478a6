"""Mock HubSpot's communication preferences: an address is unsubscribed from all email, with or without a contact."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from bridge.sandbox import RunningSandbox

EMAIL = "maya@example.com"


def call(sandbox: RunningSandbox, method: str, subscriber: str = EMAIL, **query: str) -> httpx.Response:
    env = sandbox.environment
    path = f"/communication-preferences/2026-03/statuses/{subscriber}/unsubscribe-all"
    headers = {"Authorization": f"Bearer {env['HUBSPOT_ACCESS_TOKEN']}"}
    return httpx.request(method, env["HUBSPOT_URL"] + path, params=query, headers=headers)


def results(response: httpx.Response) -> list[dict[str, Any]]:
    response.raise_for_status()
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def test_unsubscribed_address_sets_the_property_of_its_contact(sandbox: RunningSandbox) -> None:
    contact = sandbox.hubspot.add("contacts", email=EMAIL)
    assert results(call(sandbox, "GET", channel="EMAIL")) == []
    reasons = [
        results(call(sandbox, "POST", channel="EMAIL", verbose="true"))[0]["setStatusSuccessReason"]
        for _ in range(2)
    ]
    assert reasons == ["UNSUBSCRIBE_FROM_ALL_OCCURRED", "NO_STATUS_CHANGE"]
    assert contact.properties["hs_email_optout"] == "true"
    assert [item["status"] for item in results(call(sandbox, "GET", channel="EMAIL"))] == ["UNSUBSCRIBED"]


def test_response_has_no_results_unless_it_is_verbose(sandbox: RunningSandbox) -> None:
    assert results(call(sandbox, "POST", channel="EMAIL")) == []


def test_contact_created_later_is_unsubscribed(sandbox: RunningSandbox) -> None:
    call(sandbox, "POST", "Maya@Example.com", channel="EMAIL")
    assert sandbox.hubspot.add("contacts", email=EMAIL).properties["hs_email_optout"] == "true"


@pytest.mark.parametrize(
    ("subscriber", "query"),
    [(EMAIL, {}), (EMAIL, {"channel": "SMS"}), ("maya", {"channel": "EMAIL"})],
)
def test_missing_channel_and_invalid_address_are_rejected(
    sandbox: RunningSandbox, subscriber: str, query: dict[str, str]
) -> None:
    assert call(sandbox, "POST", subscriber, **query).status_code == 400


@pytest.mark.parametrize(("method", "scope"), [("GET", "read"), ("POST", "write")])
def test_scope_is_required(sandbox: RunningSandbox, method: str, scope: str) -> None:
    sandbox.hubspot.missing_scopes.add(f"subscriptions-status-{scope}")
    response = call(sandbox, method, channel="EMAIL")
    assert response.status_code == 403
    assert f"subscriptions-status-{scope}" in response.text


def test_email_opt_out_property_cannot_be_written(sandbox: RunningSandbox) -> None:
    env = sandbox.environment
    response = httpx.post(
        f"{env['HUBSPOT_URL']}/crm/objects/2026-03/contacts",
        json={"properties": {"email": EMAIL, "hs_email_optout": "true"}},
        headers={"Authorization": f"Bearer {env['HUBSPOT_ACCESS_TOKEN']}"},
    )
    assert response.status_code == 400
    assert "READ_ONLY_VALUE" in response.text
