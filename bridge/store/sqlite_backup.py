"""Backups of a SQLite database: a consistent copy of a database in use, and its checked return in one step.

A copy reads one snapshot through SQLite's backup interface. In WAL mode, that keeps no writer waiting. A file is either
complete and checked under its final name, or has a name that ends with `.partial`, whenever the process is killed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import text

from bridge.errors import ConfigError, StoreUnavailable
from bridge.store.database import Database
from bridge.store.driver_errors import error_kind

PAGES_PER_STEP: Final = 2000
"""Pages of 4 KiB that are copied at once. A signal is noticed between two steps."""
LOCK_SECONDS: Final = 2.0
"""How long a restore waits for other processes to close the database."""
MAX_SHOWN_ERRORS: Final = 3
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES: Final = frozenset({"alembic_version", "events", "deliveries", "connections"})
"""Tables that tell a database of the bridge from any other one."""


@dataclass(frozen=True)
class BackupFile:
    """What a backup contains."""

    revision: str
    """The revision of its schema."""
    events: int
    newest_event_at: datetime | None
    """When the last event in it was received; None if it has no events."""
    size: int
    """Bytes."""


def back_up(database: Database, target: Path) -> BackupFile:
    """Copy a SQLite database in use to a new file that only its owner can read, check it, and return its content.

    Raise ConfigError if the file exists or cannot be written, StoreUnavailable if the copy fails its check.
    """
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} already exists, and a backup does not replace it: choose another name")
    with _partial_file(target) as partial, database.read() as conn:
        conn.execute(text("SELECT version_num FROM alembic_version")).all()  # from here on, one snapshot
        source: sqlite3.Connection = conn.connection.driver_connection  # type: ignore[assignment]
        try:
            content = _copy(source, partial)
        except sqlite3.DatabaseError as error:
            if error_kind(error) in ("disk_full", "disk_error"):
                raise ConfigError(f"cannot write {partial}: {error}; choose a disk with free space") from None
            raise StoreUnavailable(str(error), kind=error_kind(error)) from error
        _publish(partial, target)
    return content


def copy_backup(backup: Path, target: Path) -> BackupFile:
    """Copy a backup to `target`, replacing what an interrupted copy left there, and return its content.

    Raise ConfigError if the backup cannot be read, is damaged, or belongs to another program.
    """
    if not backup.is_file():
        raise ConfigError(f"{backup} is not a file: name a file that `bridge db backup` has written")
    delete_database(target)
    # A snapshot of the disk has changes in a file of their own; a folder without it may be read-only.
    has_changes = backup.with_name(backup.name + "-wal").exists()
    options = "mode=ro" if has_changes else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{backup.resolve().as_uri()}?{options}", uri=True)) as source:
            names = {name for (name,) in source.execute("SELECT name FROM sqlite_master")}
            if not names >= _TABLES:
                raise ConfigError(f"{backup} is not a backup of the bridge: it has other tables")
            _check(source)
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return _copy(source, target)
    except (sqlite3.DatabaseError, StoreUnavailable) as error:
        raise ConfigError(f"cannot restore {backup}: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from None


def replace_database(database: Path, copy: Path, replaced: Path) -> bool:
    """Put `copy` in the place of the database in one step, and keep the database as `replaced`.

    Return False if there was no database. Raise ConfigError if another process uses one of them.
    """
    with _exclusive(copy):
        pass
    if not database.exists():
        os.rename(copy, database)
        _sync_folder(database)
        return False
    with _exclusive(database, may_be_damaged=True):
        os.link(database, replaced)
        os.rename(copy, database)
        _sync_folder(database)
    return True


def delete_database(path: Path) -> None:
    """Delete a SQLite database with the files next to it, as far as they exist."""
    for suffix in ("-wal", "-shm", "-journal", ".write-queue", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


@contextmanager
def _exclusive(path: Path, *, may_be_damaged: bool = False) -> Iterator[None]:
    """Lock a database against every other process, with all its changes in the one file."""
    conn = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
    try:
        try:
            conn.execute("PRAGMA locking_mode = EXCLUSIVE")
            conn.execute(
                "PRAGMA journal_mode = DELETE"
            )  # moves the changes of a killed process into the file
            conn.execute("BEGIN EXCLUSIVE")
            conn.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if error_kind(error) == "timeout":
                raise ConfigError(f"another process uses {path}: end it, and run this again") from None
            if not may_be_damaged:
                raise StoreUnavailable(str(error), kind=error_kind(error)) from error
            # The changes of a damaged file must not be applied to the one that takes its place.
            for suffix in ("-wal", "-shm", "-journal"):
                with suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).unlink()
        yield
    finally:
        conn.close()


def _copy(source: sqlite3.Connection, target: Path) -> BackupFile:
    """Copy the database into an existing file, as one file without a log of changes, and check it."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")  # it is synchronized once, at the end
        source.backup(copy, pages=PAGES_PER_STEP, progress=_interruptible)
        copy.execute("PRAGMA journal_mode = DELETE")
        _check(copy)
        content = _content(copy, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return content


def _check(conn: sqlite3.Connection) -> None:
    """Read the whole database. Raise StoreUnavailable if a part of it is damaged."""
    problems = [str(row[0]) for row in conn.execute(f"PRAGMA integrity_check({MAX_SHOWN_ERRORS})")]
    if problems != ["ok"]:
        raise StoreUnavailable(f"the file is damaged: {'; '.join(problems)}"[:300], kind="damaged")


def _interruptible(status: int, remaining: int, total: int) -> None:
    """Let Python handle signals between two steps."""


def _content(conn: sqlite3.Connection, path: Path) -> BackupFile:
    (revision,) = conn.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
    (events,) = conn.execute("SELECT count(*) FROM events").fetchone()
    (newest,) = conn.execute("SELECT max(received_at) FROM events").fetchone()
    newest_at = None if newest is None else _EPOCH + timedelta(microseconds=newest)
    return BackupFile(str(revision), int(events), newest_at, path.stat().st_size)


@contextmanager
def _partial_file(target: Path) -> Iterator[Path]:
    """Create the file next to `target` that becomes it, readable by its owner from the start, and lock it.

    What a killed process has left under its name is replaced.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {partial}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another process is writing {partial}: wait until it is done") from None
        os.fchmod(handle, 0o600)
        os.ftruncate(handle, 0)
        try:
            yield partial
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
    finally:
        os.close(handle)


def _publish(partial: Path, target: Path) -> None:
    """Give the file its final name, without replacing a file that has it by now."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise ConfigError(
            f"{target} already exists, and a backup does not replace it: choose another name"
        ) from None
    except OSError:  # a file system without hard links
        os.rename(partial, target)
    _sync_folder(target)


def _sync_folder(path: Path) -> None:
    """Make the name of a file durable."""
    handle = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
