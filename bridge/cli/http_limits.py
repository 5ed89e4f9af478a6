"""HTTP limits: bounds on the size and the duration of request headers, enforced before the application runs."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 64 * 1024
"""Maximum bytes of a request line and its headers; those of Heppu take less than 1 KiB."""
HEADER_SECONDS = 30.0
"""Maximum time for receiving the headers."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits; uvicorn alone accepts headers of any size for any length of time."""

    _timer: asyncio.TimerHandle | None = None
    _received = 0
    _in_headers = True

    def connection_made(self, transport: Any) -> None:
        """Start the header timeout of the first request."""
        super().connection_made(transport)
        self._start_header_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the header timeout."""
        self._cancel_header_timeout()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data. Answer 400 if the headers are too large."""
        if self._in_headers:
            self._received += len(data)
        super().data_received(data)
        if self._in_headers and self._received > MAX_HEADERS and not self.transport.is_closing():
            self.send_400_response("Request headers too large.")

    def on_message_begin(self) -> None:
        """Start the header timeout of the next request on a keep-alive connection."""
        super().on_message_begin()
        self._start_header_timeout()

    def on_headers_complete(self) -> None:
        """Cancel the header timeout; the application takes over."""
        self._cancel_header_timeout()
        super().on_headers_complete()

    def _start_header_timeout(self) -> None:
        self._in_headers = True
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._on_timeout)

    def _cancel_header_timeout(self) -> None:
        self._in_headers, self._received = False, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
