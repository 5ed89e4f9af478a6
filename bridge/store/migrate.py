"""Migration: brings a database to the schema that this version needs.

An empty database gets the tables of `bridge.store.schema` at once. Only a database of an older version needs its
migrations and Alembic, which takes a fifth of a second to import.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from bridge.store import schema
from bridge.store.database import Database

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def upgrade(database: Database) -> str:
    """Bring the schema up to date in one transaction, one process at a time; return the revision.

    A database of a newer version is left unchanged: its migrations are additive, so this version can use it.
    """
    with database.migration() as conn:
        revision = _read_revision(conn)
        if revision is None:
            create_schema(conn)
        elif revision != newest_revision() and is_known(revision):
            run_migrations(conn)
        return _read_revision(conn) or ""


def create_schema(conn: Connection) -> None:
    """Create all tables in an empty database."""
    schema.metadata.create_all(conn, checkfirst=False)
    _VERSION.create(conn)
    conn.execute(insert(_VERSION).values(version_num=newest_revision()))


def run_migrations(conn: Connection, revision: str = "head") -> None:
    """Apply the migrations up to `revision` that the database lacks, also if it is empty."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("bridge.store") / "migrations"))
    config.attributes["connection"] = conn
    command.upgrade(config, revision)


def newest_revision() -> str:
    """Return the revision that this version needs."""
    return max(_known_revisions())


def is_known(revision: str) -> bool:
    """Return whether this version has the migration; one of a newer version is not known."""
    return revision in _known_revisions()


@cache
def _known_revisions() -> frozenset[str]:
    """Return the revisions, which are in the names of the files: `m0014_row_deletion.py` is 0014."""
    names = (file.name for file in (files("bridge.store") / "migrations" / "versions").iterdir())
    return frozenset(name[1:5] for name in names if name.startswith("m") and name.endswith(".py"))


def current_revision(database: Database) -> str | None:
    """Return the revision of the database; None if it is empty."""
    with database.read() as conn:
        return _read_revision(conn)


def _read_revision(conn: Connection) -> str | None:
    if not inspect(conn).has_table(_VERSION.name):
        return None
    return conn.execute(select(_VERSION.c.version_num)).scalar_one_or_none()
