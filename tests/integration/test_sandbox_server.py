"""The sandbox server: start, stop, and the `/_sandbox` API."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import httpx
import pytest

from bridge.sandbox import RunningSandbox, gateway, start_sandbox
from bridge.sandbox.faults import ProviderName
from bridge.sandbox.gateway import RecordedRequest, RequestLog

VARIABLES = {
    "HUBSPOT_ACCESS_TOKEN",
    "HUBSPOT_URL",
    "SALESFORCE_URL",
    "SALESFORCE_CONSUMER_KEY",
    "SALESFORCE_CONSUMER_SECRET",
    "PIPEDRIVE_API_TOKEN",
    "PIPEDRIVE_URL",
    "ZENDESK_URL",
    "ZENDESK_CLIENT_ID",
    "ZENDESK_CLIENT_SECRET",
    "TWILIO_ACCOUNT_SID",
    "TWILIO_API_KEY_SECRET",
    "TWILIO_API_KEY_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_FROM",
    "TWILIO_URL",
    "TWILIO_WHATSAPP_FROM",
    "EMAIL_SMTP_URL",
    "EMAIL_FROM",
    "SLACK_WEBHOOK_URL",
    "TEAMS_WEBHOOK_URL",
    "HEPPU_API_URL",
    "HEPPU_API_KEY",
}


def test_environment_configures_every_provider(sandbox: RunningSandbox) -> None:
    assert set(sandbox.environment) == VARIABLES
    assert all(sandbox.environment.values())


def test_stop_does_not_wait_for_hanging_requests() -> None:
    running = start_sandbox()
    running.fault("slack", path="*hang*", hang=True)
    running.fault("slack", path="*slow*", delay=30)
    idle = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    idle.request("GET", "/_sandbox/faults")
    idle.getresponse().read()
    failures: list[type[Exception]] = []

    def send(path: str) -> None:
        try:
            httpx.post(running.url + path, json={"text": "x"}, timeout=20, trust_env=False)
        except httpx.HTTPError as error:
            failures.append(type(error))

    threads = [threading.Thread(target=send, args=(path,)) for path in ("/slack/hang", "/slack/slow")]
    for thread in threads:
        thread.start()
    with socket.create_connection(("127.0.0.1", running.smtp_port), timeout=5) as smtp:
        smtp.recv(100)
        while len(running.requests_to("slack")) < 2:
            time.sleep(0.01)
        running.stop()
    for thread in threads:
        thread.join()
    idle.close()
    assert failures == [httpx.RemoteProtocolError] * 2, "the clients would time out after 20 s"
    running.stop()  # stopping twice is allowed
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1)


def test_start_on_used_port_raises_os_error(sandbox: RunningSandbox) -> None:
    with pytest.raises(OSError, match="in use"):
        start_sandbox(port=sandbox.port)
    with pytest.raises(OSError, match="in use"):
        start_sandbox(smtp_port=sandbox.smtp_port)


def test_two_sandboxes_are_independent(sandbox: RunningSandbox) -> None:
    with start_sandbox() as other:
        httpx.post(other.environment["SLACK_WEBHOOK_URL"], json={"text": "to the other"})
        assert [message.text for message in other.slack.messages] == ["to the other"]
    assert sandbox.slack.messages == []


def test_requests_show_response_status_and_no_credentials(sandbox: RunningSandbox) -> None:
    env = sandbox.environment
    httpx.post(env["SLACK_WEBHOOK_URL"], json={"text": "hello"})
    httpx.get(env["HEPPU_API_URL"] + "/calls?limit=3", headers={"x-api-key": env["HEPPU_API_KEY"]})
    httpx.post(
        env["TWILIO_URL"] + f"/2010-04-01/Accounts/{env['TWILIO_ACCOUNT_SID']}/Messages.json",
        data={"To": "+12125550123", "From": env["TWILIO_FROM"], "Body": "hi"},
        auth=(env["TWILIO_ACCOUNT_SID"], env["TWILIO_AUTH_TOKEN"]),
    )
    slack, heppu, twilio = sandbox.requests
    assert (slack.provider, slack.method, slack.body, slack.status) == (
        "slack",
        "POST",
        {"text": "hello"},
        200,
    )
    assert (heppu.path, heppu.query, heppu.status) == ("/api/v1/calls", {"limit": "3"}, 200)
    assert twilio.body["Body"] == "hi"
    assert twilio.headers["authorization"] == "Basic ***"
    assert heppu.headers["x-api-key"] == "***"
    listed = httpx.get(sandbox.url + "/_sandbox/requests", params={"provider": "twilio"}).json()
    assert [(item["path"], item["status"]) for item in listed["items"]] == [(twilio.path, 201)]
    assert env["HEPPU_API_KEY"] not in httpx.get(sandbox.url + "/_sandbox/requests").text
    assert httpx.delete(sandbox.url + "/_sandbox/requests").status_code == 204
    assert sandbox.requests == []


def test_state_shows_records_of_all_providers(sandbox: RunningSandbox) -> None:
    sandbox.hubspot.add("contacts", email="ines@example.com")
    sandbox.salesforce.add("Contact", LastName="Okafor")
    httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "hello"})
    state = httpx.get(sandbox.url + "/_sandbox/state").json()
    assert state["hubspot"]["contacts"][0]["properties"]["email"] == "ines@example.com"
    assert state["salesforce"]["Contact"][0]["LastName"] == "Okafor"
    assert state["slack"]["messages"][0]["text"] == "hello"
    assert set(state) == set(get_args(ProviderName))


def test_reset_clears_all_accounts(sandbox: RunningSandbox) -> None:
    sandbox.hubspot.add("contacts", email="ines@example.com")
    sandbox.fault("slack", status=500)
    httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "hello"})
    assert httpx.post(sandbox.url + "/_sandbox/reset").status_code == 204
    assert (sandbox.hubspot.contacts, sandbox.requests) == ([], [])
    assert httpx.get(sandbox.url + "/_sandbox/faults").json()["items"] == []


def test_invalid_command_is_rejected_with_reason(sandbox: RunningSandbox) -> None:
    response = httpx.post(sandbox.url + "/_sandbox/twilio/nonsense", json={})
    assert response.status_code == 404
    assert "twilio/inbound" in response.json()["error"]
    response = httpx.post(sandbox.url + "/_sandbox/twilio/inbound", json={"from": "+12125550123"})
    assert response.status_code == 400
    assert httpx.post(sandbox.url + "/_sandbox/twilio/inbound", content=b"{").status_code == 400


def test_concurrent_requests_are_all_stored(sandbox: RunningSandbox) -> None:
    url = sandbox.environment["SLACK_WEBHOOK_URL"]

    def post(number: int) -> int:
        return httpx.post(url, json={"text": str(number)}, trust_env=False).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(80))) == {200}
    assert {message.text for message in sandbox.slack.messages} == {str(number) for number in range(80)}
    assert len(sandbox.requests) == 80


def test_request_log_drops_oldest_when_full(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "MAX_LOG_BYTES", 25)
    log = RequestLog()
    for number in range(4):
        log.add(RecordedRequest("slack", "POST", f"/{number}", {}, {}, b"0123456789", sandbox.clock.now()))
    assert [request.path for request in log.all()] == ["/2", "/3"]


def test_full_provider_returns_507_and_suggests_reset(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sandbox.slack.MAX_RECORDS", 1)
    url = sandbox.environment["SLACK_WEBHOOK_URL"]
    assert httpx.post(url, json={"text": "one"}).status_code == 200
    response = httpx.post(url, json={"text": "two"})
    assert response.status_code == 507
    assert "reset" in response.json()["message"]


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}', b"", b"null", b'"text"', b"[1]"]
)
def test_malformed_body_is_rejected_by_every_provider(sandbox: RunningSandbox, body: bytes) -> None:
    env = sandbox.environment
    token = {"authorization": f"Bearer {env['HUBSPOT_ACCESS_TOKEN']}"}
    form = {"grant_type": "client_credentials"}
    client = (env["SALESFORCE_CONSUMER_KEY"], env["SALESFORCE_CONSUMER_SECRET"])
    session = httpx.post(env["SALESFORCE_URL"] + "/services/oauth2/token", data=form, auth=client).json()
    bearer = {"authorization": f"Bearer {session['access_token']}"}
    data = env["SALESFORCE_URL"] + "/services/data/v59.0"
    requests = [
        (env["HUBSPOT_URL"] + "/crm/objects/2026-03/contacts", token),
        (env["HUBSPOT_URL"] + "/crm/objects/2026-03/contacts/search", token),
        (env["HUBSPOT_URL"] + "/crm/objects/2026-03/contacts/batch/upsert", token),
        (env["HUBSPOT_URL"] + "/crm/properties/2026-03/calls", token),
        (data + "/sobjects/Task", bearer),
        (data + "/composite", bearer),
        (data + "/composite/sobjects", bearer),
        (env["SLACK_WEBHOOK_URL"], {}),
        (env["HEPPU_API_URL"] + "/calls/schedule", {"x-api-key": env["HEPPU_API_KEY"]}),
    ]
    for url, headers in requests:
        assert httpx.post(url, content=body, headers=headers).status_code in (400, 422), url
