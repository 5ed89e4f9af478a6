"""Event cache: bounded, and each database has its own."""

from __future__ import annotations

import pytest

from bridge.clock import Clock
from bridge.events import Event
from bridge.store import event_cache
from bridge.store.database import Database
from bridge.store.event_cache import MAX_BODY_BYTES, EventCache


def event(event_id: str) -> Event:
    return Event({}, event_id, Clock().now(), event_id)


def test_oldest_events_are_removed_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_cache, "MAX_EVENTS", 2)
    cache = EventCache()
    for event_id in "abc":
        cache.add([(event(event_id), 100)])
    assert cache.find(["a", "b", "c"]).keys() == {"b", "c"}


def test_large_event_is_not_cached() -> None:
    cache = EventCache()
    cache.add([(event("a"), MAX_BODY_BYTES), (event("b"), MAX_BODY_BYTES + 1)])
    assert cache.find(["a", "b"]).keys() == {"a"}


def test_databases_do_not_share_events() -> None:
    first, second = Database("sqlite://"), Database("sqlite://")
    first.event_cache.add([(event("a"), 100)])
    assert not second.event_cache.find(["a"])
    first.close()
    second.close()
