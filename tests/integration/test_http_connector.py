"""Posts to services of one's own: signed, to allowed hosts, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.errors import ConfigError, OutcomeUnknown, PermanentError, TransientError
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


def test_the_whole_event_arrives_as_json(sender: Connected, service: StubServer) -> None:
    about = event("call.completed", {"summary": "Grüße 👋"})
    sent = sender.run("post", {"url": f"{service.url}/heppu"}, event=about)
    [request] = service.requests
    assert request.json == about.body
    assert request.headers["content-type"] == "application/json"
    assert sent.detail == "answered 204"


def test_a_receiver_can_check_the_signature_as_standard_webhooks_says(
    sender: Connected, service: StubServer
) -> None:
    sender.run("post", {"url": f"{service.url}/heppu", "body": {"a": [1, None, "ü"]}})
    [request] = service.requests
    assert request.body == '{"a":[1,null,"ü"]}'.encode()
    identity, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    signed = f"{identity}.{stamp}.".encode() + request.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_a_repeated_request_carries_the_same_id(sender: Connected, service: StubServer) -> None:
    context = build_context(event(), http.actions["post"])
    for _ in range(2):
        sender.run("post", {"url": f"{service.url}/heppu"}, context=context)
    sender.run("post", {"url": f"{service.url}/heppu"})
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
def test_nothing_goes_to_a_host_that_is_not_allowed(
    sender: Connected, service: StubServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _no_dns)
    with pytest.raises(PermanentError):
        sender.run("post", {"url": url.format(port=urlsplit(service.url).port)})
    assert service.requests == []


def _no_dns(*_: Any, **__: Any) -> Any:
    raise AssertionError("a host that is not allowed was looked up")


def test_plain_http_is_for_loopback_only() -> None:
    with connect(http, environ("erp.example.com")) as sender, pytest.raises(PermanentError, match="https://"):
        sender.run("post", {"url": "http://erp.example.com/heppu"})


@pytest.mark.parametrize(
    "address",
    ["10.0.0.8", "192.168.1.1", "172.16.0.1", "169.254.169.254", "127.0.0.1", "::1", "fd00::1", "0.0.0.0"],
)
def test_an_allowed_name_that_leads_into_a_private_network_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [_answer(address)])
    with connect(http, environ("erp.example.com")) as sender:
        with pytest.raises(PermanentError, match="HTTP_ALLOW_PRIVATE"):
            sender.run("post", {"url": "https://erp.example.com/heppu"})
        with pytest.raises(PermanentError, match="HTTP_ALLOW_PRIVATE"):
            sender.check()


def _answer(address: str) -> tuple[Any, ...]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, 6, "", (address, 0))


def test_the_request_goes_to_the_address_that_was_checked(
    service: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads elsewhere at the second look-up is not looked up a second time."""
    port = urlsplit(service.url).port
    asked = []
    real = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        return [_answer("127.0.0.1")] if host == "localhost" else real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with connect(http, environ(f"localhost:{port}")) as sender:
        sender.run("post", {"url": f"http://localhost:{port}/heppu"})
    assert asked == ["localhost", "127.0.0.1"]
    assert service.requests[0].headers["host"] == f"localhost:{port}"


def test_the_next_address_of_a_name_is_tried_when_one_takes_no_connection(
    service: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = urlsplit(service.url).port
    real = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **named: Any) -> Any:
        if host == "localhost":
            return [_answer("::1"), _answer("127.0.0.1")]
        return real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with connect(http, environ(f"localhost:{port}")) as sender:
        sender.run("post", {"url": f"http://localhost:{port}/heppu"})
    assert len(service.requests) == 1


def test_a_redirect_is_not_followed(sender: Connected, service: StubServer) -> None:
    for status in (301, 302, 303, 307, 308):
        service.answer("POST", "/heppu", Reply(status, headers={"Location": f"{service.url}/other"}))
        with pytest.raises(PermanentError, match="redirects are not followed"):
            sender.run("post", {"url": f"{service.url}/heppu"})
    assert {request.path for request in service.requests} == {"/heppu"}


def test_an_answer_of_any_size_costs_nothing(sender: Connected, service: StubServer) -> None:
    service.answer("POST", "/heppu", Reply(200, "x" * 20_000_000))
    assert sender.run("post", {"url": f"{service.url}/heppu"}).detail == "answered 200"


def test_a_body_that_is_too_large_is_refused_before_anything_leaves(
    sender: Connected, service: StubServer
) -> None:
    with pytest.raises(PermanentError, match="262144 bytes"):
        sender.run("post", {"url": f"{service.url}/heppu", "body": {"text": "x" * 300_000}})
    assert service.requests == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, PermanentError), (403, PermanentError), (429, TransientError), (503, OutcomeUnknown)],
)
def test_one_receivers_no_does_not_hold_the_others_up(
    sender: Connected, service: StubServer, status: int, kind: type
) -> None:
    service.answer("POST", "/heppu", Reply(status))
    with pytest.raises(kind) as refused:
        sender.run("post", {"url": f"{service.url}/heppu"})
    assert type(refused.value) is kind


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "whsec_c2hvcnQ=", "unguessable secret"])
def test_a_secret_that_signs_badly_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="HTTP_SECRET: must be whsec_") as wrong:
        connect(http, {"HTTP_ALLOWED_HOSTS": "a.example", "HTTP_SECRET": secret})
    assert "unguessable" not in str(wrong.value)


def test_check_looks_every_host_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [_answer("93.184.216.34")])
    with connect(http, environ("a.example, b.example:8443")) as sender:
        assert sender.check() == "2 allowed hosts found"
