"""HTTP limits: requests that are too large, too slow or too many are rejected before the application runs."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from bridge.cli import http_limits
from bridge.cli.connection_limits import ConnectionLimits, connections_for
from bridge.cli.http_limits import MAX_HEADERS, MAX_PIPELINED
from bridge.telemetry.metrics import Metrics
from bridge.web.rejection_log import RejectionLog
from tests.acceptance.service_process import eventually
from tests.asgi_server import serving

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HALF_SENT = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab"
UNREAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab"


async def hello(_: Request) -> PlainTextResponse:
    """Respond without reading the body."""
    return PlainTextResponse("hello")


async def echo(request: Request) -> PlainTextResponse:
    """Respond with the size of the body."""
    return PlainTextResponse(str(len(await request.body())))


async def respond_after_disconnect(request: Request) -> PlainTextResponse:
    """Respond when the client has closed the connection."""
    await request.body()
    while request.app.state.limits.open:
        await asyncio.sleep(0.01)
    request.app.state.late += 1
    return PlainTextResponse("late")


APP = Starlette(
    routes=[
        Route("/", hello, methods=["GET", "POST"]),
        Route("/echo", echo, methods=["POST"]),
        Route("/late", respond_after_disconnect, methods=["POST"]),
        Route("/large", lambda _: PlainTextResponse("x" * 30_000_000)),
        Route("/chunks", lambda _: StreamingResponse("x" * 1_000_000 for _ in range(30))),
    ]
)


@dataclass
class Server:
    """A running server, its limits and its clients."""

    port: int
    limits: ConnectionLimits
    metrics: Metrics
    clients: ExitStack

    def connect(self, data: bytes = b"", receive_buffer: int | None = None) -> socket.socket:
        """Open a connection, send `data` and leave the connection open."""
        client = self.clients.enter_context(socket.socket())
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect(("127.0.0.1", self.port))
        client.sendall(data)
        return client

    def exchange(self, *parts: bytes) -> bytes:
        """Send `parts` and return everything that is received until the server closes the connection."""
        client = self.connect()
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                client.sendall(part)
        return received(client)

    def rejected(self, reason: str) -> float:
        """Return how many requests were rejected for this reason."""
        return (
            self.metrics.web.registry.get_sample_value("bridge_rejected_requests_total", {"reason": reason})
            or 0
        )


def received(client: socket.socket) -> bytes:
    """Return everything that is received until the server closes the connection."""
    response = b""
    try:
        while chunk := client.recv(65536):
            response += chunk
    except (BrokenPipeError, ConnectionResetError):
        pass
    return response


@contextmanager
def running(max_connections: int = 100, max_bytes: int = 10_000_000) -> Iterator[Server]:
    metrics = Metrics()
    limits = ConnectionLimits(RejectionLog(metrics), max_connections, max_bytes)
    APP.state.limits, APP.state.late = limits, 0
    with serving(APP, http=limits.protocol) as url, ExitStack() as clients:
        yield Server(int(url.rpartition(":")[2]), limits, metrics, clients)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def test_valid_requests_share_one_connection(server: Server) -> None:
    assert server.exchange(GET, LAST_GET).count(b"200 OK") == 2
    assert eventually(lambda: server.limits.bytes_held == 0 and not server.limits.open)


@pytest.mark.parametrize("line", [b"X: " + b"a" * 4000 + b"\r\n", b"a" * 4000])
def test_oversized_headers_are_rejected(server: Server, line: bytes) -> None:
    parts = [b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "] + [line] * (8 * MAX_HEADERS // 4000)
    assert b"200 OK" not in server.exchange(*parts)
    assert server.rejected("headers_too_large") == 1
    assert b"200 OK" in server.exchange(LAST_GET)


@pytest.mark.parametrize(
    ("incomplete", "status"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"408"),
        (HALF_SENT, b"408"),
        (HALF_SENT[:-2], b"408"),
        (GET + HALF_SENT, b"408"),
        (UNREAD, b"200"),
        (GET, b"200"),
    ],
)
def test_waiting_connection_times_out(
    incomplete: bytes, status: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(http_limits, "DRAIN_SECONDS", 0.1)
    with running() as server:
        client = server.connect(incomplete)
        if incomplete == GET:
            client.shutdown(socket.SHUT_WR)
        response = received(client)
        assert (b"HTTP/1.1 " + status in response) if status else response == b""
        assert server.rejected("too_slow") == (status == b"408")
        assert eventually(lambda: server.limits.bytes_held == 0)


def test_slow_drip_does_not_extend_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "REQUEST_SECONDS", 0.3)
    with running() as server:
        client = server.connect(HALF_SENT)
        client.settimeout(0.02)
        end = time.monotonic() + 5
        response = b""
        while not response:
            assert time.monotonic() < end
            client.sendall(b"x")
            try:
                response = client.recv(4096)
            except TimeoutError:
                continue
        assert b" 408 " in response


@pytest.mark.parametrize("path", [b"/large", b"/chunks"])
def test_client_that_does_not_read_its_response_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    monkeypatch.setattr(http_limits, "WRITE_SECONDS", 0.2)
    with running() as server:
        server.connect(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path, receive_buffer=4096)
        assert eventually(lambda: bool(server.limits.open))
        assert eventually(lambda: not server.limits.open)


def test_body_that_arrives_after_the_response_is_drained(server: Server) -> None:
    client = server.connect(UNREAD)
    assert b"200 OK" in client.recv(4096)
    client.sendall(b"x" * 998 + LAST_GET)
    assert b"200 OK" in received(client)


def test_body_that_never_ends_after_the_response_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "DRAIN_SECONDS", 0.1)
    client = server.connect(UNREAD)
    assert b"200 OK" in client.recv(4096)
    client.sendall(b"x")
    assert received(client) == b""


def test_good_requests_are_answered_while_strangers_hold_all_connections() -> None:
    with running(max_connections=20) as server:
        strangers = [
            server.connect(data) for data in (HALF_SENT, UNREAD, GET, GET[:9], b"") for _ in range(20)
        ]
        for _ in range(50):
            assert b"200 OK" in server.exchange(LAST_GET)
        assert len(server.limits.open) <= 21
        assert server.rejected("connection_evicted") > 50
        assert b" 503 " in strangers[0].recv(4096)


def test_connection_is_refused_if_none_can_be_closed() -> None:
    with running(max_connections=0) as server:
        response = server.exchange()
        assert b" 503 " in response
        assert b"retry-after: 5" in response
        assert server.rejected("too_many_connections") == 1


def test_bodies_in_flight_have_one_memory_budget() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n"
    with running(max_bytes=1_000_000) as server:
        strangers = [server.connect(head + b"x" * 300_000) for _ in range(10)]
        assert eventually(lambda: server.rejected("memory") >= 7)
        assert server.limits.bytes_held <= 1_000_000
        response = server.exchange(head[:-2] + b"Connection: close\r\n\r\n" + b"x" * 400_000)
        assert response.endswith(b"400000")
        assert b" 503 " in received(strangers[0])
        assert server.limits.bytes_held <= 1_000_000


def test_client_that_sends_too_many_requests_ahead_is_disconnected(server: Server) -> None:
    response = server.exchange(GET * (3 * MAX_PIPELINED))
    assert response.count(b"200 OK") <= 2 * MAX_PIPELINED
    assert server.rejected("bad_request") == 1


def test_disconnect_between_pipelined_requests_is_no_error(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "propagate", True)
    request = b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            server.connect(2 * request).close()
        assert eventually(lambda: APP.state.late >= 20)
        assert b"200 OK" in server.exchange(LAST_GET)
    assert (logs, caplog.messages) == ([], [])


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"])
def test_malformed_request_is_rejected_with_security_headers(server: Server, garbage: bytes) -> None:
    response = server.exchange(garbage).lower()
    assert b" 400 " in response
    assert b"x-content-type-options: nosniff" in response
    assert b"content-security-policy: default-src 'none'" in response
    assert server.rejected("bad_request") == 1


@pytest.mark.parametrize(
    ("files", "connections"), [(256, 128), (1024, 768), (4096, 3840), (1_048_576, 10_000)]
)
def test_maximum_of_connections_follows_from_the_limit_of_open_files(files: int, connections: int) -> None:
    assert connections_for(files) == connections
