"""SQLite databases for tests: copies of one that each process of a test run migrates once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.postgres import migrate


def create_sqlite(path: Path) -> str:
    """Create an empty, migrated database in a new file; return its URL."""
    path.write_bytes(_migrated())
    return f"sqlite:///{path}"


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "bridge.db")
        migrate(f"sqlite:///{path}")
        return path.read_bytes()
