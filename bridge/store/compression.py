"""Compression of long bodies, such as those with a transcript.

A compressed body begins with a byte with which JSON never begins, so what is stored uncompressed is readable as it is.
"""

from __future__ import annotations

import zlib
from typing import Final

MIN_SIZE: Final = 2048
"""Bytes. zlib gives up the interpreter's lock, and a busy receiver waits up to half a millisecond to get it back. For
shorter bodies, that costs more than it saves: see docs/decisions/0087-compressed-bodies.md."""
MAX_SIZE: Final = 1024 * 1024
"""Bytes. The receiver accepts no larger body, so nothing larger is decompressed. What the bridge itself makes and is
larger, is stored as it is."""
MARK: Final = b"x"
"""The first byte of zlib's format."""
_LEVEL: Final = 1
"""Level 3 makes bodies 4 % smaller and takes a quarter longer for 20 KB."""


def compress(body: bytes) -> bytes:
    """Return a body as it is stored. One that is compressed already, or that would not get smaller, stays as it is."""
    if not MIN_SIZE <= len(body) <= MAX_SIZE or body.startswith(MARK):
        return body
    compressed = zlib.compress(body, _LEVEL)
    return compressed if len(compressed) < len(body) else body


def decompress(stored: bytes) -> bytes:
    """Return the body of a stored one. Raise ValueError if it is damaged."""
    if not stored.startswith(MARK):
        return stored
    decompressor = zlib.decompressobj()
    try:
        body = decompressor.decompress(stored, MAX_SIZE + 1)
    except zlib.error as error:
        raise ValueError(f"a stored body is damaged: {error}") from None
    if not decompressor.eof or len(body) > MAX_SIZE:
        raise ValueError("a stored body is damaged: it is incomplete or too large")
    return body
