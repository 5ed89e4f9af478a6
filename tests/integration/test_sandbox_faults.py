"""Fault injection as a client sees it, over keep-alive connections."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

import httpx
import pytest

from bridge.sandbox import RunningSandbox
from tests.acceptance.service_process import eventually


def _path(sandbox: RunningSandbox) -> str:
    return sandbox.environment["SLACK_WEBHOOK_URL"].removeprefix(sandbox.url)


class KeepAliveConnection:
    """One TCP connection, so that a test can check whether it stays open."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=5)
        self.path = _path(sandbox)

    def post(self, text: str) -> tuple[int, bytes]:
        body = json.dumps({"text": text})
        self.connection.request("POST", self.path, body, {"content-type": "application/json"})
        response = self.connection.getresponse()
        return response.status, response.read()

    def __enter__(self) -> KeepAliveConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def test_status_fault_returns_provider_error_without_side_effect(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=404)
    with KeepAliveConnection(sandbox) as connection:
        assert connection.post("lost") == (404, b"channel_not_found")
        socket = connection.connection.sock
        assert connection.post("kept") == (200, b"ok")
        assert connection.connection.sock is socket, "an error response keeps the connection open"
    assert [message.text for message in sandbox.slack.messages] == ["kept"]
    assert [request.status for request in sandbox.requests] == [404, 200]


@pytest.mark.parametrize(
    ("provider", "method", "path", "status", "expected"),
    [
        ("hubspot", "GET", "/hubspot/crm/owners/2026-03", 429, {"policyName": "TEN_SECONDLY_ROLLING"}),
        ("hubspot", "GET", "/hubspot/crm/owners/2026-03", 403, {"category": "MISSING_SCOPES"}),
        ("twilio", "GET", "/twilio/anything", 429, {"code": 20429, "status": 429}),
        ("twilio", "GET", "/twilio/anything", 500, {"code": 20500}),
        ("heppu", "GET", "/heppu/api/v1/calls", 503, {"error": {"status": 503}}),
        (
            "salesforce",
            "GET",
            "/salesforce/services/data/v59.0/limits",
            503,
            {"errorCode": "SERVER_UNAVAILABLE"},
        ),
    ],
)
def test_status_fault_returns_error_body_of_each_provider(
    sandbox: RunningSandbox, provider: Any, method: str, path: str, status: int, expected: dict[str, Any]
) -> None:
    sandbox.fault(provider, status=status)
    response = httpx.request(method, sandbox.url + path)
    assert response.status_code == status
    body = response.json()[0] if provider == "salesforce" else response.json()
    for name, value in expected.items():
        assert body[name] == value or value.items() <= body[name].items()


def test_fault_returns_given_body_headers_and_retry_after(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=503, body="<html>down</html>", headers={"X-Node": "7"}, retry_after=12)
    sandbox.fault("slack", body={"unexpected": True})
    sandbox.fault("slack", retry_after=1.5)
    url = sandbox.environment["SLACK_WEBHOOK_URL"]
    html, unexpected, slow = (httpx.post(url, json={"text": "x"}) for _ in range(3))
    assert (html.status_code, html.text) == (503, "<html>down</html>")
    assert (html.headers["retry-after"], html.headers["x-node"]) == ("12", "7")
    assert (unexpected.status_code, unexpected.json()) == (200, {"unexpected": True})
    assert (slow.status_code, slow.headers["retry-after"]) == (429, "1.5")
    assert sandbox.slack.messages == []


