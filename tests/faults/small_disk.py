"""A small disk that a test fills."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.service_process import eventually


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount an 8 MB disk for database, rules and logs. Skip the test without the privilege."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "bridge-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk; another test limits the file size instead")
    yield folder
    # The files of a process that has just exited may be in use for a moment.
    unmount = ["umount", str(folder)]
    assert eventually(lambda: subprocess.run(unmount, capture_output=True, check=False).returncode == 0, 10)


def fill(ballast: Path, free: int = 0) -> None:
    """Fill the disk of the file `ballast` up to `free` bytes."""
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    if free:
        os.truncate(ballast, max(0, ballast.stat().st_size - free))
