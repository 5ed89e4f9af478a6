"""A worker that was stopped for a while knows it, and what a long outage is said like."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import structlog

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.worker import error_backoff as trouble
from bridge.worker import stall_detector
from bridge.worker.error_backoff import patience
from bridge.worker.stall_detector import Pulse


@pytest.fixture
def beating() -> Iterator[Pulse]:
    found = Pulse()
    found.start()
    yield found
    found.stop()


def test_who_gets_time_was_not_stopped(beating: Pulse) -> None:
    begun = uptime()
    time.sleep(2 * stall_detector.BEAT)
    assert not beating.stopped_since(begun)


def test_who_got_no_time_for_a_while_was_stopped(beating: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = uptime()
    monkeypatch.setattr(stall_detector, "uptime", lambda: uptime() + 60)  # as after a SIGSTOP of a minute
    assert beating.stopped_since(begun)  # before the first beat
    time.sleep(2 * stall_detector.BEAT)
    assert beating.stopped_since(begun)  # and after it
    assert not beating.stopped_since(stall_detector.uptime())


def test_a_long_outage_is_said_once_a_minute_and_so_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "AFTER_TROUBLE", 0.0)
    stopping = threading.Event()
    with structlog.testing.capture_logs() as logs:
        for second in (0.0, 1.0, 2.0, 61.0, 62.0):
            monkeypatch.setattr(trouble, "uptime", lambda at=second: at)
            with patience("tester", stopping):
                raise StoreUnavailable("away")
        for _ in range(2):
            with patience("tester", stopping):
                pass
    assert [entry["event"] for entry in logs] == [
        "the database cannot be used", "the database cannot be used", "the database is back",
    ]  # fmt: skip
    assert logs[-1]["seconds"] == 62
