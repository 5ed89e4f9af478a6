"""Migration: brings a database to the schema that this version needs."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bridge.store.database import Database


def upgrade(database: Database) -> str:
    """Apply the missing migrations in one transaction, one process at a time; return the revision.

    A database of a newer version is left unchanged: its migrations are additive, so this version can use it.
    """
    config = _config()
    with database.migration() as conn:
        revision = MigrationContext.configure(conn).get_current_revision()
        if revision is not None and not is_known(revision):
            return revision
        config.attributes["connection"] = conn
        command.upgrade(config, "head")
        return MigrationContext.configure(conn).get_current_revision() or ""


def newest_revision() -> str:
    """Return the revision that this version needs."""
    return _scripts().get_current_head() or ""


def is_known(revision: str) -> bool:
    """Return whether this version has the migration; one of a newer version is not known."""
    return any(script.revision == revision for script in _scripts().walk_revisions())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("bridge.store") / "migrations"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def current_revision(database: Database) -> str | None:
    """Return the revision of the database; None if it is empty."""
    with database.read() as conn:
        return MigrationContext.configure(conn).get_current_revision()
