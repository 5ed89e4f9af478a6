"""Which files a command reads for the rules: those of the service, another file, or the service's with one replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import ConfigError
from bridge.rules.files import FOLDER, base_folder, list_rules_files, read_files, read_rules_files, role_of
from bridge.rules.sources import SourceFile


def rules_path(file: Path | None, active: Path) -> Path:
    """Return the file or folder to read: `active` for one of its own files or its `rules.d`, only valid together."""
    if file is None:
        return active
    own = {*_members(active), (base_folder(active) / FOLDER).resolve()}
    return active if file.exists() and file.resolve() in own else file


def _members(active: Path) -> set[Path]:
    return {file.resolve() for file in list_rules_files(active)}


@dataclass(frozen=True)
class NewRules:
    """The rules of the service with one file replaced or added, or other rules as they are."""

    files: Sequence[SourceFile]
    path: Path
    """The file or folder that they belong to."""
    target: Path | None
    """The file that is replaced or created. None: nothing, the rules are taken as they are."""
    description: str


def new_rules(new: Path, replaced: Path | None, active: Path) -> NewRules:
    """Return the active rules with the file `new` in place of `replaced`, which may not exist yet.

    Without `replaced`, a folder or a file of the active rules is taken as it is, and any other file replaces the main
    file, or the file with the same name. Raise ConfigError if it is unclear which file is meant.
    """
    if replaced is None:
        path = rules_path(new, active)
        if path != new or new == active or new.is_dir():
            return NewRules(read_rules_files(path), path, None, str(path))
    target = _target(new, replaced, active)
    folder = base_folder(active)
    others = [file for file in list_rules_files(active) if file.exists()]
    files = sorted({*others, target}, key=lambda file: (file.parent != folder, file.name))
    sources = read_files({file: new if file == target else file for file in files}, active)
    return NewRules(sources, active, target, f"{new} in place of {target}")


def _target(new: Path, replaced: Path | None, active: Path) -> Path:
    """Return the path of the file to replace, in the folder of the active rules."""
    if replaced is None and not active.is_dir():
        return active
    folder = base_folder(active)
    found = replaced or folder / new.name
    folders = {place.resolve(): place for place in (folder, folder / FOLDER)}
    parents = [place for place in (found.parent, folder / found.parent) if place.resolve() in folders]
    target = folders[parents[0].resolve()] / found.name if parents else found
    is_read = role_of(target) == "" and (active.is_dir() or target.parent != folder or target == active)
    if not parents or not is_read or (replaced is None and not target.exists()):
        names = ", ".join(file.relative_to(folder).as_posix() for file in list_rules_files(active))
        raise ConfigError(
            f"{found} is not one of the rules files of {active}: name the file to replace, or a new file of "
            f"{folder / FOLDER}, with --file; the files are {names}"
        )
    return target
