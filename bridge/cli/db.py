"""The database of a service, for the command line: found, brought up to date, opened beside the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from bridge.errors import ConfigError, StoreUnavailable
from bridge.settings import Settings
from bridge.store.database import Database
from bridge.telemetry import log

START_PATIENCE = 60.0
"""Seconds that a start waits for a database that cannot be reached yet."""


def migrate(database: Database) -> str:
    """Bring the database to this version's shape, waiting a while for one that is still starting."""
    from tenacity import (
        RetryCallState,
        Retrying,
        retry_if_exception_type,
        stop_after_delay,
        wait_random_exponential,
    )  # fmt: skip

    from bridge.store.migrate import upgrade

    def still_waiting(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("the database cannot be used yet", error=str(error), advice="trying again")

    path = sqlite_path(database.url)
    if path is not None:
        with suppress(OSError):  # SQLite says itself what is wrong with the path
            path.touch(mode=0o600)  # made by SQLite, everybody on the machine could read it
    patience = 0.0 if database.is_sqlite else START_PATIENCE
    return Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(patience),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        before_sleep=still_waiting,
        reraise=True,
    )(upgrade, database)


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite database; None on PostgreSQL."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise ConfigError("BRIDGE_DATABASE_URL is no database address") from None
    if parsed.get_backend_name() != "sqlite":
        return None
    if parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            "BRIDGE_DATABASE_URL must name a file, such as sqlite:///bridge.db: memory forgets events"
        )
    return Path(str(parsed.database))


@contextmanager
def open_store(settings: Settings) -> Iterator[Database]:
    """The database of a service, for commands that look or act; raises ConfigError when there is none yet."""
    database = Database(settings.bridge_database_url, pool_size=2)
    try:
        path = sqlite_path(settings.bridge_database_url)
        if path is not None and not path.exists():
            raise ConfigError(
                f"there is no database at {path} yet: run this where `bridge serve` runs, or set BRIDGE_DATABASE_URL"
            )
        if not database.is_prepared():
            raise ConfigError("the database is empty: start `bridge serve`, or run `bridge db upgrade`")
        yield database
    finally:
        database.close()