def test_drop_before_closes_connection_without_side_effect(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", drop="before")
    with KeepAliveConnection(sandbox) as connection:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            connection.post("lost")
        assert connection.post("on a new connection") == (200, b"ok")
    assert [message.text for message in sandbox.slack.messages] == ["on a new connection"]
    assert [request.status for request in sandbox.requests] == [None, 200]


def test_drop_after_closes_connection_after_side_effect(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", drop="after")
    with KeepAliveConnection(sandbox) as connection:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            connection.post("happened")
        assert connection.post("next")[0] == 200
    assert [message.text for message in sandbox.slack.messages] == ["happened", "next"]


def test_dropped_keep_alive_connection_does_not_affect_the_next_one(sandbox: RunningSandbox) -> None:
    with KeepAliveConnection(sandbox) as connection:
        assert connection.post("one")[0] == 200
        sandbox.fault("slack", drop="after")
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            connection.post("two")
        assert [connection.post(text)[0] for text in ("three", "four")] == [200, 200]
    assert [message.text for message in sandbox.slack.messages] == ["one", "two", "three", "four"]


def test_status_with_drop_after_is_returned_after_side_effect(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", status=502, drop="after")
    with KeepAliveConnection(sandbox) as connection:
        assert connection.post("happened")[0] == 502
    assert [message.text for message in sandbox.slack.messages] == ["happened"]


def test_hang_lasts_until_client_disconnects(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", hang=True)
    sandbox.fault("slack", hang=True, drop="after")
    url = sandbox.environment["SLACK_WEBHOOK_URL"]
    for text in ("nothing", "happened"):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json={"text": text}, timeout=0.2)
    assert httpx.post(url, json={"text": "next"}).text == "ok"
    assert [message.text for message in sandbox.slack.messages] == ["happened", "next"]


def test_delayed_request_is_processed_after_client_disconnects(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", delay=0.3)
    url = sandbox.environment["SLACK_WEBHOOK_URL"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json={"text": "late"}, timeout=0.1)
    assert sandbox.slack.messages == []
    assert eventually(lambda: sandbox.slack.messages)
    assert [message.text for message in sandbox.slack.messages] == ["late"]


def test_delayed_request_does_not_block_other_requests(sandbox: RunningSandbox) -> None:
    sandbox.fault("hubspot", delay=20)
    url = sandbox.url + "/hubspot/crm/owners/2026-03"
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(url, timeout=0.1)
    started_at = time.monotonic()
    assert httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "x"}).text == "ok"
    assert httpx.get(url).status_code == 401
    assert time.monotonic() - started_at < 15  # the first request takes 20 s


def test_fault_matches_path_and_method_and_expires_after_times(sandbox: RunningSandbox) -> None:
    headers = {"x-api-key": sandbox.environment["HEPPU_API_KEY"]}
    fault = sandbox.fault("heppu", path="/api/v1/agents*", method="get", times=2, status=500)
    url = sandbox.environment["HEPPU_API_URL"]
    assert httpx.get(url + "/calls", headers=headers).status_code == 200
    assert httpx.post(url + "/agents", headers=headers).status_code == 405
    assert fault.remaining == 2
    statuses = [httpx.get(url + "/agents?limit=1", headers=headers).status_code for _ in range(3)]
    assert statuses == [500, 500, 200]
    sandbox.fault("heppu", status=500, times=None)
    assert [httpx.get(url + "/calls", headers=headers).status_code for _ in range(3)] == [500, 500, 500]
    sandbox.clear_faults()
    assert httpx.get(url + "/calls", headers=headers).status_code == 200


def test_quota_fault_returns_provider_quota_error_when_used_up(sandbox: RunningSandbox) -> None:
    token = {"authorization": f"Bearer {sandbox.environment['HUBSPOT_ACCESS_TOKEN']}"}
    sandbox.fault("hubspot", quota=2)
    responses = [httpx.get(sandbox.url + "/hubspot/crm/owners/2026-03", headers=token) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 429, 429]
    assert responses[-1].json()["policyName"] == "DAILY"
    assert httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "x"}).text == "ok"


def test_faults_are_added_listed_and_cleared_over_http(sandbox: RunningSandbox) -> None:
    url = sandbox.url + "/_sandbox/faults"
    created = httpx.post(url, json={"provider": "slack", "status": 500, "times": None})
    assert (created.status_code, created.json()) == (
        201,
        {"provider": "slack", "status": 500, "times": None, "left": None},
    )
    httpx.post(url, json={"provider": "twilio", "drop": "after", "method": "POST"})
    assert [item["provider"] for item in httpx.get(url).json()["items"]] == ["slack", "twilio"]
    assert httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "x"}).status_code == 500
    assert httpx.delete(url).status_code == 204
    assert httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"provider": "slack"}, "needs one of"),
        ({"provider": "intercom", "status": 500}, "provider"),
        ({"provider": "slack", "status": 500, "statsu": 1}, "statsu"),
        ({"provider": "slack", "status": 5000}, "status"),
        ({"provider": "slack", "status": 500, "hang": True}, "hangs"),
        ({"provider": "slack", "status": 500, "times": 0}, "times"),
        ([], "object"),
    ],
)
def test_invalid_fault_is_rejected_with_reason(sandbox: RunningSandbox, body: Any, message: str) -> None:
    response = httpx.post(sandbox.url + "/_sandbox/faults", json=body)
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert httpx.get(sandbox.url + "/_sandbox/faults").json()["items"] == []
