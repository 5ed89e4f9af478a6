"""Responses that a client has to survive: without end, far too large, or sent byte by byte."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from functools import cache

from starlette.types import Receive, Scope, Send

from bridge.sandbox.faults import HostileResponse

DRIP_SECONDS = 0.1
"""Seconds between two bytes."""
HUGE_BYTES = 700 * 1000 * 1000
HUGE_HEADER_BYTES = 8 * 1024 * 1024
_MEBIBYTE = 1024 * 1024
_BLOCK = b" " * 65536


async def send_hostile(
    kind: HostileResponse, status: int, scope: Scope, receive: Receive, send: Send
) -> None:
    """Send such a response until it is complete or the client disconnects, and close the connection."""
    disconnected = asyncio.ensure_future(wait_for_disconnect(receive))
    try:
        if kind == "drips_headers":
            transport = scope["state"]["transport"]
            transport.write(b"HTTP/1.1 %d OK\r\nX-Filler: " % status)
            async for part in _parts("drips", disconnected):
                transport.write(part)
            transport.abort()
            await disconnected
            return
        headers = [(b"content-type", b"application/json"), *_headers(kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        async for part in _parts(kind, disconnected):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        disconnected.cancel()


def _headers(kind: HostileResponse) -> list[tuple[bytes, bytes]]:
    match kind:
        case "huge":
            return [(b"content-length", b"%d" % HUGE_BYTES)]
        case "huge_headers":
            return [(b"x-filler", b"x" * HUGE_HEADER_BYTES)]
        case "gzip_bomb":
            return [(b"content-encoding", b"gzip")]
        case _:
            return []


async def _parts(kind: HostileResponse, disconnected: asyncio.Future[None]) -> AsyncIterator[bytes]:
    """Yield the body. Its blocks are spaces, with which JSON may begin."""
    sent = 0
    while not disconnected.done():
        match kind:
            case "huge_headers":
                return
            case "gzip_bomb":
                yield _gzip_bomb()
                return
            case "drips":
                yield b"1"
                await asyncio.wait([disconnected], timeout=DRIP_SECONDS)
            case _:
                block = _BLOCK[: HUGE_BYTES - sent] if kind == "huge" else _BLOCK
                if not block:
                    return
                yield block
                sent += len(block)
                await asyncio.sleep(0)


@cache
def _gzip_bomb() -> bytes:
    """Return 1 MB that decompresses to 1 GB: the same compressed mebibyte, again and again."""
    compressor = zlib.compressobj(9, wbits=31)
    first, other = (
        compressor.compress(b" " * _MEBIBYTE) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + other * 1023


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
