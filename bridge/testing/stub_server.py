"""Stub server: an HTTP server on loopback that returns a test's responses and records the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, parse_qsl, unquote, unquote_plus, urlsplit

HANG_SECONDS = 60.0  # longer than any timeout under test


@dataclass(frozen=True)
class Received:
    """A request that the server received."""

    method: str
    """`GET`, `POST`."""
    path: str
    """The path, still percent-encoded."""
    query: Mapping[str, str]
    """The query, decoded; of a repeated name the last value."""
    headers: Mapping[str, str]
    """Header names are lowercase."""
    body: bytes
    """The body as it was sent."""

    @property
    def json(self) -> Any:
        """Return the body parsed as JSON. Raise ValueError if it is not valid JSON."""
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, list[str]]:
        """Return the body parsed as a form."""
        return parse_qs(self.body.decode(), keep_blank_values=True)


@dataclass(frozen=True)
class Reply:
    """A response: status, headers and body (a string unchanged, anything else as JSON), or no response at all."""

    status: int = 200
    """HTTP status."""
    body: Any = None
    """A string is sent unchanged as HTML, anything else as JSON; None: no body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers besides Content-Type and Content-Length, which they replace."""
    drop: Literal["before", "after"] | None = None
    """Close the connection without a response, before or after the request takes effect."""
    hang: bool = False
    """Read the request and send no response until the client gives up."""
    wire: Callable[[], Iterable[bytes]] | None = None
    """Returns what is sent instead of a response, byte for byte, until the client disconnects."""
    pause: float = 0.0
    """Seconds before each part of `wire`."""


Handler = Callable[[Received], Reply]


@dataclass
class _DroppedWrite:
    """The response of a future request with a side effect."""

    reply: Reply
    takes_effect: bool
    path: str
    others_before: int
    """How many such requests are answered as usual before this one."""


class StubServer:
    """An HTTP server for one test; a context manager.

    `answer` defines the response of a path, `fail` makes the next requests fail; any other request gets a 404.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        """The received requests, oldest first."""
        self.otherwise = Reply(404, {"error": "not found"})
        """The response to requests that no `answer` matches."""
        self._answers: list[tuple[str, str, Handler]] = []
        self._failures: list[Reply] = []
        self._dropped: list[_DroppedWrite] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def answer(self, method: str, path: str, reply: Reply | Handler) -> None:
        """Set the response to `method` on `path` (a pattern such as `/tickets/*`). The newest match wins."""
        handler = reply if callable(reply) else lambda _: reply
        self._answers.insert(0, (method, path, handler))

    def fail(self, reply: Reply, *, times: int = 1) -> None:
        """Make the next `times` requests fail with `reply`. They take effect only if it has `drop="after"`."""
        self._failures += [reply] * times

    def drop_next_write(
        self,
        when: Literal["before", "after"],
        *,
        nth: int = 1,
        status: int | None = None,
        path: str = "*",
    ) -> None:
        """Close the connection of the nth next write, before or after it takes effect, or answer it with `status`.

        A write is a request to `path` (a pattern) that is not GET or HEAD. Searches before it are answered as usual.
        """
        reply = Reply(drop=when) if status is None else Reply(status, {"error": "unavailable"})
        self._dropped.append(_DroppedWrite(reply, when == "after", path, nth - 1))

    def received_text(self) -> str:
        """Return what the requests contain: paths, queries and bodies, with JSON and forms decoded."""
        return "\n".join(_decoded(request) for request in self.requests)

    def open_connections(self) -> int:
        """Return how many connections clients keep open."""
        return len(self._server.open_connections)

    def reply_to(self, request: Received) -> Reply:
        """Record a request and return its response. Requests are handled one at a time."""
        with self._lock:
            self.requests.append(request)
            failure = self._failures.pop(0) if self._failures else None
            takes_effect = failure is None or failure.drop == "after"
            dropped = self._dropped_write(request) if failure is None else None
            if dropped is not None:
                failure, takes_effect = dropped.reply, dropped.takes_effect
            if takes_effect:
                reply = self._answer(request)
        if failure is None:
            return reply
        if failure.hang:
            self._stopped.wait(HANG_SECONDS)
        return failure

    def _dropped_write(self, request: Received) -> _DroppedWrite | None:
        for dropped in self._dropped:
            if request.method not in ("GET", "HEAD") and fnmatchcase(request.path, dropped.path):
                if dropped.others_before == 0:
                    self._dropped.remove(dropped)
                    return dropped
                dropped.others_before -= 1
        return None

    def wait_until_stopped(self, seconds: float) -> bool:
        """Wait this many seconds; return True at once if the server stops."""
        return self._stopped.wait(seconds)

    def _answer(self, request: Received) -> Reply:
        for method, path, handler in self._answers:
            if method in ("*", request.method) and fnmatchcase(request.path, path):
                return handler(request)
        return self.otherwise


def _decoded(request: Received) -> str:
    body = request.body.decode("utf-8", "replace")
    if "json" in request.headers.get("content-type", ""):
        with suppress(ValueError):  # what is not JSON is shown as it was sent
            body = json.dumps(json.loads(body), ensure_ascii=False)
    elif "form" in request.headers.get("content-type", ""):
        body = unquote_plus(body)
    return f"{unquote(request.path)} {dict(request.query)} {body}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self.open_connections: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open_connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open_connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected."""

    def close_connections(self) -> None:
        """Close the connections that clients keep open between requests."""
        for request in list(self.open_connections):
            self.shutdown_request(request)


def _handler(stub: StubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            parts = urlsplit(self.path)
            reply = stub.reply_to(
                Received(
                    self.command,
                    parts.path,
                    dict(parse_qsl(parts.query, keep_blank_values=True)),
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(int(self.headers.get("Content-Length") or 0)),
                )
            )
            if reply.drop or reply.hang:
                self.close_connection = True
                self.connection.shutdown(SHUT_RDWR)
                return
            if reply.wire is not None:
                self.close_connection = True
                for part in reply.wire():
                    if stub.wait_until_stopped(reply.pause):
                        return
                    self.wfile.write(part)
                return
            body = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            content = b"" if reply.body is None else body.encode()
            content_type = "text/html" if isinstance(reply.body, str) else "application/json"
            self.send_response(reply.status)
            for name, value in {"Content-Type": content_type, "Content-Length": str(len(content))}.items():
                if name not in reply.headers:
                    self.send_header(name, value)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - names that http.server calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Do not write requests to the terminal."""

    return Handler
