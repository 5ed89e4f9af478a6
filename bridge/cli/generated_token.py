"""The admin token of a server without BRIDGE_ADMIN_TOKEN: shown on a terminal, otherwise written to a file.

It never stands in a log line, because logs are collected, kept and read by others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from bridge.cli.db import sqlite_path
from bridge.cli.output import print_status
from bridge.errors import ConfigError
from bridge.settings import Settings
from bridge.telemetry import log

FILE_NAME: Final = "admin-token"
"""Name of the file: next to the SQLite database, otherwise in the working directory."""


def write_generated_token(settings: Settings, token: str) -> Path | None:
    """Write the token to a file, unless a person watches the terminal. Raise ConfigError if that is impossible."""
    is_watched = settings.bridge_log_format == "console" and sys.stderr.isatty()
    return None if is_watched else _write_token(settings, token)


def show_generated_token(url: str, token: str, path: Path | None) -> None:
    """Show the token, or the path of its file, to the operator who started the server at `url`."""
    if path is None:
        print_status(f"Dashboard: {url}/login#token={token}  (set BRIDGE_ADMIN_TOKEN to keep one token)")
        return
    log.info(
        "admin token generated",
        file=str(path),
        url=f"{url}/login",
        advice="log in with the token in this file, or set BRIDGE_ADMIN_TOKEN to keep one token",
    )


def _write_token(settings: Settings, token: str) -> Path:
    """Write the token to a new file that only this user can read, in place of an earlier one."""
    database = sqlite_path(settings.bridge_database_url)
    path = (database.parent if database else Path.cwd()).resolve() / FILE_NAME
    temporary = path.with_name(f".{FILE_NAME}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{token}\n")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write the generated admin token to {path}: {error.strerror or error}; set BRIDGE_ADMIN_TOKEN"
        ) from None
    return path
