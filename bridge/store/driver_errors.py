"""Driver errors: which of them mean "not now", and of which kind they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bridge.errors import StoreUnavailable

READ_ONLY_STATE: Final = "25006"
"""SQLSTATE of a write in a session that may only read: the server has become a standby, or is set to read-only."""
_STATES: Final = {
    READ_ONLY_STATE: "read_only",
    "42501": "permission",
    "53100": "disk_full",
    "53200": "out_of_memory",
    "53300": "too_many_connections",
    "58030": "disk_error",
    "57014": "timeout",
    "55P03": "timeout",
    "XX001": "damaged",
    "XX002": "damaged",
}
"""SQLSTATE -> kind. Every other error that means "not now" is `unreachable`."""
_SQLITE_CODES: Final = {
    "FULL": "disk_full",
    "IOERR": "disk_error",
    "READONLY": "permission",
    "PERM": "permission",
    "CANTOPEN": "cannot_open",
    "BUSY": "timeout",
    "LOCKED": "timeout",
    "NOMEM": "out_of_memory",
    "CORRUPT": "damaged",
    "NOTADB": "not_a_database",
}
"""Primary result code of SQLite, without `SQLITE_` -> kind."""
ADVICE: Final = {
    "disk_full": "free space on the disk of the database",
    "disk_error": "check the disk of the database, its quota and its file size limit",
    "read_only": "the server is a standby or set to read-only: name all hosts in BRIDGE_DATABASE_URL",
    "permission": "give the user of the service write access to the database",
    "cannot_open": "check BRIDGE_DATABASE_URL, the permissions of the file and its folder, and the limit of open files",
    "too_many_connections": "raise max_connections of PostgreSQL, or run fewer processes",
    "out_of_memory": "give the process or the database server more memory",
    "damaged": "restore a backup as described in docs/deployment.md",
    "unexpected": "this is a bug: report it with this entry",
}
"""Kind -> advice for the operator."""
_UNAVAILABLE_STATES: Final = frozenset({READ_ONLY_STATE, "42501", "XX001", "XX002"})
"""SQLSTATEs that mean "not now" and are no OperationalError."""
_UNAVAILABLE_SQLITE: Final = frozenset({"damaged", "not_a_database"})
"""Kinds of SQLite's errors that mean "not now" and are no OperationalError."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise StoreUnavailable in place of errors that mean "not now"; let programming errors pass."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(_first_line(error), kind="timeout") from error
    except DBAPIError as error:
        if not _means_not_now(error):
            raise
        raise StoreUnavailable(
            _first_line(error),
            kind=error_kind(error),
            code=error_code(error),
            connection_dropped=error.connection_invalidated,
        ) from error


def _means_not_now(error: DBAPIError) -> bool:
    return (
        isinstance(error, OperationalError)
        or error.connection_invalidated
        or error_code(error) in _UNAVAILABLE_STATES
        or error_kind(error) in _UNAVAILABLE_SQLITE
    )


def error_code(error: BaseException) -> str:
    """Return the driver's code of an error: the SQLSTATE or SQLite's name; empty if it has none."""
    original = getattr(error, "orig", None) or error
    return getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None) or ""


def error_kind(error: BaseException) -> str:
    """Return the kind of an error that means "not now"."""
    code = error_code(error)
    if code.startswith("SQLITE_"):
        return _SQLITE_CODES.get(code.split("_")[1], "disk_error")
    return _STATES.get(code, "unreachable")


def _first_line(error: Exception) -> str:
    """Return the driver's message without the statement and its parameters, which hold personal data."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).splitlines()[0] if str(original) else ''}"[:300]
