"""The listening socket of a shared port, and a server that leaves it."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from bridge.cli.listener import listen
from bridge.errors import ConfigError
from bridge.http_server import HttpServer


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"on port {scope['server'][1]}")(scope, receive, send)


def _send_request(listener: socket.socket) -> socket.socket:
    """Open a connection, which waits to be accepted, and send a request."""
    connection = socket.create_connection(listener.getsockname(), timeout=20)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: bridge\r\n\r\n")
    return connection


async def _read_to_end(connection: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    with connection, connection.makefile("rb") as file:
        return await asyncio.to_thread(file.read)


def test_shared_port_is_bound_several_times_and_listens_only_when_it_is_served() -> None:
    with listen("127.0.0.1", 0, "--port", share_port=True) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port, "--port", share_port=True), pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_port_that_another_process_does_not_share_is_in_use() -> None:
    with (
        listen("127.0.0.1", 0, "--port") as other,
        pytest.raises(ConfigError, match=r"choose .* with --port"),
    ):
        listen("127.0.0.1", other.getsockname()[1], "--port", share_port=True)


def test_server_that_leaves_its_port_answers_the_connections_that_wait_there() -> None:
    """The kernel would reset them when it closes the socket."""

    async def leave_port(left: socket.socket, kept: socket.socket) -> None:
        ready = asyncio.Event()
        config = uvicorn.Config(_answer, lifespan="off", log_config=None, access_log=False)
        server = HttpServer(config, ready.set)
        serving = asyncio.create_task(server.serve(sockets=[left, kept]))
        await ready.wait()
        address = left.getsockname()
        waiting = [_send_request(left) for _ in range(3)]
        await server.leave(left)
        for connection in waiting:
            response = await _read_to_end(connection)
            assert b"connection: close\r\n" in response
            assert response.endswith(b"on port %d" % address[1])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        assert (await _read_to_end(_send_request(kept))).endswith(b"on port %d" % kept.getsockname()[1])
        server.stop()
        await serving

    with listen("127.0.0.1", 0, "", share_port=True) as left, listen("127.0.0.1", 0, "") as kept:
        asyncio.run(leave_port(left, kept))


def test_server_that_is_stopped_before_it_has_started_has_nothing_to_leave() -> None:
    async def leave() -> None:
        server = HttpServer(uvicorn.Config(_answer, log_config=None), lambda: None)
        await server.leave(listener)

    with listen("127.0.0.1", 0, "", share_port=True) as listener:
        asyncio.run(leave())
