"""Differences between two texts, word by word, and between two files, line by line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

MAX_WORDS: Final = 1500
"""Words of a text that are compared; comparing takes quadratic time."""
CONTEXT_LINES: Final = 3
MAX_DIFF_LINES: Final = 2000
_WORD: Final = re.compile(r"\S+\s*|\s+")


class Piece(NamedTuple):
    """A part of a text that both have, or that only one has."""

    kind: Literal["same", "removed", "added"]
    text: str


class DiffLine(NamedTuple):
    """A line of a diff between two files."""

    kind: Literal["same", "removed", "added", "place"]
    text: str


def word_diff(old: Any, new: Any) -> list[Piece]:
    """Return the pieces of two values as texts, in order: what is removed comes before what is added in its place."""
    before, after = _words(old), _words(new)
    pieces: list[Piece] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(before[old_start:old_end])))
            continue
        for kind, words in (("removed", before[old_start:old_end]), ("added", after[new_start:new_end])):
            if words:
                pieces.append(Piece(kind, "".join(words)))  # type: ignore[arg-type]
    return pieces


def _words(value: Any) -> list[str]:
    words = _WORD.findall(as_text(value))
    return words if len(words) <= MAX_WORDS else [*words[:MAX_WORDS], "…"]


def as_text(value: Any) -> str:
    """Return a value as people read it: a text as it is, nothing as nothing, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def line_diff(old: str, new: str) -> list[DiffLine]:
    """Return the changed lines of a file with some lines around them; at most MAX_DIFF_LINES."""
    return list(_line_diff(old, new))[:MAX_DIFF_LINES]


def _line_diff(old: str, new: str) -> Iterator[DiffLine]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=CONTEXT_LINES, lineterm="")
    for number, line in enumerate(lines):
        if number < 2:  # the names of the files
            continue
        if line.startswith("@@"):
            yield DiffLine("place", line)
        else:
            kinds: dict[str, Literal["same", "removed", "added"]] = {"-": "removed", "+": "added"}
            yield DiffLine(kinds.get(line[:1], "same"), line[1:])
