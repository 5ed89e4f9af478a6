"""POST /webhooks/heppu over real HTTP: every response, including those to malformed requests."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from bridge.samples import refresh_sample, sample
from bridge.signing import MAX_BODY
from bridge.store.accept_rejected import accept_rejected_request
from bridge.store.database import Database
from bridge.store.queries import list_events, list_rejected_requests
from bridge.telemetry.metrics import Metrics
from bridge.web.app import create_app
from bridge.web.rejection_log import RejectionLog
from bridge.web.webhook import Receiver, ReceiverSettings
from tests.asgi_server import serving

SECRETS = (b"whsec_new", b"whsec_old")


@dataclass
class Service:
    url: str
    database: Database
    receiver: Receiver
    metrics: Metrics

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        headers = signed(body) if headers is None else headers
        return httpx.post(f"{self.url}/webhooks/heppu", content=body, headers=headers, timeout=10)

    def event(self, **changes: Any) -> bytes:
        return json.dumps(
            refresh_sample(sample("call.completed"), self.database.clock.now()) | changes
        ).encode()


def signed(body: bytes, secret: bytes = SECRETS[0], at: float | None = None) -> dict[str, str]:
    """Return the headers that Heppu documents, with an HMAC that does not use the code under test."""
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "Heppu-Webhooks/1.0",
        "X-Webhook-Signature-256": f"sha256={digest}",
        "X-Webhook-Timestamp": str(int(at if at is not None else time.time())),
        "X-Webhook-ID": "whd_header",
    }


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    metrics = Metrics()
    receiver = Receiver(database, ReceiverSettings(SECRETS), metrics, RejectionLog(metrics), database.clock)
    app = create_app(database, receiver, metrics, require_admin=lambda routes: routes)
    with serving(app) as url:
        yield Service(url, database, receiver, metrics)


def test_national_number_is_stored_with_the_default_country_of_the_database(database: Database) -> None:
    database.default_country = "GB"
    metrics = Metrics()
    receiver = Receiver(database, ReceiverSettings(SECRETS), metrics, RejectionLog(metrics), database.clock)
    app = create_app(database, receiver, metrics, require_admin=lambda routes: routes)
    with serving(app) as url:
        service = Service(url, database, receiver, metrics)
        body = service.event(metadata={"contactPhone": "07911 123456"})
        assert service.post(body, signed(body, at=database.clock.now().timestamp())).status_code == 200
    assert [event["phone"] for event in list_events(database).items] == ["+447911123456"]


def rejected_requests(service: Service) -> list[dict[str, Any]]:
    """Wait until rejected requests are stored and return them."""
    for _ in range(100):
        items = list_rejected_requests(service.database).items
        if items:
            return list(items)
        time.sleep(0.02)
    return []


def test_signed_event_is_stored_and_answered_200(service: Service) -> None:
    response = service.post(service.event())
    assert (response.status_code, response.json()) == (200, {"received": True})
    assert [item["type"] for item in list_events(service.database).items] == ["call.completed"]


def test_duplicate_is_answered_200_and_not_stored(service: Service) -> None:
    body = service.event()
    service.post(body)
    assert service.post(body, signed(body, SECRETS[1])).json() == {"received": True, "duplicate": True}
    assert len(list_events(service.database).items) == 1


def test_known_id_with_another_body_is_recorded_as_conflict(service: Service) -> None:
    service.post(service.event(webhookId="whd_1"))
    assert service.post(service.event(webhookId="whd_1")).json() == {"received": True, "duplicate": True}
    assert [item["reason"] for item in rejected_requests(service)] == ["conflict"]


def test_unknown_event_type_is_stored_and_logged_once(service: Service) -> None:
    with structlog.testing.capture_logs() as logs:
        for number in range(3):
            body = service.event(
                event="call.transferred", webhookId=f"whd_{number}", conversationId=f"c{number}"
            )
            assert service.post(body).status_code == 200
    assert list_events(service.database).items[0]["type"] == "call.transferred"
    assert [entry["event_type"] for entry in logs if entry["event"] == "event type is not documented"] == [
        "call.transferred"
    ]


def test_event_type_in_another_spelling_is_the_documented_one(service: Service) -> None:
    service.post(service.event(event="Call.No_Answer"))
    assert list_events(service.database).items[0]["type"] == "call.no-answer"


def test_numeric_conversation_id_is_the_conversation_of_the_same_text(service: Service) -> None:
    service.post(service.event(webhookId=1, conversationId=7001, timestamp=1701432000))
    service.post(service.event(webhookId="2", conversationId="7001", event="call.failed"))
    assert [item["conversation_id"] for item in list_events(service.database).items] == ["7001", "7001"]
    again = service.event(webhookId=3, conversationId="7001", timestamp="2023-12-01T12:00:00.000Z")
    assert service.post(again).json() == {"received": True, "duplicate": True}


def test_unreadable_fields_are_logged_and_counted_once(service: Service) -> None:
    body = service.event(metadata={"contactPhone": "040 123 4567"}, duration="2:05")
    with structlog.testing.capture_logs() as logs:
        service.post(body)
        service.post(body)
    (entry,) = [entry for entry in logs if entry["event"] == "event has unreadable fields"]
    assert entry["log_level"] == "warning"
    assert entry["fields"] == [
        "duration is a string that is not a number",
        "metadata.contactPhone has no country code",
    ]
    assert "4567" not in str(entry)
    samples = {
        (sample.name, sample.labels["field"]): sample.value
        for metric in service.metrics.web.registry.collect()
        for sample in metric.samples
        if sample.name.startswith("bridge_unreadable") and sample.value
    }
    assert samples == {
        ("bridge_unreadable_contact_fields_total", "phone"): 1,
        ("bridge_unreadable_event_fields_total", "duration"): 1,
    }


def test_withheld_number_is_no_unreadable_field(service: Service) -> None:
    with structlog.testing.capture_logs() as logs:
        service.post(service.event(metadata={"contactPhone": "+266696687"}))
    assert [entry for entry in logs if entry["event"] == "event has unreadable fields"] == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"X-Webhook-Signature-256": None}, 401),
        ({"X-Webhook-Signature-256": "sha256=" + "0" * 64}, 401),
        ({"X-Webhook-Signature-256": "nonsense"}, 401),
        ({"X-Webhook-Timestamp": None}, 401),
        ({"X-Webhook-Timestamp": "0"}, 401),
        ({"X-Webhook-Timestamp": "99999999999"}, 401),
    ],
)
def test_invalid_signature_or_timestamp_returns_401(
    service: Service, change: dict[str, Any], status: int
) -> None:
    body = service.event()
    headers = {name: value for name, value in (signed(body) | change).items() if value is not None}
    response = service.post(body, headers)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert list_events(service.database).items == []
    assert len(rejected_requests(service)) == 1


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"event": NaN}', b'{"event": ""}', b"{}", b"\xff", b""])
def test_signed_invalid_event_returns_400_and_is_recorded(service: Service, body: bytes) -> None:
    assert service.post(body).status_code == 400
    assert [item["signature_valid"] for item in rejected_requests(service)] == [True]


def test_oversized_body_returns_413_with_and_without_content_length(service: Service) -> None:
    large = b"x" * (MAX_BODY + 1)
    assert service.post(large).status_code == 413
    chunks = iter([large[: MAX_BODY // 2]] * 3)
    response = httpx.post(f"{service.url}/webhooks/heppu", content=chunks, headers=signed(b""), timeout=10)
    assert response.status_code == 413


def test_body_of_maximum_size_is_stored(service: Service) -> None:
    body = service.event(summary="")
    body = body.replace(b'"summary": ""', b'"summary": "' + b"a" * (MAX_BODY - len(body)) + b'"')
    assert len(body) == MAX_BODY
    assert service.post(body).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_return_405(service: Service, method: str) -> None:
    response = httpx.request(method, f"{service.url}/webhooks/heppu", timeout=10)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/webhooks/unknown/status", "/webhooks/"])
def test_unknown_webhook_path_returns_404(service: Service, path: str) -> None:
    response = httpx.post(f"{service.url}{path}", content=service.event(), timeout=10)
    assert (response.status_code, response.json()) == (404, {"error": "not found"})


@pytest.mark.parametrize("path", ["/webhooks/heppu/", "//webhooks/heppu", "/webhooks/heppu//"])
def test_further_slashes_do_not_matter(service: Service, path: str) -> None:
    body = service.event()
    response = httpx.post(f"{service.url}{path}", content=body, headers=signed(body), timeout=10)
    assert (response.status_code, response.json()) == (200, {"received": True})
    assert len(list_events(service.database).items) == 1


@pytest.mark.parametrize(
    "path", ["/heppu", "/webhook/heppu", "/webhooks/Heppu", "/", "/webhooks/heppu/events", "/webhooks//heppu"]
)
def test_signed_request_to_another_path_is_kept_with_the_right_path(service: Service, path: str) -> None:
    body = service.event()
    response = httpx.post(f"{service.url}{path}", content=body, headers=signed(body), timeout=10)
    assert (response.status_code, "/webhooks/heppu" in response.json()["error"]) == (404, True)
    kept = rejected_requests(service)
    assert [(item["reason"], item["status"], item["signature_valid"]) for item in kept] == [
        ("wrong_path", 404, True)
    ]
    assert kept[0]["detail"].startswith(f"sent to {path} instead of /webhooks/heppu: correct the URL")
    assert accept_rejected_request(service.database, "ada", kept[0]["id"]).done


def test_unsigned_request_to_another_path_leaves_nothing(service: Service) -> None:
    body = service.event()
    for headers in ({}, signed(body, b"another secret"), {"X-Webhook-Signature-256": "sha256=00"}):
        response = httpx.post(f"{service.url}/heppu", content=body, headers=headers, timeout=10)
        assert response.status_code == 404
    assert not list_rejected_requests(service.database).items
    counted = service.metrics.web.registry.get_sample_value(
        "bridge_rejected_requests_total", {"reason": "signature_wrong"}
    )
    assert counted == 1


def test_failed_insert_returns_503_and_next_event_is_stored(service: Service) -> None:
    with service.database.write() as connection:
        connection.execute(text("ALTER TABLE events RENAME TO events_renamed"))
    body = service.event()
    response = service.post(body)
    assert (response.status_code, "retry-after" in response.headers) == (503, True)
    with service.database.write() as connection:
        connection.execute(text("ALTER TABLE events_renamed RENAME TO events"))
    assert service.post(body).json() == {"received": True}


def test_stopping_receiver_returns_503(service: Service) -> None:
    service.receiver.stop()
    assert service.post(service.event()).status_code == 503
    assert httpx.get(f"{service.url}/readyz").status_code == 503
    assert httpx.get(f"{service.url}/healthz").status_code == 200


def test_concurrent_events_are_stored_once(service: Service) -> None:
    bodies = [service.event() for _ in range(60)] * 2
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda body: service.post(body).json(), bodies))
    assert sum("duplicate" not in response for response in responses) == 60
    assert len(list_events(service.database, limit=200).items) == 60


def test_metrics_count_requests_by_status(service: Service) -> None:
    body = service.event()
    service.post(body)
    service.post(body)
    service.post(body, {})
    metrics = httpx.get(f"{service.url}/metrics").text
    for line in ('status="200"} 1.0', 'status="duplicate"} 1.0', 'status="401"} 1.0'):
        assert f"bridge_webhook_requests_total{{{line}" in metrics
    summary = httpx.get(f"{service.url}/metrics/webhooks").json()
    assert (summary["received"], summary["stored"], summary["duplicates"], summary["rejected"]) == (
        3,
        1,
        1,
        1,
    )


def test_readyz_reports_ready_with_writable_database(service: Service) -> None:
    assert httpx.get(f"{service.url}/readyz").json() == {"status": "ready"}


_HEADERS = st.dictionaries(
    st.sampled_from(
        ["X-Webhook-Signature-256", "X-Webhook-Timestamp", "Content-Length", "Transfer-Encoding", "X"]
    ),
    st.binary(max_size=80).filter(lambda value: b"\r" not in value and b"\n" not in value),
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=300), headers=_HEADERS, method=st.sampled_from([b"POST", b"GET", b"\xff", b""])
)
def test_malformed_request_returns_4xx_and_next_event_is_stored(
    service: Service, body: bytes, headers: dict[str, bytes], method: bytes
) -> None:
    lines = [method + b" /webhooks/heppu HTTP/1.1", b"Host: bridge", b"Connection: close"]
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}".encode())
    response = _raw(service.url, b"\r\n".join(lines) + b"\r\n\r\n" + body)
    assert response == b"" or response.startswith(b"HTTP/1.1 4"), response[:100]
    assert service.post(service.event()).json() == {"received": True}


def _raw(url: str, data: bytes) -> bytes:
    """Send raw bytes and return the response, read until the server closes the connection or times out."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        response = b""
        try:
            while chunk := connection.recv(4096):
                response += chunk
        except (TimeoutError, ConnectionError):
            pass
        return response
