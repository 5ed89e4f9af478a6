"""The files of a set of rules, and the one text that stands for all of them in the database.

A set of one file is stored as that file's text. A set of several is stored as their texts, each after a line with its
name and length, so that it can be read like a file, split again without loss, and compared by one hash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_HEADER = re.compile(r"#: ([^\n]+), (\d+) characters\n")


@dataclass(frozen=True)
class SourceFile:
    """One file of a set of rules."""

    path: str
    """As reports show it."""
    content: bytes | str
    name: str = ""
    """Its path from the folder of the set, such as `rules.d/sms.yaml`: the same on every machine."""


def join_sources(files: Sequence[tuple[str, str]]) -> str:
    """Return the stored text of a set: (name, text) of each file."""
    if len(files) == 1 and not _HEADER.match(files[0][1]):
        return files[0][1]
    return "".join(f"#: {name}, {len(text)} characters\n{text}\n" for name, text in files)


def split_sources(text: str, path: str) -> list[SourceFile]:
    """Return the files of a stored text. A text that is not a set is one file, called `path`."""
    files: list[SourceFile] = []
    position = 0
    while position < len(text):
        header = _HEADER.match(text, position)
        end = header.end() + int(header.group(2)) if header else 0
        if header is None or text[end : end + 1] != "\n":
            return [SourceFile(path, text, path)]
        files.append(SourceFile(header.group(1), text[header.end() : end], header.group(1)))
        position = end + 1
    return files or [SourceFile(path, text, path)]
