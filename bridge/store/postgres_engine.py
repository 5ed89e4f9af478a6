"""PostgreSQL engine: connection parameters that notice a lost server, a pool without read-only sessions, and poolers.

A pooler such as PgBouncer that gives a client another session for each transaction (`pool_mode = transaction`) drops
the `options` of a connection, forgets prepared statements and delivers no notifications. It is recognized by the ID of
the server's process, which is not the one that the connection was told.
"""

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
LIMITS: Final = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
"""What SERVER_OPTIONS sets."""
_ROLE_SETTINGS: Final = (
    "ALTER ROLE bridge SET lock_timeout = '15s'; ALTER ROLE bridge SET statement_timeout = '60s'; "
    "ALTER ROLE bridge SET idle_in_transaction_session_timeout = '5s'"
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
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", _require_limits, insert=True)
    event.listen(engine, "connect", _require_utf8, insert=True)  # before SQLAlchemy's own first query
    event.listen(engine, "handle_error", _drop_read_only)
    return engine


def is_pooled(driver_connection: Any) -> bool:
    """Return whether the connection leads to a pooler. It must not be in a transaction."""
    row = driver_connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return bool(row[0] != driver_connection.info.backend_pid)


def _connect(_dialect: object, _record: object, arguments: list[Any], parameters: dict[str, Any]) -> Any:
    """Connect. Raise ConfigError for a pooler that refuses the options."""
    import psycopg

    try:
        return psycopg.connect(*arguments, **parameters)
    except psycopg.OperationalError as error:
        if "unsupported startup parameter" in str(error):
            raise ConfigError(
                "the pooler in front of PostgreSQL refuses the parameter `options`: add `ignore_startup_parameters = "
                f"options` to pgbouncer.ini, and set the limits at the role: {_ROLE_SETTINGS}"
            ) from None
        raise


def _require_limits(driver_connection: Any, _: object) -> None:
    """Raise ConfigError if a pooler has dropped the options, and prepare no statements if there is one."""
    settings = ", ".join(f"current_setting('{name}')" for name in LIMITS)
    driver_connection.autocommit = True
    *values, pid = driver_connection.execute(f"SELECT {settings}, pg_backend_pid()", prepare=False).fetchone()
    driver_connection.autocommit = False
    if pid == driver_connection.info.backend_pid:
        return
    driver_connection.prepare_threshold = None
    if "0" in values:
        driver_connection.close()
        raise ConfigError(
            "the pooler in front of PostgreSQL drops the limits of the bridge's sessions, so that a frozen process "
            f"would not lose its locks: set them at the role: {_ROLE_SETTINGS}"
        )


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
