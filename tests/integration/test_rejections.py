"""Rejected requests: refused before the body is read, always counted, logged and stored a few times per second."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bridge.clock import Clock
from bridge.connector import Callback
from bridge.settings import Settings
from bridge.signing import sign
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.queries import list_rejected_requests
from bridge.telemetry.metrics import Metrics
from bridge.testing import connect, load_connector
from bridge.web import rejection_log as rejection_log_module
from bridge.web import webhook
from bridge.web.app import create_app
from bridge.web.callbacks import callback_routes
from bridge.web.rejection_log import LINES_PER_SECOND, RejectionLog, client_address
from bridge.web.webhook import Receiver, ReceiverSettings
from tests.asgi_server import serving

SECRET = b"whsec_rejections_test"
TWILIO = {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "the-auth-token-of-the-account",
    "TWILIO_FROM": "+12125550100",
}
PROXIES = Settings.load({"BRIDGE_TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1,::1"}).bridge_trusted_proxies


@dataclass
class Service:
    url: str
    database: Database
    receiver: Receiver
    metrics: Metrics

    def half_sent(self, path: str, headers: dict[str, str]) -> bytes:
        """Send headers and two bytes of a body of 1000, and return the beginning of the response."""
        address = urlsplit(self.url)
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5) as client:
            request = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n{''.join(lines)}\r\nab"
            client.sendall(request.encode())
            return client.recv(4096)

    def rejected(self, reason: str) -> float:
        value = self.metrics.web.registry.get_sample_value(
            "bridge_rejected_requests_total", {"reason": reason}
        )
        return value or 0


@pytest.fixture
def database(sqlite_url: str, clock: Clock) -> Iterator[Database]:
    database = Database(sqlite_url, clock)
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    metrics = Metrics()
    rejection_log = RejectionLog(metrics, PROXIES)
    receiver = Receiver(database, ReceiverSettings((SECRET,)), metrics, rejection_log, database.clock)
    with connect(load_connector("twilio"), TWILIO) as twilio:
        app = create_app(
            database,
            receiver,
            metrics,
            require_admin=lambda routes: routes,
            public_routes=callback_routes(database, {"twilio": twilio}.get, None, metrics, rejection_log),
        )
        with serving(app) as url:
            yield Service(url, database, receiver, metrics)


def test_webhook_without_usable_headers_is_rejected_before_the_body(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "STALE_BODY_SECONDS", 0.1)
    now = int(service.database.clock.now().timestamp())
    signature = sign(b"", SECRET)
    for headers in (
        {},
        {"X-Webhook-Timestamp": str(now)},
        {"X-Webhook-Signature-256": "sha256=0", "X-Webhook-Timestamp": str(now)},
        {"X-Webhook-Signature-256": signature},
        {"X-Webhook-Signature-256": signature, "X-Webhook-Timestamp": str(now - 400)},
    ):
        assert service.half_sent("/webhooks/heppu", headers).startswith(b"HTTP/1.1 401 "), headers


def test_signed_event_with_a_wrong_timestamp_is_kept(service: Service) -> None:
    body = b'{"event": "call.busy", "webhookId": "whd_1"}'
    headers = {"X-Webhook-Signature-256": sign(body, SECRET), "X-Webhook-Timestamp": "1000"}
    assert httpx.post(f"{service.url}/webhooks/heppu", content=body, headers=headers).status_code == 401
    assert [(item["reason"], item["signature_valid"]) for item in stored(service)] == [
        ("timestamp_off", True)
    ]


def stored(service: Service) -> Sequence[dict[str, Any]]:
    """Return the rejected requests once the background writer has stored them."""
    while service.receiver._rejected_requests._task is not None:
        time.sleep(0.01)
    return list_rejected_requests(service.database, limit=200).items


def test_unsigned_callback_is_rejected_before_the_body(service: Service) -> None:
    assert service.half_sent("/webhooks/twilio/status", {}).startswith(b"HTTP/1.1 403 ")
    assert service.rejected("signature_missing") == 1


def test_every_shipped_callback_names_its_signature_header() -> None:
    callbacks: list[Callback] = [
        callback
        for name in ("twilio", "hubspot", "salesforce", "slack", "email", "heppu", "http")
        for callback in load_connector(name).callbacks.values()
    ]
    assert callbacks
    assert all(callback.signature_header for callback in callbacks)


def test_flood_is_counted_in_full_and_logged_in_part(service: Service) -> None:
    with structlog.testing.capture_logs() as logs, httpx.Client(base_url=service.url) as client:
        for number in range(60):
            assert (
                client.post(
                    "/webhooks/heppu", headers={"X-Forwarded-For": f"192.0.2.{number % 2}"}
                ).status_code
                == 401
            )
    assert service.rejected("signature_missing") == 60
    lines = [entry for entry in logs if entry["event"] == "request rejected"]
    assert {entry["peer"] for entry in lines} == {"192.0.2.0", "192.0.2.1"}
    assert LINES_PER_SECOND <= len(lines) <= 3 * LINES_PER_SECOND
    assert len(stored(service)) == len(lines)


def test_flood_is_summarized(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(rejection_log_module, "uptime", lambda: now)
    scheduled: list[tuple[Any, ...]] = []

    class Loop:
        def call_later(self, _: float, *call: Any) -> None:
            scheduled.append(call)

    monkeypatch.setattr("asyncio.get_running_loop", Loop)
    rejection_log = RejectionLog(Metrics())
    with structlog.testing.capture_logs() as logs:
        for second in range(2):
            now = 100.0 + second
            for number in range(1000):
                scope = {"client": (f"192.0.2.{number % 10}", 1), "headers": []}
                rejection_log.report("signature_missing", "request rejected", scope)
        for function, *arguments in scheduled:
            function(*arguments)
    more = [entry for entry in logs if entry["event"] == "more requests rejected"]
    assert [entry["count"] for entry in more] == [1000 - LINES_PER_SECOND] * 2
    assert more[0]["peers"][0].startswith("192.0.2.")
    assert len(logs) == 2 * (LINES_PER_SECOND + 1)


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("203.0.113.9", ["192.0.2.1"], "203.0.113.9"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["192.0.2.1"], "192.0.2.1"),
        ("10.1.2.3", ["198.51.100.7, 192.0.2.1, 10.9.9.9"], "192.0.2.1"),
        ("10.1.2.3", ["198.51.100.7", "192.0.2.1,10.9.9.9"], "192.0.2.1"),
        ("10.1.2.3", ["10.9.9.9"], "10.9.9.9"),
        ("10.1.2.3", ["192.0.2.1:5123"], "192.0.2.1"),
        ("::1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("::ffff:10.1.2.3", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["evil\x1b[31m, "], "127.0.0.1"),
    ],
)
def test_forwarded_address_is_believed_if_a_trusted_proxy_sent_it(
    client: str, forwarded: list[str], expected: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert client_address({"client": (client, 1), "headers": headers}, PROXIES) == expected


@given(forged=st.text(max_size=60), client=st.ip_addresses(v=4, network="192.0.2.0/24"))
def test_client_cannot_choose_the_address_in_the_log(forged: str, client: object) -> None:
    value = f"{forged}, {client}, 10.0.0.7".encode()
    scope = {"client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", value)]}
    assert client_address(scope, PROXIES) == str(client)


def test_trusted_proxies_are_networks() -> None:
    assert (ip_network("10.0.0.0/8"), ip_network("127.0.0.1"), ip_network("::1")) == PROXIES
    with pytest.raises(Exception, match="BRIDGE_TRUSTED_PROXIES: write addresses like"):
        Settings.load({"BRIDGE_TRUSTED_PROXIES": "10.0.0.1/8"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("POST", "/webhooks/heppu"),
        ("GET", "/webhooks/heppu"),
        ("POST", "/webhooks/twilio/status"),
        ("GET", "/webhooks/twilio/status"),
        ("GET", "/webhooks/unknown"),
        ("PUT", "/healthz"),
        ("GET", "/nothing%0d%0aX: y"),
        ("GET", "/metrics"),
    ],
)
def test_every_response_has_security_headers(service: Service, method: str, path: str) -> None:
    headers = httpx.request(method, f"{service.url}{path}").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/webhooks/heppu", "/healthz"])
def test_internal_error_has_security_headers(
    service: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise LookupError("a bug")

    monkeypatch.setattr(service.receiver, "_respond", fail)
    monkeypatch.setattr("bridge.web.health.JSONResponse", fail)
    response = httpx.request("POST" if "heppu" in path else "GET", f"{service.url}{path}")
    assert (response.status_code, response.headers["x-content-type-options"]) == (500, "nosniff")
