"""Response limits: how long and how large a provider's response may be, whichever transport reads it.

The timeout of a socket limits each wait for a byte. Without these limits, a provider that sends one byte every few
seconds would occupy a thread for days, and a response without end would fill the memory. Compressed responses are never
decompressed, because a few of their bytes can stand for megabytes: requests ask for none.
"""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from bridge.clock import uptime
from bridge.connector.deadline import attempt_limit, check_deadline, remaining_seconds

READ_SECONDS = 10.0
"""Wait for the next byte, unless the connector sets another limit."""
MAX_RESPONSE_SECONDS = 30.0
"""Total time of a response outside an attempt."""
MAX_RESPONSE_BYTES = 5 * 1024 * 1024
"""Size of a response as received, with its headers."""
_SEND_BYTES = 4096
"""Few enough that the deadline is checked often, even if the provider reads slowly."""
MIN_TIMEOUT = 0.01
"""Seconds. A timeout of 0 would make the socket non-blocking."""


class IncompleteResponse(OSError):
    """The request was sent, and its response was not read completely."""


class ResponseOverdue(IncompleteResponse, TimeoutError):
    """The response was not complete in time."""


def overdue_text(seconds: float) -> str:
    """Return what is said of a response that was not complete after this time."""
    return f"no complete response within {round(seconds) or round(seconds, 1):g} s"


class ResponseTooLarge(IncompleteResponse):
    """The response has more bytes than its limit."""

    def __init__(self, max_bytes: int) -> None:
        kibibytes = max_bytes // 1024
        size = f"{kibibytes} KiB" if kibibytes < 1024 else f"{kibibytes // 1024} MiB"
        super().__init__(f"the response exceeds {size}")


class ResponseLimits:
    """The time and the bytes that one response has left."""

    def __init__(self, idle_seconds: float, max_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self._idle_seconds = idle_seconds
        self._max_bytes = max_bytes
        self._total_seconds = attempt_limit(MAX_RESPONSE_SECONDS)
        self._until = uptime() + remaining_seconds(MAX_RESPONSE_SECONDS)
        self._bytes = 0

    def timeout(self, idle_seconds: float | None = None) -> float:
        """Return the timeout of the next wait in seconds. Raise ResponseOverdue if no time is left."""
        if idle_seconds is not None:
            self._idle_seconds = idle_seconds
        left = self._until - uptime()
        if left <= 0:
            raise self.overdue()
        return max(MIN_TIMEOUT, min(self._idle_seconds, left))

    def overdue(self) -> ResponseOverdue:
        """Return the error for a wait that timed out."""
        seconds = self._total_seconds if uptime() >= self._until else self._idle_seconds
        return ResponseOverdue(overdue_text(seconds))

    def count(self, received: int) -> None:
        """Count received bytes. Raise ResponseTooLarge if they are too many."""
        self._bytes += received
        if self._bytes > self._max_bytes:
            raise ResponseTooLarge(self._max_bytes)


class _LimitedSocketReader(io.RawIOBase):
    """Reads from a socket within the limits of one response."""

    def __init__(self, sock: socket.socket, idle_seconds: float, max_bytes: int) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until this is closed
        self._idle_seconds = idle_seconds
        self._max_bytes = max_bytes
        self.start_response()

    def start_response(self) -> None:
        self.limits = ResponseLimits(self._idle_seconds, self._max_bytes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self.limits.timeout())
        try:
            received = self._raw.readinto(buffer)
        except TimeoutError as error:
            raise self.limits.overdue() from error
        self.limits.count(received or 0)
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class ResponseReader(io.BufferedReader):
    """Reads a provider's responses from a socket, each within its limits, for protocols other than HTTP.

    `idle_seconds` limits the wait for the next byte. The errors are IncompleteResponse.
    """

    raw: _LimitedSocketReader
    """The bytes of the socket, with the limits of one response."""

    def __init__(
        self, sock: socket.socket, idle_seconds: float = READ_SECONDS, max_bytes: int = MAX_RESPONSE_BYTES
    ) -> None:
        super().__init__(_LimitedSocketReader(sock, idle_seconds, max_bytes))

    def start_response(self) -> None:
        """Start the limits of the next response."""
        self.raw.start_response()


class LimitedHttpResponse(http.client.HTTPResponse):
    """A response of http.client, and so of urllib3 and requests, within its limits and never decompressed."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = ResponseReader(sock, sock.gettimeout() or READ_SECONDS)

    def begin(self) -> None:
        """Read the headers."""
        super().begin()
        del self.headers["Content-Encoding"]
        if (self.length or 0) > MAX_RESPONSE_BYTES:
            raise ResponseTooLarge(MAX_RESPONSE_BYTES)  # before memory is reserved for it


def parts_to_send(sock: socket.socket, data: bytes, seconds: float = READ_SECONDS) -> Iterator[bytes]:
    """Yield the data in parts, each with the socket's timeout set to at most `seconds`.

    Raise TransientError if the deadline passes before the last part, because an incomplete request has no effect.
    """
    for part in in_parts(data):
        check_deadline()
        sock.settimeout(max(MIN_TIMEOUT, remaining_seconds(seconds)))
        yield part


def in_parts(data: bytes) -> Iterable[bytes]:
    """Yield the data in parts that are sent one after the other."""
    return (data[start : start + _SEND_BYTES] for start in range(0, len(data), _SEND_BYTES))
