"""Event cache: the events that this process parsed last, because each is routed and claimed within moments."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final

from bridge.events import Event

MAX_EVENTS: Final = 2000
MAX_BODY_BYTES: Final = 16_384
"""The size of the largest cached event; all of them take a few dozen MiB at most."""


class EventCache:
    """The newest parsed events by ID. Its methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: OrderedDict[str, Event] = OrderedDict()

    def add(self, events: Iterable[tuple[Event, int]]) -> None:
        """Add events, each with the size of its body, and remove the oldest ones if there are too many."""
        with self._lock:
            self._events.update((event.id, event) for event, size in events if size <= MAX_BODY_BYTES)
            while len(self._events) > MAX_EVENTS:
                self._events.popitem(last=False)

    def find(self, event_ids: Collection[str]) -> dict[str, Event]:
        """Return those of these events that are cached, by ID."""
        with self._lock:
            return {event_id: self._events[event_id] for event_id in event_ids if event_id in self._events}
