"""HTTP with bounds on what a stranger may send before anything of ours runs: headers, and the time for them."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 64 * 1024
"""Bytes of a request line and its headers; Heppu's take less than one KiB."""
HEADER_SECONDS = 30.0
"""How long a connection may take for them."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, which by itself takes headers of any size for as long as they trickle in."""

    _timer: asyncio.TimerHandle | None = None
    _received = 0
    _in_headers = True

    def connection_made(self, transport: Any) -> None:
        """Expect a request's headers in time."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; turn away who sends headers without end."""
        if self._in_headers:
            self._received += len(data)
        super().data_received(data)
        if self._in_headers and self._received > MAX_HEADERS and not self.transport.is_closing():
            self.send_400_response("Request headers too large.")

    def on_message_begin(self) -> None:
        """The next request on a kept connection has begun."""
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        """From here on the application decides."""
        self._headers_came()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        self._in_headers = True
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _headers_came(self) -> None:
        self._in_headers, self._received = False, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
