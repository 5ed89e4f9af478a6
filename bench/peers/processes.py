"""Processes that are started, measured and killed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import httpx

from bench.footprint import descendants, proportional_megabytes


class TooSlow(Exception):
    """A condition was not true in time."""


class Process:
    """A process with its children. It can be killed and started again."""

    def __init__(self, command: list[str], environ: Mapping[str, str], folder: Path) -> None:
        self._command, self._environ, self._folder = command, {**os.environ, **environ}, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, url: str | None = None) -> None:
        """Start the process, and wait until `url` responds."""
        self._process = subprocess.Popen(
            self._command, env=self._environ, cwd=self._folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if url is not None:
            wait_until(lambda: _responds(url), 60)

    def ids(self) -> list[int]:
        """Return the IDs of the process and its children."""
        if self._process is None or self._process.poll() is not None:
            return []
        return [self._process.pid, *descendants(self._process.pid, "")]

    def kill(self) -> None:
        """Kill the process and its children with SIGKILL."""
        for number in self.ids():
            os.kill(number, 9)
        if self._process is not None:
            self._process.wait()


def memory_of(processes: Iterable[Process]) -> float:
    """Return the memory of running processes in MB."""
    return sum(proportional_megabytes(number) for process in processes for number in process.ids())


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until the condition is true; raise TooSlow if it is not within `seconds`."""
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise TooSlow(f"not done within {seconds:.0f} s")
        time.sleep(0.02)


def _responds(url: str) -> bool:
    try:
        httpx.get(url, timeout=1)
    except httpx.HTTPError:
        return False
    return True
