"""The HTTP connector: requests to allowed hosts and secret targets only, signed if there is a secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError, OutcomeUnknown, PermanentError, TransientError
from bridge.rules.load import load
from bridge.testing import Connected, Reply, StubServer, build_context, connect, event, load_connector

KEY = b"thirty-two bytes of a secret key"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
http = load_connector("http")


@pytest.fixture
def service() -> Iterator[StubServer]:
    with StubServer() as running:
        running.answer("POST", "/heppu", Reply(204))
        yield running


@pytest.fixture
def sender(service: StubServer) -> Iterator[Connected]:
    with connect(http, environ(urlsplit(service.url).netloc)) as connected:
        yield connected


def environ(hosts: str, **more: str) -> dict[str, str]:
    return {"HTTP_ALLOWED_HOSTS": hosts, "HTTP_SECRET": SECRET} | more


def test_request_sends_whole_event_as_json(sender: Connected, service: StubServer) -> None:
    completed_call = event("call.completed", {"summary": "Grüße 👋"})
    result = sender.run("request", {"url": f"{service.url}/heppu"}, event=completed_call)
    [request] = service.requests
    assert request.json == completed_call.body
    assert request.headers["content-type"] == "application/json"
    assert result.detail == "service answered 204"


def test_request_signs_request_according_to_standard_webhooks(sender: Connected, service: StubServer) -> None:
    sender.run("request", {"url": f"{service.url}/heppu", "body": {"a": [1, None, "ü"]}})
    [request] = service.requests
    assert request.body == '{"a":[1,null,"ü"]}'.encode()
    message_id, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    signed_content = f"{message_id}.{timestamp}.".encode() + request.body
    expected = base64.b64encode(hmac.new(KEY, signed_content, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("offset", [0, -5, 9])
def test_signature_is_accepted_by_the_verifier_of_the_library(
    sender: Connected, service: StubServer, offset: int
) -> None:
    now = datetime.now(timezone(timedelta(hours=offset)))
    context = replace(build_context(event(), http.actions["request"]), now=now)
    sender.run("request", {"url": f"{service.url}/heppu", "body": {"a": "ü"}}, context=context)
    [request] = service.requests
    assert Webhook(SECRET).verify(request.body, request.headers) == {"a": "ü"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body + b" ", request.headers)


def test_during_a_rotation_requests_have_both_signatures(service: StubServer) -> None:
    new = "whsec_" + base64.b64encode(b"another secret key of 32 bytes..").decode()
    with connect(http, {"HTTP_URL": f"{service.url}/heppu", "HTTP_SECRET": f"{new}, {SECRET}"}) as sender:
        sender.run("request", {"body": {"a": 1}})
    [request] = service.requests
    for secret in (new, SECRET):
        assert Webhook(secret).verify(request.body, request.headers) == {"a": 1}


def test_retry_carries_same_webhook_id(sender: Connected, service: StubServer) -> None:
    context = build_context(event(), http.actions["request"])
    for _ in range(2):
        sender.run("request", {"url": f"{service.url}/heppu"}, context=context)
    sender.run("request", {"url": f"{service.url}/heppu"})
    first, second, other = (request.headers["webhook-id"] for request in service.requests)
    assert first == second != other


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/heppu",
        "http://elsewhere.example/heppu",
        "https://127.0.0.1/heppu",
        "http://127.0.0.1:{port}@elsewhere.example/heppu",
        "http://user:password@127.0.0.1:{port}/heppu",
        "http://127.0.0.1.elsewhere.example:{port}/heppu",
        "http://2130706433:{port}/heppu",
        "http://localhost:{port}/heppu",
        "ftp://127.0.0.1:{port}/heppu",
        "file:///etc/passwd",
        "//127.0.0.1:{port}/heppu",
        "http://127.0.0.1:{port}\\@elsewhere.example/",
        "http://[::1/",
        "",
    ],
)
def test_request_to_host_outside_allowlist_sends_nothing(
    sender: Connected, service: StubServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _no_dns)
    with pytest.raises(PermanentError):
        sender.run("request", {"url": url.format(port=urlsplit(service.url).port)})
    assert service.requests == []


@pytest.mark.parametrize("value", ["../admin", "..%2Fadmin/../x", "%2E./admin?a=b", "a/..", "."])
def test_value_of_an_event_leads_to_no_other_path(sender: Connected, service: StubServer, value: str) -> None:
    called = event("call.completed", {"summary": value})
    with pytest.raises(PermanentError, match="urlencode"):
        sender.run("request", {"url": f"{service.url}/customers/{{{{ event.summary }}}}"}, event=called)
    assert service.requests == []
    service.otherwise = Reply(200)
    sender.run(
        "request", {"url": f"{service.url}/customers?name={{{{ event.summary | urlencode }}}}"}, event=called
    )
    assert service.requests[0].query == {"name": value}


def _no_dns(*_: Any, **__: Any) -> Any:
    raise AssertionError("a host outside the allowlist was resolved")


def test_request_over_plain_http_is_rejected_except_for_loopback() -> None:
    with connect(http, environ("erp.example.com")) as sender, pytest.raises(PermanentError, match="https://"):
        sender.run("request", {"url": "http://erp.example.com/heppu"})


@pytest.mark.parametrize(
    "address",
    ["10.0.0.8", "192.168.1.1", "172.16.0.1", "169.254.169.254", "127.0.0.1", "::1", "fd00::1", "0.0.0.0"],
)
def test_host_name_resolving_to_private_address_is_rejected(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [_addrinfo(address)])
    with connect(http, environ("erp.example.com")) as sender:
        with pytest.raises(PermanentError, match="HTTP_ALLOW_PRIVATE"):
            sender.run("request", {"url": "https://erp.example.com/heppu"})
        with pytest.raises(PermanentError, match="HTTP_ALLOW_PRIVATE"):
            sender.check()


def _addrinfo(address: str) -> tuple[Any, ...]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, 6, "", (address, 0))


def test_request_connects_to_verified_address(service: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once, so a second resolution cannot return another address."""
    port = urlsplit(service.url).port
    resolved = []
    real_getaddrinfo = socket.getaddrinfo

    def fake_getaddrinfo(host: str, *rest: Any, **named: Any) -> Any:
        resolved.append(host)
        return [_addrinfo("127.0.0.1")] if host == "localhost" else real_getaddrinfo(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo)
    with connect(http, environ(f"localhost:{port}")) as sender:
        sender.run("request", {"url": f"http://localhost:{port}/heppu"})
    assert resolved == ["localhost", "127.0.0.1"]
    assert service.requests[0].headers["host"] == f"localhost:{port}"


