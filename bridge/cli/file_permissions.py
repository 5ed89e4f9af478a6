"""File permissions: who besides the service can read its secrets, or write the code that it runs.

Connectors are code: a user who can write into their folder runs anything at the next start, with every secret of the
service.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from bridge.errors import ConfigError

MAX_FILES: Final = 1000
"""Files of a connectors folder that are looked at."""
_MOUNTED_SECRETS: Final = (Path("/run/secrets"), Path("/var/run/secrets"))
"""Folders in which container platforms mount secrets. Other users cannot reach them, whatever the mode of the files."""


def require_safe_connectors(folder: Path) -> None:
    """Raise ConfigError if every user of the machine can write to a folder of connectors, or replace it."""
    if not folder.is_dir():
        return
    parent = folder.parent
    replaceable = [parent] if not _mode(parent) & stat.S_ISVTX else []
    for path in (*replaceable, *_connector_files(folder)):
        if _mode(path) & stat.S_IWOTH:
            raise ConfigError(
                f"every user of this machine can write to {path}, and connectors are code that the service runs: "
                f"chmod o-w {path}"
            )


def group_writable_connectors(folder: Path) -> list[str]:
    """Return a warning if the group can write to a folder of connectors."""
    if not folder.is_dir():
        return []
    for path in _connector_files(folder):
        if _mode(path) & stat.S_IWGRP:
            return [
                f"the group can write to {path}, and connectors are code that the service runs: chmod g-w {path}"
            ]
    return []


def exposed_secrets(paths: Iterable[Path]) -> list[str]:
    """Return a warning for each existing file with secrets that other users can read or write."""
    warnings = []
    for path in paths:
        mode = _mode(path)
        is_mounted = any(path.is_relative_to(folder) for folder in _MOUNTED_SECRETS)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            warnings.append(f"other users can write to {path}: chmod 600 {path}")
        elif mode & (stat.S_IRGRP | stat.S_IROTH) and not is_mounted:
            warnings.append(f"other users can read {path}, which contains secrets: chmod 600 {path}")
    return warnings


def _connector_files(folder: Path) -> Iterator[Path]:
    """Yield the folder and what it contains, without what a link leads to."""
    yield folder
    for number, path in enumerate(folder.rglob("*")):
        if number >= MAX_FILES:
            return
        if not path.is_symlink():
            yield path


def _mode(path: Path) -> int:
    """Return the mode of a file, or 0 if there is none."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
