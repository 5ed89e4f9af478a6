"""SQLite write queue: the processes that write to one SQLite file take turns."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.store import sqlite_write_queue
from bridge.store.sqlite_write_queue import SqliteWriteQueue

_BUSY_WRITER = """
import sys, time
from pathlib import Path
from bridge.store.sqlite_write_queue import SqliteWriteQueue
queue = SqliteWriteQueue(Path(sys.argv[1]))
while True:
    with queue.acquire():
        print("acquired", flush=True)
        exec(sys.argv[2], globals())
"""


@contextmanager
def busy_writer(database: Path, work: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that acquires the queue again and again and runs `work` each time; it holds the queue at the start."""
    process = subprocess.Popen(
        [sys.executable, "-c", _BUSY_WRITER, str(database), work], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"acquired\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate(timeout=10)


def _longest_wait(queue: SqliteWriteQueue, times: int, work: Callable[[], None] = lambda: None) -> float:
    longest = 0.0
    for _ in range(times):
        started = time.monotonic()
        with queue.acquire():
            longest = max(longest, time.monotonic() - started)
            work()
        time.sleep(0.005)
    return longest


def test_busy_writer_admits_others_after_each_transaction(tmp_path: Path) -> None:
    queue = SqliteWriteQueue(tmp_path / "bridge.db")
    with busy_writer(tmp_path / "bridge.db", "time.sleep(0.05)"):
        # Each wait lasts for one transaction of the other process, which a busy machine delays.
        assert 0.001 < _longest_wait(queue, 20) < sqlite_write_queue.MAX_WAIT_SECONDS / 2
    assert _longest_wait(queue, 1) < sqlite_write_queue.MAX_WAIT_SECONDS / 2


def test_two_processes_never_hold_the_queue_simultaneously(tmp_path: Path) -> None:
    queue, marker = SqliteWriteQueue(tmp_path / "bridge.db"), tmp_path / "marker"
    exclusive = f"import os; os.mkdir({str(marker)!r}); time.sleep(0.002); os.rmdir({str(marker)!r})"
    with busy_writer(tmp_path / "bridge.db", exclusive) as process:

        def work() -> None:
            marker.mkdir()  # raises if the other process holds the queue
            time.sleep(0.002)
            marker.rmdir()

        _longest_wait(queue, 100, work)
        assert process.poll() is None, "the other process met this one inside the queue"


def test_frozen_holder_delays_others_by_the_maximum_wait_only(tmp_path: Path) -> None:
    queue = SqliteWriteQueue(tmp_path / "bridge.db")
    with busy_writer(tmp_path / "bridge.db", "time.sleep(0.3)") as process:
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with queue.acquire():
            waited = time.monotonic() - started
        limit = sqlite_write_queue.MAX_WAIT_SECONDS
        assert limit - 0.1 < waited < limit + 5


def test_lock_is_released_when_holder_dies(tmp_path: Path) -> None:
    queue = SqliteWriteQueue(tmp_path / "bridge.db")
    with busy_writer(tmp_path / "bridge.db", "time.sleep(30)") as process:
        process.kill()
        process.wait()
        assert _longest_wait(queue, 1) < sqlite_write_queue.MAX_WAIT_SECONDS / 2


def test_missing_directory_disables_write_queue(tmp_path: Path) -> None:
    queue = SqliteWriteQueue(tmp_path / "missing" / "bridge.db")
    with queue.acquire():
        pass
