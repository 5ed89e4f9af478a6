"""The lock of a SQLite file: one server at a time, and none while the file is replaced."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridge.cli.db import sqlite_path
from bridge.clock import uptime
from bridge.errors import ConfigError

TIMEOUT_SECONDS = 5.0
"""Maximum time a starting server waits until the worker of a killed server has exited."""


@contextmanager
def sqlite_server_lock(url: str) -> Iterator[tuple[int, ...]]:
    """Hold the lock of the one server of a SQLite file. Raise ConfigError if another server holds it.

    Yield the file descriptors that the worker process must inherit. The kernel releases the lock when all processes
    with these descriptors have exited. The worker of a killed server exits shortly after it, so wait a few seconds.
    """
    path = sqlite_path(url)
    if path is None:
        yield ()
        return
    real_path = path.resolve()  # the same lock for every symbolic link
    with _open_lock_file(real_path.with_name(real_path.name + ".lock")) as handle:
        end = uptime() + TIMEOUT_SECONDS
        while not _try_lock(handle):
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            if uptime() >= end or _is_other_process(owner):
                raise ConfigError(
                    f"{path} is already served by process {owner or 'unknown'}, and SQLite allows only one: stop that "
                    "process, or use PostgreSQL (BRIDGE_DATABASE_URL) to run several"
                ) from None
            time.sleep(0.05)
        with suppress(OSError):  # the database itself reports a full disk
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield (handle,)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_other_process(pid: str) -> bool:
    """Return whether another process with this ID exists. The current ID is left over from a previous container."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # a process of another user
        return True
    return int(pid) != os.getpid()


@contextmanager
def _open_lock_file(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}; the folder of the database must be writable"
        ) from None
    try:
        yield handle
    finally:
        os.close(handle)
