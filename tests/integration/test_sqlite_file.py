"""The SQLite file: its permissions, and the errors for a file that is not a usable database."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from bridge.cli.db import migrate
from bridge.cli.output import print_error
from bridge.errors import StoreUnavailable
from bridge.store.database import Database


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """Set the usual umask, under which new files are readable by all users."""
    previous = os.umask(0o022)
    yield
    os.umask(previous)


@pytest.mark.usefixtures("usual_umask")
def test_new_database_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/bridge.db")
    migrate(database)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("bridge.db*")}
    database.close()
    assert "bridge.db" in modes
    assert set(modes.values()) == {0o600}


def test_file_that_is_not_a_database_is_reported_and_unchanged(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\n" * 100)
    database = Database(f"sqlite:///{rules}")
    with pytest.raises(StoreUnavailable, match="file is not a database"):
        migrate(database)
    database.close()
    assert rules.read_text() == "version: 1\n" * 100


def test_malformed_database_advises_to_restore_a_backup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bridge.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    for log in tmp_path.glob("bridge.db-*"):
        log.unlink()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\x00" * (len(content) - 4096))
    damaged = Database(f"sqlite:///{path}")
    with pytest.raises(StoreUnavailable, match="malformed") as raised, damaged.read() as conn:
        conn.execute(text("SELECT count(*) FROM events")).scalar_one()
    damaged.close()
    print_error(raised.value)
    assert "restore a backup" in capsys.readouterr().err
