"""Bringing a database to the shape that this version needs."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bridge.store.database import Database

_LOCK = "migrate"


def upgrade(database: Database) -> str:
    """Apply what is missing, in one transaction, one process at a time; returns the revision it is at now.

    A database of a newer version is left alone: its migrations are additive, so this version can work on it.
    """
    config = Config()
    config.set_main_option("script_location", str(files("bridge.store") / "migrations"))
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    with database.write() as conn:
        database.lock(conn, [_LOCK])
        present = MigrationContext.configure(conn).get_current_revision()
        if present is not None and present not in known:
            return present
        config.attributes["connection"] = conn
        command.upgrade(config, "head")
        return MigrationContext.configure(conn).get_current_revision() or ""


def current_revision(database: Database) -> str | None:
    """The revision that the database is at; None when it is empty."""
    with database.read() as conn:
        return MigrationContext.configure(conn).get_current_revision()
