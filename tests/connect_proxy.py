"""A real HTTP proxy on 127.0.0.1 that opens tunnels (CONNECT), each to one local server whatever the host."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 65536
USER, PASSWORD = "bridge", "p@ss word"


class ConnectProxy:
    """Counts the tunnels, and can refuse them or never answer."""

    def __init__(self, target_port: int) -> None:
        self.tunnels: list[str] = []
        """`host:port` of each request, in order."""
        self.answers = True
        self._target_port = target_port
        self._expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://{USER}:p%40ss%20word@127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Close everything."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                received = client.recv(CHUNK)
                if not received:
                    return
                head += received
            lines = head.decode("latin-1").split("\r\n")
            self.tunnels.append(lines[0].split(" ")[1])
            if not self.answers:
                return
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            if headers.get("proxy-authorization", "") != f"basic {self._expected}".lower():
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            self._sockets.append(server)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=_pump, args=[server, client], daemon=True).start()
            _pump(client, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def connect_proxy(target_port: int) -> Iterator[ConnectProxy]:
    """Run a proxy whose tunnels all lead to this port of 127.0.0.1."""
    proxy = ConnectProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
