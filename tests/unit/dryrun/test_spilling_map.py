"""The map of dry runs that keeps what was not changed lately in a temporary file."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dryrun import spilling_map
from bridge.dryrun.spilling_map import SpillingMap, TemporaryFileFailed


@given(st.lists(st.tuples(st.integers(0, 20), st.integers())), st.integers(2, 8))
def test_map_has_what_was_set_last_whether_in_memory_or_not(changes, in_memory):
    spilling, expected = SpillingMap[int](in_memory), dict[int, int]()
    for key, value in changes:
        assert spilling.get(key) == expected.get(key)
        spilling.set(key, value)
        expected[key] = value
    assert {key: spilling.get(key) for key in range(21)} == {key: expected.get(key) for key in range(21)}
    assert len(spilling._recent) <= in_memory


def test_key_that_was_never_set_needs_no_query():
    spilling, queries = SpillingMap[int](2), list[str]()
    for key in range(10):
        spilling.set(key, key)
    spilling._file.set_trace_callback(queries.append)
    assert [spilling.get(key) for key in (0, 100, 101)] == [0, None, None]
    assert len(queries) == 1


def test_full_disk_is_named_with_what_to_do(monkeypatch):
    class FullDisk(sqlite3.Connection):
        def executemany(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(spilling_map.sqlite3, "connect", lambda *_, **__: FullDisk(":memory:"))
    spilling = SpillingMap[int](2)
    spilling.set(1, 1)
    spilling.set(2, 2)
    with pytest.raises(TemporaryFileFailed, match=r"disk is full.*set SQLITE_TMPDIR"):
        spilling.set(3, 3)
