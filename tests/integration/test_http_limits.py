"""HTTP limits: oversized and incomplete headers are rejected before the application runs."""

from __future__ import annotations

import socket
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bridge.cli import http_limits
from bridge.cli.http_limits import MAX_HEADERS, BoundedProtocol
from tests.asgi_server import serving

APP = Starlette(routes=[Route("/", lambda _: PlainTextResponse("hello"))])


def exchange(url: str, *parts: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        response = b""
        try:
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(4096):
                response += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass
        return response


def test_valid_requests_share_one_connection() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    last_request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with serving(APP, http=BoundedProtocol) as url:
        assert exchange(url, request, last_request).count(b"200 OK") == 2


@pytest.mark.parametrize("line", [b"X: " + b"a" * 4000 + b"\r\n", b"a" * 4000])
def test_oversized_headers_are_rejected(line: bytes) -> None:
    parts = [b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "] + [line] * (8 * MAX_HEADERS // 4000)
    with serving(APP, http=BoundedProtocol) as url:
        assert b"200 OK" not in exchange(url, *parts)
        assert b"200 OK" in exchange(url, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("incomplete", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_incomplete_headers_time_out(incomplete: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "HEADER_SECONDS", 0.3)
    with serving(APP, http=BoundedProtocol) as url:
        start = time.monotonic()
        assert exchange(url, incomplete) == b""
        assert time.monotonic() - start < 5
