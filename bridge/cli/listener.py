"""Listening sockets."""

from __future__ import annotations

import socket

from bridge.errors import ConfigError
from bridge.settings import local_url


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
