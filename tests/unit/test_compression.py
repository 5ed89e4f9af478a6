"""Compression of stored bodies: nothing is lost, other bodies stay readable, and nothing decompresses without limit."""

from __future__ import annotations

import json
import random
import zlib

import pytest

from bridge.events import EVENT_TYPES
from bridge.samples import sample
from bridge.store.compression import MARK, MAX_SIZE, MIN_SIZE, compress, decompress


def long_body(name: str) -> bytes:
    turns = [{"role": "user", "content": f"Could you call me back at {hour} o'clock?"} for hour in range(100)]
    return json.dumps(sample(name) | {"transcript": turns}).encode()


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_long_body_is_read_back_byte_for_byte(name: str) -> None:
    body = long_body(name)
    stored = compress(body)
    assert decompress(stored) == body
    assert len(stored) < len(body) / 3
    assert compress(stored) == stored


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_short_body_is_stored_as_it_is(name: str) -> None:
    """A receiver under load would wait longer for it than writing it takes."""
    body = json.dumps(sample(name)).encode()
    assert len(body) < MIN_SIZE
    assert compress(body) == decompress(body) == body


def test_any_bytes_are_read_back_and_take_no_more_room() -> None:
    noise = random.Random(1).randbytes(5000)
    for body in (b"{}", b"", b" {} ", b"{" + noise, b'{"a": "%s"}' % noise.hex().encode()):
        assert decompress(compress(body)) == body
        assert len(compress(body)) <= len(body)


def test_body_larger_than_is_decompressed_is_stored_as_it_is() -> None:
    largest = b" " * MAX_SIZE
    assert len(compress(largest)) < MAX_SIZE / 100
    assert decompress(compress(largest)) == largest
    assert compress(largest + b" ") == largest + b" "


def test_nothing_is_decompressed_beyond_the_limit() -> None:
    with pytest.raises(ValueError, match="too large"):
        decompress(zlib.compress(b" " * (100 * MAX_SIZE)))


def test_damaged_body_is_an_error() -> None:
    stored = compress(long_body("call.completed"))
    flipped = stored[:500] + bytes([stored[500] ^ 1]) + stored[501:]
    for damaged in (stored[:-10], MARK, MARK + b"\xff" * 100, flipped):
        with pytest.raises(ValueError, match="damaged"):
            decompress(damaged)
