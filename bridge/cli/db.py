"""Database access for commands: locate, migrate and open the service's database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from bridge.connector.egress import is_loopback
from bridge.errors import ConfigError, StoreUnavailable
from bridge.settings import Settings
from bridge.store.database import Database
from bridge.telemetry import log

if TYPE_CHECKING:
    from tenacity import RetryCallState

CONNECT_TIMEOUT_SECONDS = 60.0
"""Maximum time a starting service waits for an unreachable PostgreSQL."""


def migrate(database: Database) -> str:
    """Migrate the database to this version's schema and return the version.

    Wait for up to CONNECT_TIMEOUT_SECONDS for a PostgreSQL server that is still starting.
    """
    from bridge.store.migrate import upgrade

    def log_retry(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "database unavailable",
            error=str(error),
            advice="retrying: check that the database is running, and BRIDGE_DATABASE_URL",
        )

    path = sqlite_path(database.url)
    if path is not None:
        with suppress(OSError):  # SQLite itself reports an invalid path
            path.touch(mode=0o600)  # a file created by SQLite would be readable by every user of the machine
    if database.is_sqlite:
        return upgrade(database)

    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

    return Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(CONNECT_TIMEOUT_SECONDS),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        before_sleep=log_retry,
        reraise=True,
    )(upgrade, database)


def sqlite_path(url: str) -> Path | None:
    """Return the path of a SQLite database, or None for PostgreSQL."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise ConfigError("BRIDGE_DATABASE_URL is not a valid database URL") from None
    if parsed.get_backend_name() != "sqlite":
        return None
    if parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            "BRIDGE_DATABASE_URL must name a file, such as sqlite:///bridge.db: an in-memory database loses events"
        )
    return Path(str(parsed.database))


def unverified_host(url: str, environ: Mapping[str, str]) -> str | None:
    """Return a host of PostgreSQL whose certificate is not verified, so that another server could take its place."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return None
    if (parsed.query.get("sslmode") or environ.get("PGSSLMODE")) == "verify-full":
        return None
    option = parsed.query.get("host") or environ.get("PGHOST") or ()
    hosts = [parsed.host] if parsed.host else [option] if isinstance(option, str) else option
    names = (re.sub(r":\d+$", "", name) for host in hosts for name in host.split(","))
    return next((name for name in names if name and not name.startswith("/") and not is_loopback(name)), None)


@contextmanager
def open_store(settings: Settings) -> Iterator[Database]:
    """Open the service's database for a command. Raise ConfigError if it does not exist yet."""
    database = Database(
        settings.bridge_database_url,
        pool_size=2,
        default_country=settings.bridge_default_country,
        drop_fields=settings.bridge_drop_fields,
        encryption_keys=settings.encryption_keys,
    )
    try:
        path = sqlite_path(settings.bridge_database_url)
        if path is not None and not path.exists():
            raise ConfigError(
                f"there is no database at {path} yet: run this command in the folder where `bridge serve` runs, "
                "or set BRIDGE_DATABASE_URL"
            )
        if not database.has_tables():
            raise ConfigError("the database is empty: start `bridge serve`, or run `bridge db upgrade`")
        yield database
    finally:
        database.close()
