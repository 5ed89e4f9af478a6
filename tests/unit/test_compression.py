"""Compression of stored bodies: nothing is lost, old bodies stay readable, and nothing decompresses without limit."""

from __future__ import annotations

import hashlib
import json
import random
import zlib

import pytest

from bridge.events import EVENT_TYPES, HEPPU_EVENTS
from bridge.samples import sample
from bridge.store.compression import MARK, MAX_SIZE, compress, decompress


def compact(name: str) -> bytes:
    return json.dumps(sample(name), ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_sample_is_read_back_byte_for_byte(name: str) -> None:
    for body in (
        compact(name),
        json.dumps(sample(name)).encode(),
        json.dumps(sample(name), indent=2).encode(),
    ):
        stored = compress(body)
        assert decompress(stored) == body
        assert len(stored) < 0.6 * len(body)
        assert compress(stored) == stored


@pytest.mark.parametrize("name", HEPPU_EVENTS)
def test_dictionary_contains_what_most_bodies_contain(name: str) -> None:
    body = compact(name)
    assert len(compress(body)) < 0.75 * len(zlib.compress(body))


def test_dictionary_never_changes() -> None:
    """It belongs to the format. This stored body repeats all of it."""
    repeated = decompress(bytes.fromhex("01434a67a3f5df68fd375aff8dd67fa3f5df68fd3762ea3f00"))
    assert hashlib.sha256(repeated).hexdigest() == (
        "04a043665b2bebfd60b00bedbfafe67a95f792a80351e40cbe3736b68412aa7d"
    )


def test_any_bytes_are_read_back_and_take_no_more_room() -> None:
    noise = random.Random(1).randbytes(1000)
    for body in (b"{}", b"", b" {} ", b"{" + noise, b'{"a": "%s"}' % noise.hex().encode()):
        assert decompress(compress(body)) == body
        assert len(compress(body)) <= len(body)


def test_body_from_before_compression_stays_readable() -> None:
    assert decompress(compact("call.busy")) == compact("call.busy")


def test_body_larger_than_is_decompressed_is_stored_as_it_is() -> None:
    largest = b" " * MAX_SIZE
    assert len(compress(largest)) < MAX_SIZE / 100
    assert decompress(compress(largest)) == largest
    assert compress(largest + b" ") == largest + b" "


def test_nothing_is_decompressed_beyond_the_limit() -> None:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = MARK + compressor.compress(b" " * (100 * MAX_SIZE)) + compressor.flush()
    with pytest.raises(ValueError, match="too large"):
        decompress(bomb)


def test_damaged_body_is_an_error() -> None:
    stored = compress(compact("call.completed"))
    for damaged in (stored[:-10], MARK, MARK + b"\xff" * 100):
        with pytest.raises(ValueError, match="damaged"):
            decompress(damaged)
