"""Writers of several processes on one SQLite file take turns."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.clock import uptime
from bridge.store import sqlite_write_queue
from bridge.store.sqlite_write_queue import WriteTurn

_GREEDY = """
import sys, time
from pathlib import Path
from bridge.store.sqlite_write_queue import WriteTurn
turn = WriteTurn(Path(sys.argv[1]))
while True:
    with sqlite_write_queue.taken():
        print("mine", flush=True)
        exec(sys.argv[2], globals())
"""


@contextmanager
def greedy(database: Path, work: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes turn after turn and does some work in each; it is at it when this begins."""
    process = subprocess.Popen([sys.executable, "-c", _GREEDY, str(database), work], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mine\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate(timeout=10)


def eventually_true(question: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.001)
    return False


def _longest_wait(own: WriteTurn, times: int, held: Callable[[], None] = lambda: None) -> float:
    longest = 0.0
    for _ in range(times):
        begin = time.monotonic()
        with own.taken():
            longest = max(longest, time.monotonic() - begin)
            held()
        time.sleep(0.005)
    return longest


def test_who_writes_all_the_time_lets_others_in_after_each_transaction(tmp_path: Path) -> None:
    own = WriteTurn(tmp_path / "bridge.db")
    with greedy(tmp_path / "bridge.db", "time.sleep(0.05)"):
        assert (
            0.001 < _longest_wait(own, 20) < 0.5
        )  # each wait is one of the other's transactions, on any machine
    assert _longest_wait(own, 1) < 0.5


def test_a_crowd_is_known_to_all_processes_for_a_moment(tmp_path: Path) -> None:
    own = WriteTurn(tmp_path / "bridge.db")
    with own.taken():
        assert not own.crowded
    with greedy(tmp_path / "bridge.db", "sqlite_write_queue.note_receipts(crowd=True); time.sleep(0.005)"):
        assert eventually_true(lambda: own.crowded)
    time.sleep(sqlite_write_queue.CROWD_SECONDS * 2)
    assert not own.crowded


def test_a_crowd_that_was_noted_before_the_machine_started_is_over(tmp_path: Path) -> None:
    own = WriteTurn(tmp_path / "bridge.db")
    with own.taken():
        own.note_receipts(crowd=True)
    assert (own.receiving, own.crowded) == (True, True)
    (tmp_path / "bridge.db.turn").write_bytes(struct.pack("8xdd", uptime() + 1e6, uptime() + 1e6))
    assert (own.receiving, own.crowded) == (False, False)


def test_single_events_are_no_crowd(tmp_path: Path) -> None:
    own = WriteTurn(tmp_path / "bridge.db")
    with own.taken():
        own.note_receipts(crowd=False)
    assert (own.receiving, own.crowded) == (True, False)


def test_two_processes_never_hold_it_at_once(tmp_path: Path) -> None:
    own, meetings = WriteTurn(tmp_path / "bridge.db"), tmp_path / "meetings"
    alone = f"import os; os.mkdir({str(meetings)!r}); time.sleep(0.002); os.rmdir({str(meetings)!r})"
    with greedy(tmp_path / "bridge.db", alone) as process:

        def hold() -> None:
            meetings.mkdir()  # raises when the other one is at it
            time.sleep(0.002)
            meetings.rmdir()

        _longest_wait(own, 100, hold)
        assert process.poll() is None, "it met us"


def test_who_froze_on_its_turn_costs_patience_only(tmp_path: Path) -> None:
    own = WriteTurn(tmp_path / "bridge.db")
    with greedy(tmp_path / "bridge.db", "time.sleep(0.3)") as process:
        process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        with own.taken():
            waited = time.monotonic() - begin
        assert sqlite_write_queue.PATIENCE - 0.1 < waited < sqlite_write_queue.PATIENCE + 5


def test_who_died_on_its_turn_has_given_it_back(tmp_path: Path) -> None:
    own = WriteTurn(tmp_path / "bridge.db")
    with greedy(tmp_path / "bridge.db", "time.sleep(30)") as process:
        process.kill()
        process.wait()
        assert _longest_wait(own, 1) < sqlite_write_queue.PATIENCE / 2


def test_a_folder_that_cannot_be_written_has_no_turns(tmp_path: Path) -> None:
    own = WriteTurn(tmp_path / "nowhere" / "bridge.db")
    with own.taken():
        assert not own.crowded
