"""Ingest priority: only a burst of events makes other work pause, and only for a moment."""

from __future__ import annotations

import threading
import time

import pytest

from bridge.store import ingest_priority
from bridge.store.ingest_priority import BURST_SIZE, PAUSE_SECONDS, IngestPriority


def pause(priority: IngestPriority, stopping: threading.Event | None = None) -> float:
    """Return the seconds for which work pauses."""
    started_at = time.monotonic()
    priority.pause_if_busy(stopping or threading.Event())
    return time.monotonic() - started_at


def test_burst_causes_a_pause() -> None:
    priority = IngestPriority()
    priority.note_ingest(BURST_SIZE)
    assert pause(priority) >= PAUSE_SECONDS


def test_single_events_cause_no_pause() -> None:
    priority = IngestPriority()
    for _ in range(100):
        priority.note_ingest(1)
    assert min(pause(priority) for _ in range(5)) < PAUSE_SECONDS / 2  # other processes can delay one


def test_burst_is_over_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    priority = IngestPriority()
    priority.note_ingest(BURST_SIZE)
    later = ingest_priority.uptime() + ingest_priority.BURST_SECONDS
    monkeypatch.setattr(ingest_priority, "uptime", lambda: later)
    assert min(pause(priority) for _ in range(5)) < PAUSE_SECONDS / 2  # other processes can delay one


def test_stop_ends_the_pause() -> None:
    priority, stopping = IngestPriority(), threading.Event()
    priority.note_ingest(BURST_SIZE)
    stopping.set()
    assert min(pause(priority, stopping) for _ in range(5)) < PAUSE_SECONDS / 2
