"""What is turned away before anything of ours runs: headers without end, and headers that never end."""

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


def talk(url: str, *parts: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(4096):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


def test_an_ordinary_request_is_answered_and_the_connection_kept() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with serving(APP, http=BoundedProtocol) as url:
        assert talk(url, request, last).count(b"200 OK") == 2


@pytest.mark.parametrize("line", [b"X: " + b"a" * 4000 + b"\r\n", b"a" * 4000])
def test_headers_without_end_are_turned_away(line: bytes) -> None:
    parts = [b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "] + [line] * (8 * MAX_HEADERS // 4000)
    with serving(APP, http=BoundedProtocol) as url:
        assert b"200 OK" not in talk(url, *parts)
        assert b"200 OK" in talk(url, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_headers_that_never_end_are_waited_for_only_so_long(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "HEADER_SECONDS", 0.3)
    with serving(APP, http=BoundedProtocol) as url:
        start = time.monotonic()
        assert talk(url, begun) == b""
        assert time.monotonic() - start < 5
