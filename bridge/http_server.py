"""The HTTP server on a listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import uvicorn
import uvicorn.server


class _ServerState(uvicorn.server.ServerState):
    """Updates the `Date` header when a request needs it. uvicorn does so once per second, also in an idle service."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__()
        self._config = config
        self._second = 0

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response."""
        second = int(time.time())
        if second != self._second:
            date = (b"date", formatdate(second, usegmt=True).encode())
            self._headers, self._second = [date, *self._config.encoded_headers], second
        return self._headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers and without its ten ticks per second, and with a callback when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.server_state = _ServerState(config)
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._listeners: list[socket.socket] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, because with its own handlers uvicorn exits with the signal instead of 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        self._listeners = sockets or []
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def main_loop(self) -> None:
        """Wait for `stop`."""
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._stopped.wait()

    async def leave(self, listener: socket.socket) -> None:
        """Stop listening on a port that other processes share, and let every response close its connection.

        The kernel resets the connections that wait when a listener is closed, so accept them first. Before the server
        has started, there is nothing to leave.
        """
        if not self.started:
            return
        loop, accepted = asyncio.get_running_loop(), []
        with contextlib.suppress(OSError):  # none is left
            while True:
                accepted.append(listener.accept()[0])
        self.servers[self._listeners.index(listener)].close()
        listener.close()
        closing = (b"connection", b"close")
        self.config.encoded_headers.append(closing)  # of the responses of the next seconds
        self.server_state.default_headers = [*self.server_state.default_headers, closing]
        await asyncio.gather(
            *(loop.connect_accepted_socket(self._connection, sock) for sock in accepted),
            return_exceptions=True,
        )

    def _connection(self) -> asyncio.Protocol:
        """Return the protocol of a new connection, as uvicorn builds it."""
        build: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = build(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def stop(self) -> None:
        """Stop serving. Callable from any thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)


class AbortingServer(HttpServer):
    """Closes all connections at once when it stops, for mock providers and tests.

    uvicorn gives them a tenth of a second, for which hundreds of tests would wait.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, abort the connections and wait for the requests to end."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=5)
        await self.lifespan.shutdown()
