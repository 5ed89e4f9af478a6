"""The stall detector notices a suspended process; a background thread logs a long outage once a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import structlog

from bridge.clock import uptime
from bridge.errors import StoreUnavailable
from bridge.worker import background_thread, stall_detector
from bridge.worker.background_thread import BackgroundThread
from bridge.worker.stall_detector import StallDetector


class IdleThread(BackgroundThread):
    def run(self) -> None:
        """Do nothing."""


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Iterator[StallDetector]:
    monkeypatch.setattr(stall_detector, "BEAT_INTERVAL", 0.1)
    detector = StallDetector()
    detector.start()
    yield detector
    detector.stop()


def test_running_process_is_not_reported_stalled(detector: StallDetector) -> None:
    start = uptime()
    time.sleep(2 * stall_detector.BEAT_INTERVAL)
    assert not detector.was_stalled_since(start)


def test_suspended_process_is_reported_stalled(
    detector: StallDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = uptime()
    monkeypatch.setattr(stall_detector, "uptime", lambda: uptime() + 60)  # as after a SIGSTOP of a minute
    assert detector.was_stalled_since(start)  # before the first beat
    time.sleep(2 * stall_detector.BEAT_INTERVAL)
    assert detector.was_stalled_since(start)  # and after it
    assert not detector.was_stalled_since(stall_detector.uptime())


def test_long_outage_is_logged_once_a_minute_and_so_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_thread, "RETRY_DELAY", 0.0)
    thread = IdleThread("tester")
    with structlog.testing.capture_logs() as logs:
        for second in (0.0, 1.0, 2.0, 61.0, 62.0):
            monkeypatch.setattr(background_thread, "uptime", lambda at=second: at)
            with thread.survive_errors():
                raise StoreUnavailable("away")
        for _ in range(2):
            with thread.survive_errors():
                pass
    assert [entry["event"] for entry in logs] == [
        "database unavailable", "database unavailable", "database available again",
    ]  # fmt: skip
    assert logs[-1]["seconds"] == 62