def test_request_tries_next_address_when_connection_is_refused(
    service: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = urlsplit(service.url).port
    real_getaddrinfo = socket.getaddrinfo

    def fake_getaddrinfo(host: str, *rest: Any, **named: Any) -> Any:
        if host == "localhost":
            return [_addrinfo("::1"), _addrinfo("127.0.0.1")]
        return real_getaddrinfo(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo)
    with connect(http, environ(f"localhost:{port}")) as sender:
        sender.run("request", {"url": f"http://localhost:{port}/heppu"})
    assert len(service.requests) == 1


def test_request_does_not_follow_redirects(sender: Connected, service: StubServer) -> None:
    for status in (301, 302, 303, 307, 308):
        service.answer("POST", "/heppu", Reply(status, headers={"Location": f"{service.url}/other"}))
        with pytest.raises(PermanentError, match="redirects are not followed"):
            sender.run("request", {"url": f"{service.url}/heppu"})
    assert {request.path for request in service.requests} == {"/heppu"}


def test_request_does_not_read_response_body(sender: Connected, service: StubServer) -> None:
    service.answer("POST", "/heppu", Reply(200, "x" * 20_000_000))
    assert sender.run("request", {"url": f"{service.url}/heppu"}).detail == "service answered 200"


def test_request_rejects_too_large_body_without_sending(sender: Connected, service: StubServer) -> None:
    with pytest.raises(PermanentError, match="262144 bytes"):
        sender.run("request", {"url": f"{service.url}/heppu", "body": {"text": "x" * 300_000}})
    assert service.requests == []


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(401, PermanentError), (403, PermanentError), (429, TransientError), (503, OutcomeUnknown)],
)
def test_error_response_does_not_pause_connection(
    sender: Connected, service: StubServer, status: int, error_type: type
) -> None:
    service.answer("POST", "/heppu", Reply(status))
    with pytest.raises(error_type) as caught:
        sender.run("request", {"url": f"{service.url}/heppu"})
    assert type(caught.value) is error_type


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_!!!", "whsec_c2hvcnQ=", "unguessable secret", f"{SECRET},", f"x,{SECRET}"]
)
def test_invalid_secret_is_reported_without_its_value(secret: str) -> None:
    with pytest.raises(ConfigError, match="HTTP_SECRET: must be whsec_") as caught:
        connect(http, {"HTTP_ALLOWED_HOSTS": "a.example", "HTTP_SECRET": secret})
    assert "unguessable" not in str(caught.value)


def test_check_resolves_every_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [_addrinfo("93.184.216.34")])
    with connect(http, environ("a.example, b.example:8443")) as sender:
        assert sender.check() == "2 allowed hosts resolved"


def test_request_without_url_goes_to_the_url_of_the_connection(service: StubServer) -> None:
    settings = {"HTTP_SECRET": SECRET, "HTTP_URL": f"{service.url}/heppu"}
    with connect(http, settings) as connected:
        assert connected.run("request", {}).detail == "service answered 204"
    assert service.requests[0].path == "/heppu"


def test_url_of_a_step_without_one_is_checked_when_the_file_is_loaded() -> None:
    text = """
version: 1
rules:
  - {name: a, when: call.busy, do: [{use: http.request%s}]}
"""

    def problems(params: str, settings: dict[str, str]) -> list[str]:
        loaded = load(text % params, path="rules.yaml", registry=Registry(), environ=settings)
        return [diagnostic.text for diagnostic in loaded.diagnostics]

    templated = ', with: {url: "https://erp.example.com/{{ event.event }}"}'
    assert problems("", environ("erp.example.com")) == [
        "the step needs `target` (a secret URL in HTTP_TARGETS_<NAME>), `url`, or the setting HTTP_URL"
    ]
    assert problems(templated, environ("erp.example.com")) == []
    assert problems("", {"HTTP_SECRET": SECRET, "HTTP_URL": "https://hooks.example.com/abc"}) == []
    assert "set HTTP_TARGETS_<NAME> to a secret URL" in problems("", {"HTTP_SECRET": SECRET})[0]
    [invalid] = problems("", {"HTTP_SECRET": SECRET, "HTTP_URL": "s3cret-hook"})
    assert "must be a whole URL" in invalid
    assert "s3cret-hook" not in invalid
