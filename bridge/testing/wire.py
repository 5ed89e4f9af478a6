"""Responses that a connector must survive: they come byte by byte, have no end, or are far too large."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator

from bridge.testing.stub_server import Reply

DRIP_SECONDS = 0.02
"""Seconds between two bytes."""
_KILOBYTES = 64 * 1024
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def _drip(start: bytes) -> Iterator[bytes]:
    """Yield the start at once, and then single bytes without end."""
    yield start
    yield from itertools.repeat(b"1")


def _endless(*start: bytes, part: bytes = b" " * _KILOBYTES) -> Iterator[bytes]:
    yield from start
    yield from itertools.repeat(part)


def _gzip_bomb() -> Iterator[bytes]:
    """Yield a response of 1 MB that decompresses to 1 GB."""
    compressor = zlib.compressobj(9, wbits=31)
    block = compressor.compress(b" " * _KILOBYTES * 16) + compressor.flush(zlib.Z_FULL_FLUSH)
    rest = compressor.compress(b" " * _KILOBYTES * 16) + compressor.flush(zlib.Z_FULL_FLUSH)
    body = block + rest * 1023
    yield _OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    yield body


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


HOSTILE_RESPONSES: dict[str, Reply] = {
    "drips its headers": Reply(wire=lambda: _drip(_OK + b"X-Filler: "), pause=DRIP_SECONDS),
    "drips its body": Reply(wire=lambda: _drip(_OK + b"Content-Length: 100000\r\n\r\n"), pause=DRIP_SECONDS),
    "has no end": Reply(
        wire=lambda: _endless(_OK + b"Transfer-Encoding: chunked\r\n\r\n", part=_chunk(b" " * _KILOBYTES))
    ),
    "has no length and no end": Reply(wire=lambda: _endless(_OK + b"Connection: close\r\n\r\n")),
    "announces 700 MB": Reply(wire=lambda: _endless(_OK + b"Content-Length: 700000000\r\n\r\n")),
    "has headers without end": Reply(wire=lambda: _endless(_OK, part=b"X-Filler: %s\r\n" % (b"x" * 8000))),
    "is interim without end": Reply(wire=lambda: _endless(part=b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
    "is a gzip bomb": Reply(wire=_gzip_bomb),
}
"""Each answers 200. None of them is a provider's confirmation."""
