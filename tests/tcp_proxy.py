"""A TCP proxy in front of PostgreSQL for tests: it can stop forwarding without closing a connection, as a partition."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from sqlalchemy.engine import make_url

CHUNK = 65536


class Proxy:
    """Forwards connections to one server until `partition` is called, and again after `heal`."""

    def __init__(self, database_url: str) -> None:
        target = make_url(database_url)
        query = dict(target.query)
        folder = query.pop("host", None)
        self._folder = str(folder or target.host or "127.0.0.1")
        self._port = target.port or 5432
        self._forwards = threading.Event()
        self._forwards.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = target.set(host="127.0.0.1", port=port, query=query).render_as_string(hide_password=False)
        """The URL of the same database through the proxy."""
        threading.Thread(target=self._accept, daemon=True).start()

    def partition(self) -> None:
        """Stop forwarding. Connections stay open, and new ones are accepted and never answered."""
        self._forwards.clear()

    def heal(self) -> None:
        """Forward again, also what was sent meanwhile."""
        self._forwards.set()

    def close(self) -> None:
        """Close everything."""
        self.heal()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._sockets.append(client)
        self._forwards.wait()
        server = self._connect()
        self._sockets.append(server)
        threading.Thread(target=self._pump, args=[server, client], daemon=True).start()
        self._pump(client, server)

    def _connect(self) -> socket.socket:
        if not self._folder.startswith("/"):
            return socket.create_connection((self._folder, self._port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self._folder}/.s.PGSQL.{self._port}")
        return server

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._forwards.wait()
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(database_url: str) -> Iterator[Proxy]:
    """Run a proxy in front of this database."""
    proxy = Proxy(database_url)
    try:
        yield proxy
    finally:
        proxy.close()
