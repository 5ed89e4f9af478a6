"""`bridge db restore`: puts a backup in the place of the SQLite database, with all connections paused.

The copy is checked, migrated and paused before it gets the database's name, in one step. A process that is killed at
any point leaves the old database or the restored one, never a mixture and never an unpaused one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bridge.cli.db import sqlite_path
from bridge.cli.server_lock import sqlite_server_lock
from bridge.errors import ConfigError
from bridge.settings import Settings
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.pause_all import pause_all
from bridge.store.sqlite_backup import BackupFile, copy_backup, delete_database, replace_database

ON_POSTGRESQL: Final = (
    "the database is PostgreSQL, which has its own tools: use `{command}` (docs/deployment.md)"
)


@dataclass(frozen=True)
class Restored:
    """The result of a restore."""

    backup: BackupFile
    revision: str
    """The revision of the database, which has been migrated."""
    replaced: Path | None
    """The file that the replaced database was moved to; None if there was no database."""


def require_sqlite(settings: Settings, command: str) -> Path:
    """Return the path of the database. Raise ConfigError that names PostgreSQL's command if it is not on SQLite."""
    path = sqlite_path(settings.bridge_database_url)
    if path is None:
        raise ConfigError(ON_POSTGRESQL.format(command=command))
    return path.resolve()


def restore(settings: Settings, backup: Path, *, pause: bool, actor: str) -> Restored:
    """Replace the database with a backup. Raise ConfigError if a service uses it, or the backup is not usable."""
    path = require_sqlite(settings, "pg_restore")
    if backup.exists() and path.exists() and backup.samefile(path):
        raise ConfigError(f"{backup} is the database itself: name the file with its backup")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}: create it, or set BRIDGE_DATABASE_URL")
    with _no_server(settings.bridge_database_url):
        copy = path.with_name(path.name + ".restoring")
        try:
            content = copy_backup(backup, copy)
            revision = _prepare(copy, backup, pause=pause, actor=actor)
            _give_to_owner(path if path.exists() else path.parent, copy, path.with_name(path.name + ".lock"))
            replaced = path.with_name(f"{path.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
            existed = replace_database(path, copy, replaced)
        finally:
            delete_database(copy)
    return Restored(content, revision, replaced if existed else None)


@contextmanager
def _no_server(url: str) -> Iterator[None]:
    """Hold the lock of the server. Raise ConfigError if a service runs on the database."""
    with ExitStack() as stack:
        try:
            stack.enter_context(sqlite_server_lock(url))
        except ConfigError as error:
            raise ConfigError(f"stop the service first: {error}") from None
        yield


def _prepare(copy: Path, backup: Path, *, pause: bool, actor: str) -> str:
    """Migrate the copy, pause its connections, and record who restored it. Return its revision."""
    database = Database(f"sqlite:///{copy}", pool_size=1)
    try:
        revision = upgrade(database)
        if pause:
            pause_all(database, f"restored from the backup {backup.name}", actor)
        with database.write() as conn:
            record_audit(conn, database.now(conn), actor, "restore", ["database"], {"backup": backup.name})
    finally:
        database.close()
    return revision


def _give_to_owner(model: Path, *files: Path) -> None:
    """Give the files to the owner of the database, if root restores it for the user of the service."""
    if os.geteuid() == 0:
        status = model.stat()
        for file in files:
            os.chown(file, status.st_uid, status.st_gid)
