"""The rules files on disk: one file with the folder `rules.d` next to it, or a folder of files.

The only module of this package that reads files. Hidden files, copies that editors leave behind, test files
(`*.tests.yaml`), copies by `bridge apply` (`*.previous.yaml`) and files that are not YAML are no rules files. Names are
followed through symbolic links, so a mounted Kubernetes ConfigMap is a folder like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.errors import ConfigError
from bridge.rules.sources import SourceFile
from bridge.rules.yaml import MAX_BYTES

FOLDER: Final = "rules.d"
MAX_FILES: Final = 100
MAX_TOTAL_BYTES: Final = 4 * MAX_BYTES
_READ_ATTEMPTS: Final = 3
_SUFFIXES: Final = (".yaml", ".yml")
_OTHER_ROLES: Final = (".tests", ".previous")

Stamp = tuple[tuple[str, int, int, int], ...]
"""Path, modification time, size and inode of every file of a set."""


def base_folder(path: Path) -> Path:
    """Return the folder that contains everything of a set: its files, `rules.d`, `connectors` and `tests`."""
    return path if path.is_dir() else path.parent


def list_rules_files(path: Path) -> list[Path]:
    """Return the files of a set in the order in which they are read.

    `path` is a file, or a folder with the files. The files of `rules.d` in the same folder come after them. Raise
    ConfigError if a folder cannot be read.
    """
    folder = base_folder(path)
    try:
        main = _yaml_files(folder) if path.is_dir() else [path]
        return [*main, *_yaml_files(folder / FOLDER)]
    except OSError as error:
        raise ConfigError(f"cannot read the folder {error.filename}: {error.strerror}") from None


def list_test_files(path: Path) -> list[Path]:
    """Return the files with tests of a set: `NAME.tests.yaml` next to a rules file, and those in the folder `tests`."""
    folder = base_folder(path)
    try:
        next_to = [
            file
            for file in _yaml_files(folder, ".tests")
            if path.is_dir() or file.name.startswith(f"{path.stem}.tests.")
        ]
        return [*next_to, *_yaml_files(folder / FOLDER, ".tests"), *_yaml_files(folder / "tests", None)]
    except OSError as error:
        raise ConfigError(f"cannot read the folder {error.filename}: {error.strerror}") from None


def read_rules_files(path: Path) -> list[SourceFile]:
    """Return the files of a set with their contents.

    A set that changes while it is read is read again. A change that is missed has another stamp, so a running service
    reads the set once more. Raise ConfigError if a file cannot be read, or if the set is too large.
    """
    for _ in range(_READ_ATTEMPTS):
        before = stamp(path)
        try:
            files = read_files({file: file for file in list_rules_files(path)}, path)
        except ConfigError:
            if stamp(path) == before:
                raise
            continue
        if stamp(path) == before:
            return files
    raise ConfigError(f"{path} changes while it is read: try again when the files are complete")


def read_files(files: Mapping[Path, Path], path: Path) -> list[SourceFile]:
    """Return the files of the set `path`: file of the set -> the file that is read for it.

    Raise ConfigError if one cannot be read, if there is none, or if they are too many or too large.
    """
    if not files:
        raise ConfigError(
            f"the folder {path} has no rules file: put a file there whose name ends in .yaml, "
            "or set BRIDGE_RULES_FILE to another file or folder"
        )
    if len(files) > MAX_FILES:
        raise ConfigError(f"{path} has {len(files)} rules files; at most {MAX_FILES} are allowed")
    folder = base_folder(path)
    sources = [
        SourceFile(str(origin), _read(origin, folder), file.relative_to(folder).as_posix())
        for file, origin in files.items()
    ]
    if len(sources) > 1 and sum(len(source.content) for source in sources) > MAX_TOTAL_BYTES:
        raise ConfigError(f"the rules files of {path} have more than {MAX_TOTAL_BYTES >> 20} MiB together")
    return sources


def stamp(path: Path) -> Stamp:
    """Return what changes when a file of the set is added, changed or removed. Empty if there is none."""
    try:
        return tuple(map(_stamp_of, list_rules_files(path)))
    except (OSError, ConfigError):
        return ()


def role_of(file: Path) -> str | None:
    """Return what a file of the folders is for by its name: "" (rules), `.tests`, `.previous`; None: it is ignored."""
    if file.suffix not in _SUFFIXES or file.name.startswith((".", "#", "~")) or not file.name.isprintable():
        return None
    return next((role for role in _OTHER_ROLES if file.stem.endswith(role)), "")


def _stamp_of(file: Path) -> tuple[str, int, int, int]:
    status = file.stat()
    return str(file), status.st_mtime_ns, status.st_size, status.st_ino


def _yaml_files(folder: Path, role: str | None = "") -> list[Path]:
    """Return the YAML files of a folder with this role, by name: "" (rules), `.tests`, or None (every file)."""
    if not folder.is_dir():
        return []
    found = []
    for file in sorted(folder.iterdir()):
        own_role = role_of(file)
        if own_role is not None and role in (None, own_role) and file.is_file():
            found.append(file)
    return found


def _read(file: Path, folder: Path) -> bytes:
    try:
        with file.open("rb") as handle:
            return handle.read(MAX_BYTES + 1)  # one that is too large is reported as such
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}; {_advice(file, folder)}") from None


def _advice(file: Path, folder: Path) -> str:
    if not file.exists() and file.parent == folder and (folder / FOLDER).is_dir():
        return f"create it, or set BRIDGE_RULES_FILE={folder / FOLDER} to use only the files of {FOLDER}"
    return "create one with `bridge init`, name another file, or set BRIDGE_RULES_FILE"
