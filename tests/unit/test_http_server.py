"""The HTTP server without uvicorn's ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn

from bridge import http_server
from bridge.http_server import HttpServer


@pytest.fixture
def server() -> HttpServer:
    config = uvicorn.Config(lambda: None, headers=[("x-name", "bridge")])  # type: ignore[arg-type]
    config.load()
    return HttpServer(config, lambda: None)


def set_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_to(seconds: float) -> None:
        monkeypatch.setattr(http_server.time, "time", lambda: seconds)

    return set_to


def test_date_header_has_the_second_of_the_request(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to = set_time(monkeypatch)
    set_to(1_800_000_000.9)
    assert dict(server.server_state.default_headers)[b"date"] == b"Fri, 15 Jan 2027 08:00:00 GMT"
    set_to(1_800_000_001.0)
    headers = dict(server.server_state.default_headers)
    assert headers[b"date"] == b"Fri, 15 Jan 2027 08:00:01 GMT"
    assert headers[b"x-name"] == b"bridge"


def test_headers_of_one_second_are_built_once(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    set_time(monkeypatch)(1_800_000_000.0)
    assert server.server_state.default_headers is server.server_state.default_headers


def test_server_waits_for_stop_without_ticks(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("ticked")

    async def run() -> None:
        waiting = asyncio.create_task(server.main_loop())
        await asyncio.sleep(0)
        assert not waiting.done()
        server.stop()
        await waiting

    monkeypatch.setattr(server, "on_tick", fail)
    asyncio.run(run())


def test_server_that_is_stopped_before_it_waits_does_not_wait(server: HttpServer) -> None:
    server.stop()
    asyncio.run(asyncio.wait_for(server.main_loop(), 30))
