"""The sandbox as a process lives with it: starting, stopping, what it tells of itself."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bridge.sandbox import RunningSandbox, gateway, start_sandbox
from bridge.sandbox.gateway import RecordedRequest, RequestLog

VARIABLES = {
    "HUBSPOT_ACCESS_TOKEN",
    "HUBSPOT_URL",
    "SALESFORCE_URL",
    "SALESFORCE_CONSUMER_KEY",
    "SALESFORCE_CONSUMER_SECRET",
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_FROM",
    "TWILIO_URL",
    "EMAIL_SMTP_URL",
    "EMAIL_FROM",
    "SLACK_WEBHOOK_URL",
    "HEPPU_API_URL",
    "HEPPU_API_KEY",
}


def test_the_environment_names_every_partner(sandbox: RunningSandbox) -> None:
    assert set(sandbox.environment) == VARIABLES
    assert all(sandbox.environment.values())


def test_it_stops_within_a_second_while_requests_hang_and_connections_idle() -> None:
    running = start_sandbox()
    running.fault("slack", path="*hang*", hang=True)
    running.fault("slack", path="*slow*", delay=30)
    idle = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    idle.request("GET", "/_sandbox/faults")
    idle.getresponse().read()
    failures: list[type[Exception]] = []

    def ask(path: str) -> None:
        try:
            httpx.post(running.url + path, json={"text": "x"}, timeout=20, trust_env=False)
        except httpx.HTTPError as error:
            failures.append(type(error))

    threads = [threading.Thread(target=ask, args=(path,)) for path in ("/slack/hang", "/slack/slow")]
    for thread in threads:
        thread.start()
    with socket.create_connection(("127.0.0.1", running.smtp_port), timeout=5) as mail:
        mail.recv(100)
        while len(running.requests_to("slack")) < 2:
            time.sleep(0.01)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 1
    for thread in threads:
        thread.join(5)
    idle.close()
    assert failures == [httpx.RemoteProtocolError, httpx.RemoteProtocolError]
    running.stop()  # a second time is fine
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1)


def test_a_taken_port_is_an_os_error_and_leaves_nothing_behind(sandbox: RunningSandbox) -> None:
    with pytest.raises(OSError, match="in use"):
        start_sandbox(port=sandbox.port)
    with pytest.raises(OSError, match="in use"):
        start_sandbox(smtp_port=sandbox.smtp_port)


def test_two_sandboxes_know_nothing_of_each_other(sandbox: RunningSandbox) -> None:
    with start_sandbox() as other:
        httpx.post(other.environment["SLACK_WEBHOOK_URL"], json={"text": "to the other"})
        assert [message.text for message in other.slack.messages] == ["to the other"]
    assert sandbox.slack.messages == []


def test_requests_are_shown_with_what_was_answered_and_without_credentials(sandbox: RunningSandbox) -> None:
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
    shown = httpx.get(sandbox.url + "/_sandbox/requests", params={"provider": "twilio"}).json()
    assert [(item["path"], item["status"]) for item in shown["items"]] == [(twilio.path, 201)]
    assert env["HEPPU_API_KEY"] not in httpx.get(sandbox.url + "/_sandbox/requests").text
    assert httpx.delete(sandbox.url + "/_sandbox/requests").status_code == 204
    assert sandbox.requests == []


def test_state_shows_the_records_of_all_partners(sandbox: RunningSandbox) -> None:
    sandbox.hubspot.add("contacts", email="ines@example.com")
    sandbox.salesforce.add("Contact", LastName="Okafor")
    httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "hello"})
    state = httpx.get(sandbox.url + "/_sandbox/state").json()
    assert state["hubspot"]["contacts"][0]["properties"]["email"] == "ines@example.com"
    assert state["salesforce"]["Contact"][0]["LastName"] == "Okafor"
    assert state["slack"]["messages"][0]["text"] == "hello"
    assert set(state) == {"hubspot", "salesforce", "twilio", "slack", "heppu", "email"}


def test_reset_makes_every_account_fresh(sandbox: RunningSandbox) -> None:
    sandbox.hubspot.add("contacts", email="ines@example.com")
    sandbox.fault("slack", status=500)
    httpx.post(sandbox.environment["SLACK_WEBHOOK_URL"], json={"text": "hello"})
    assert httpx.post(sandbox.url + "/_sandbox/reset").status_code == 204
    assert (sandbox.hubspot.contacts, sandbox.requests) == ([], [])
    assert httpx.get(sandbox.url + "/_sandbox/faults").json()["items"] == []


def test_what_the_control_does_not_understand_it_says(sandbox: RunningSandbox) -> None:
    answer = httpx.post(sandbox.url + "/_sandbox/twilio/nonsense", json={})
    assert answer.status_code == 404
    assert "twilio/inbound" in answer.json()["error"]
    answer = httpx.post(sandbox.url + "/_sandbox/twilio/inbound", json={"from": "+12125550123"})
    assert answer.status_code == 400
    assert httpx.post(sandbox.url + "/_sandbox/twilio/inbound", content=b"{").status_code == 400


def test_many_threads_at_once_lose_nothing(sandbox: RunningSandbox) -> None:
    url = sandbox.environment["SLACK_WEBHOOK_URL"]

    def post(number: int) -> int:
        return httpx.post(url, json={"text": str(number)}, trust_env=False).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(80))) == {200}
    assert {message.text for message in sandbox.slack.messages} == {str(number) for number in range(80)}
    assert len(sandbox.requests) == 80


def test_the_log_forgets_the_oldest_when_memory_is_full(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_LOG_BYTES", 25)
    log = RequestLog()
    for number in range(4):
        log.add(RecordedRequest("slack", "POST", f"/{number}", {}, {}, b"0123456789", sandbox.clock.now()))
    assert [request.path for request in log.all()] == ["/2", "/3"]


def test_a_partner_that_holds_too_much_asks_for_a_reset(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sandbox.slack.MAX_RECORDS", 1)
    url = sandbox.environment["SLACK_WEBHOOK_URL"]
    assert httpx.post(url, json={"text": "one"}).status_code == 200
    answer = httpx.post(url, json={"text": "two"})
    assert answer.status_code == 507
    assert "reset" in answer.json()["message"]


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}', b"", b"null", b'"text"', b"[1]"]
)
def test_no_body_makes_a_partner_stumble(sandbox: RunningSandbox, body: bytes) -> None:
    env = sandbox.environment
    token = {"authorization": f"Bearer {env['HUBSPOT_ACCESS_TOKEN']}"}
    login = {"grant_type": "client_credentials"}
    client = (env["SALESFORCE_CONSUMER_KEY"], env["SALESFORCE_CONSUMER_SECRET"])
    session = httpx.post(env["SALESFORCE_URL"] + "/services/oauth2/token", data=login, auth=client).json()
    bearer = {"authorization": f"Bearer {session['access_token']}"}
    data = env["SALESFORCE_URL"] + "/services/data/v59.0"
    asked = [
        (env["HUBSPOT_URL"] + "/crm/v3/objects/contacts", token),
        (env["HUBSPOT_URL"] + "/crm/v3/objects/contacts/search", token),
        (env["HUBSPOT_URL"] + "/crm/v3/objects/contacts/batch/upsert", token),
        (env["HUBSPOT_URL"] + "/crm/v3/properties/calls", token),
        (data + "/sobjects/Task", bearer),
        (data + "/composite", bearer),
        (data + "/composite/sobjects", bearer),
        (env["SLACK_WEBHOOK_URL"], {}),
        (env["HEPPU_API_URL"] + "/calls/schedule", {"x-api-key": env["HEPPU_API_KEY"]}),
    ]
    for url, headers in asked:
        assert httpx.post(url, content=body, headers=headers).status_code in (400, 422), url
