"""HTTP limits: bounds on the size and the duration of requests, enforced before the application runs.

uvicorn alone accepts headers of any size and waits for a body forever. Here, every connection that waits for its
client has a deadline, and the bytes that it holds count toward the limit of all connections.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bridge.cli.connection_limits import ConnectionLimits
from bridge.web.headers import PLAIN_HEADERS

MAX_HEADERS: Final = 64 * 1024
"""Maximum bytes of a request line and its headers; those of Heppu take less than 1 KiB."""
MAX_PIPELINED: Final = 1000
"""Maximum requests that a client may send ahead on one connection. HTTP clients send one at a time."""
MAX_DRAINED: Final = 2 * 1024 * 1024
"""Maximum bytes of a body that are discarded after the response, so that the client gets to read the response."""
REQUEST_SECONDS = 30.0
"""Maximum time for receiving a request: headers and body. Heppu waits that long for a response."""
WRITE_SECONDS = 30.0
"""Maximum time for which a client may not read its response."""
DRAIN_SECONDS = 2.0
"""Maximum time for the rest of a body whose request has been answered."""
CLOSE_SECONDS = 2.0
"""Maximum time for sending the rest of a response before a connection is closed."""
_NEVER: Final = float("inf")
_CYCLE_BYTES: Final = 2048
"""Approximate memory of a request without its content, which counts as well."""


def _response(status: int, message: str) -> bytes:
    body = json.dumps({"error": message}).encode()
    headers = [
        *PLAIN_HEADERS,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *([(b"retry-after", b"5")] if status == 503 else []),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, HTTPStatus(status).phrase.encode(), lines, body)


_RESPONSES: Final = {
    400: _response(400, "not a valid HTTP request"),
    408: _response(408, "request not received in time"),
    431: _response(431, "request headers too large"),
    503: _response(503, "too many requests; try again later"),
}


class BoundedProtocol(HttpToolsProtocol):
    """One connection: uvicorn's HTTP protocol with limits."""

    def __init__(self, limits: ConnectionLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self.bytes_held = 0
        """Bytes of the requests that are being received or answered."""
        self.deadline = _NEVER
        """Time of the event loop at which `on_deadline` is called."""
        self._group: dict[BoundedProtocol, None] | None = None
        self._header_bytes = 0
        self._drained_bytes = 0
        self._is_receiving = False
        self._in_headers = True
        self._is_stalled = False
        self._running: RequestResponseCycle | None = None

    @property
    def is_evictable(self) -> bool:
        """True unless the connection only waits for the response to one complete request."""
        return self._group is not None or bool(self.pipeline)

    # Events of the transport
    def connection_made(self, transport: Any) -> None:
        """Start the deadline of the first request, or refuse the connection if there are too many."""
        super().connection_made(transport)
        if self._limits.admit(self):
            self._enter(self._limits.unfinished)
            self._set_deadline(REQUEST_SECONDS)
        else:
            self.refuse(503, "too_many_connections", f"{self._limits.max_connections} connections are open")

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything, and tell the application."""
        self._enter(None)
        self._limits.open.pop(self, None)
        self._release()
        self.pipeline.clear()
        self._disconnect(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data. Reject a malformed request, and one that would exceed the memory budget."""
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if self._is_draining:
            self._drained_bytes += len(data)
            if self._drained_bytes > MAX_DRAINED:
                self._close()
                return
        else:
            self._hold(len(data))
        if self._in_headers:
            self._header_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as a usual request
        except httptools.HttpParserError:
            self.refuse(400, "bad_request", "not a valid HTTP request")
            return
        if self._in_headers and self._header_bytes > MAX_HEADERS:
            self.refuse(431, "headers_too_large", f"the headers have more than {MAX_HEADERS} bytes")
        elif self._limits.bytes_held > self._limits.max_bytes:
            self._limits.make_room(self)

    def pause_writing(self) -> None:
        """Start the deadline of a client that does not read its response."""
        super().pause_writing()
        self._is_stalled = True
        self._update_deadline()

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._is_stalled = False
        self._update_deadline()

    # Events of the parser
    def on_message_begin(self) -> None:
        """Start the deadline of a request."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise httptools.HttpParserError("too many pipelined requests")
        super().on_message_begin()
        self._is_receiving = True
        self._hold(_CYCLE_BYTES)
        self._update_deadline()

    def on_headers_complete(self) -> None:
        """Let the application take over."""
        self._in_headers, self._header_bytes, self._drained_bytes = False, 0, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the deadline: from now on, the client waits for the server."""
        self._is_receiving, self._in_headers = False, True
        super().on_message_complete()
        self._update_deadline()

    # Events of the application
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that the application did not read."""
        super().on_response_complete()
        if self._is_answered:
            self._release()
        self._update_deadline()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that uvicorn cannot parse."""
        self.refuse(400, "bad_request", msg)

    # Refusals and deadlines
    def refuse(self, status: int, kind: str, detail: str) -> None:
        """Answer the request that is being received, unless another response is due first, and close the connection."""
        is_idle = self._group is self._limits.idle
        if not is_idle:
            scope: Any = self.scope or {"client": self.client}
            self._limits.rejection_log.report(kind, "request rejected", scope, status=status, detail=detail)
        is_next = self._is_answered or (self.cycle is self._running and not self.cycle.response_started)
        if is_next and not (is_idle or self._is_draining or self._is_stalled):
            self.transport.write(_RESPONSES[status])
        self._close()

    def on_deadline(self) -> None:
        """Close the connection because the client took too long."""
        if self.transport.is_closing():
            self.transport.abort()
        elif self._is_receiving and not self._is_draining:
            self.refuse(408, "too_slow", f"request not received within {REQUEST_SECONDS:.0f} s")
        else:
            self._close()

    def _close(self) -> None:
        self._enter(None)
        self._disconnect(self._running)
        self.pipeline.clear()
        self._release()
        if self._is_stalled:
            self.transport.abort()
        else:
            self.transport.close()
        self._set_deadline(CLOSE_SECONDS)

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle | None) -> None:
        """Tell the application that the client is gone. uvicorn tells only the last one of pipelined requests."""
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    @property
    def _is_answered(self) -> bool:
        """True if no request waits for its response."""
        return self.cycle is None or bool(self.cycle.response_complete)

    @property
    def _is_draining(self) -> bool:
        return self._is_receiving and not self._in_headers and self._is_answered

    def _update_deadline(self) -> None:
        """Start the deadline of what the connection waits for now."""
        limits = self._limits
        if self.transport.is_closing():
            self._set_deadline(WRITE_SECONDS)
        elif self._is_stalled:
            self._enter(limits.unfinished)
            self._set_deadline(WRITE_SECONDS)
        elif self._is_draining:
            self._enter(limits.unfinished)
            self._set_deadline(DRAIN_SECONDS)
        elif self._is_receiving and (
            self._is_answered or (not self._in_headers and self.cycle is self._running)
        ):
            self._enter(limits.unfinished)
            self._set_deadline(REQUEST_SECONDS)
        elif self._is_answered:
            self._enter(limits.idle)
            self._set_deadline(self.timeout_keep_alive)
        else:  # the client waits for a response
            self._enter(None)
            self.deadline = _NEVER

    def _enter(self, group: dict[BoundedProtocol, None] | None) -> None:
        if self._group is not group:
            if self._group is not None:
                del self._group[self]
            self._group = group
            if group is not None:
                group[self] = None

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def _hold(self, size: int) -> None:
        self.bytes_held += size
        self._limits.bytes_held += size

    def _release(self) -> None:
        self._limits.bytes_held -= self.bytes_held
        self.bytes_held = 0
