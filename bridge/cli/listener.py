"""Listening sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bridge.errors import ConfigError
from bridge.settings import Settings, local_url

BACKLOG = 2048


@contextmanager
def server_listeners(
    host: str, port: int, settings: Settings, *, share_port: bool
) -> Iterator[list[socket.socket]]:
    """Yield the sockets of a server: of its port and, if it shares that, of its own one. Raise ConfigError."""
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(
                listen(host, port, "--host and --port (BRIDGE_HOST, BRIDGE_PORT)", share_port=share_port)
            )
        ]
        if share_port and settings.bridge_metrics_port is not None:
            own = listen(host, settings.bridge_metrics_port, "BRIDGE_METRICS_PORT")
            listeners.append(stack.enter_context(own))
        yield listeners


def require_shareable(settings: Settings) -> None:
    """Raise ConfigError if several servers with these settings cannot share a port."""
    if settings.bridge_database_url.startswith("sqlite"):
        raise ConfigError(
            "--share-port needs PostgreSQL: set BRIDGE_DATABASE_URL=postgresql://... "
            "With SQLite, one `bridge serve` receives all events"
        )
    if not settings.bridge_admin_token:
        raise ConfigError(
            "--share-port needs BRIDGE_ADMIN_TOKEN: otherwise every process generates its own, and refuses the others"
        )


def listen(host: str, port: int, settings: str, *, share_port: bool = False) -> socket.socket:
    """Return a listening socket. Raise ConfigError, naming the `settings` to change, if the address cannot be used.

    The socket of a shared port does not listen yet: Linux would already give it a share of the connections.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if share_port:
            return _bind_shared(family, host, port)
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another address with {settings}"
        ) from None


def _bind_shared(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        if family is socket.AF_INET6:  # as `create_server` does
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of the service on this machine."""
    return local_url(*listener.getsockname()[:2])
