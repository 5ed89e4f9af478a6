"""Listening sockets and the HTTP server on them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from bridge.errors import ConfigError
from bridge.settings import local_url


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers and with a callback when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, because with its own handlers uvicorn exits with the signal instead of 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def listen(host: str, port: int, settings: str) -> socket.socket:
    """Return a listening socket. Raise ConfigError, naming the `settings` to change, if the address cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another address with {settings}"
        ) from None


def url_of(listener: socket.socket) -> str:
    """Return the URL of the service on this machine."""
    return local_url(*listener.getsockname()[:2])
