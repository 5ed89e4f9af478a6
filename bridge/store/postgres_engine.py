"""PostgreSQL engine: connection parameters that notice a lost server, and a pool without read-only sessions."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

from bridge.errors import ConfigError
from bridge.store.driver_errors import READ_ONLY_STATE, error_code

LOCK_TIMEOUT: Final = "15s"
SERVER_OPTIONS: Final = (
    f"-c lock_timeout={LOCK_TIMEOUT} -c statement_timeout=60s"
    # A worker that freezes or loses its network inside a transaction must not hold its locks until it comes back.
    " -c idle_in_transaction_session_timeout=5s"
)
_DEFAULTS: Final = {
    "connect_timeout": 5,
    # A partition is noticed after some 10 seconds, by unanswered keepalives or unacknowledged data.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
    "client_encoding": "UTF8",
}


def driver_arguments(url: URL) -> dict[str, Any]:
    """Return the arguments of `psycopg.connect`. Parameters in the URL take precedence.

    Raise ConfigError for an option that the driver does not know: it would fail at every connection.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    given = dict(url.get_dialect()().create_connect_args(url)[1])
    arguments = {**_DEFAULTS, **given}
    if "," in str(given.get("host", "")):
        arguments.setdefault("target_session_attrs", "read-write")
    arguments["options"] = f"{SERVER_OPTIONS} {given.get('options', '')}".strip()
    try:
        make_conninfo(**arguments)
    except ProgrammingError:  # repeats the option
        raise ConfigError(
            "BRIDGE_DATABASE_URL has an unknown option after the ?: write one of PostgreSQL's connection parameters, "
            "such as ?sslmode=require"
        ) from None
    return arguments


def postgres_engine(url: URL, pool_size: int) -> Engine:
    """Return the engine of a PostgreSQL database."""
    engine = create_engine(
        url, pool_size=pool_size, max_overflow=4, pool_timeout=10, pool_pre_ping=False, pool_recycle=1800,
        connect_args=driver_arguments(url),
    )  # fmt: skip
    event.listen(engine, "connect", _require_utf8, insert=True)  # before SQLAlchemy's own first query
    event.listen(engine, "handle_error", _drop_read_only)
    return engine


def _require_utf8(driver_connection: Any, _: object) -> None:
    """Raise ConfigError for a database that cannot store every text, or does not know which bytes are one."""
    info = driver_connection.info
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = info.dbname
        driver_connection.close()
        raise ConfigError(
            f"the PostgreSQL database `{name}` has the encoding {encoding}, and the bridge needs UTF8: create one with "
            f"`CREATE DATABASE {name}_utf8 ENCODING 'UTF8' TEMPLATE template0` and name it in BRIDGE_DATABASE_URL"
        )


def _drop_read_only(context: ExceptionContext) -> None:
    """Drop all pooled connections when a session turns out to be read-only, as after a failover."""
    if error_code(context.original_exception) == READ_ONLY_STATE:
        context.is_disconnect = True
