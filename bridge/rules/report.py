"""Text report of diagnostics: place, line, caret, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.errors import ConfigError
from bridge.rules.model import Diagnostic, LoadResult
from bridge.rules.yaml import lines_of

_MAX_WIDTH = 100
"""Characters of a line that the report shows."""
_CONTEXT_BEFORE = 60
"""Characters before the caret that a shortened line keeps."""
_SET_UP_HINT = (
    "set these in the environment or in .env; `bridge connectors show NAME` describes each variable"
)


class RulesError(ConfigError):
    """A rules file with errors. The message is the whole report; `ending` adds the consequence."""

    def __init__(self, loaded: LoadResult, ending: str = "") -> None:
        super().__init__(report(loaded.diagnostics, loaded.texts) + ending)
        self.diagnostics = loaded.diagnostics
        self.texts = loaded.texts


def report(diagnostics: Sequence[Diagnostic], texts: Mapping[str, str]) -> str:
    """Return every diagnostic with its line and hint, and a summary. Return an empty string if there are none.

    `texts` has the text of each file by its path. Diagnostics of the files come first, then one line for each
    connection that is not set up.
    """
    if not diagnostics:
        return ""
    lines = {path: lines_of(text) for path, text in texts.items()}
    in_file = [diagnostic for diagnostic in diagnostics if diagnostic.connection is None]
    not_set_up = [
        f"{diagnostic.text}  ({diagnostic.path + ', ' if len(texts) > 1 else ''}line {diagnostic.line})"
        for diagnostic in diagnostics
        if diagnostic.connection is not None
    ]
    parts = [_with_source_line(diagnostic, lines.get(diagnostic.path, ())) for diagnostic in in_file]
    if not_set_up:
        parts += [*([""] if in_file else []), *not_set_up, f"  hint: {_SET_UP_HINT}"]
    return "\n".join([*parts, "", _summary(in_file, len(not_set_up))])


def one_line(diagnostic: Diagnostic) -> str:
    """Return the place, text and hint of a diagnostic on one line, for the log."""
    return _place_and_text(diagnostic) + (f"; {diagnostic.hint}" if diagnostic.hint else "")


def source_line(diagnostic: Diagnostic, texts: Mapping[str, str]) -> tuple[str, int]:
    """Return the line of the file that a diagnostic is about, shortened around its place, and the column in that.

    Return an empty string if the place is unknown.
    """
    lines = lines_of(texts.get(diagnostic.path, ""))
    if not 0 < diagnostic.line <= len(lines):
        return "", 0
    return _window(lines[diagnostic.line - 1], diagnostic.column)


def _place_and_text(diagnostic: Diagnostic) -> str:
    level = "warning: " if diagnostic.level == "warning" else ""
    rule = f"  (rule `{diagnostic.rule}`)" if diagnostic.rule else ""
    return f"{diagnostic.path}:{diagnostic.line}:{diagnostic.column}: {level}{diagnostic.text}{rule}"


def _with_source_line(diagnostic: Diagnostic, lines: Sequence[str]) -> str:
    rows = [_place_and_text(diagnostic)]
    if 0 < diagnostic.line <= len(lines):
        line, column = _window(lines[diagnostic.line - 1], diagnostic.column)
        gutter = f"  {diagnostic.line} | "
        rows.append((gutter + line).rstrip())
        rows.append(" " * (len(gutter) - 2) + "| " + " " * (column - 1) + "^")
    if diagnostic.hint:
        rows.append(f"  hint: {diagnostic.hint}")
    return "\n".join(rows)


def _window(line: str, column: int) -> tuple[str, int]:
    """Return the part of a long line around a column, and the column within that part."""
    line = "".join(char if char.isprintable() else " " for char in line[: column + _MAX_WIDTH])
    start = 0
    if column > _MAX_WIDTH - 20:
        start = column - _CONTEXT_BEFORE
        line = "…" + line[start:]
        start -= 1
    if len(line) > _MAX_WIDTH:
        line = line[: _MAX_WIDTH - 1] + "…"
    return line, column - start


def _summary(in_file: Sequence[Diagnostic], not_set_up: int) -> str:
    errors = sum(diagnostic.level == "error" for diagnostic in in_file)
    counts = [
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((errors, "problem"), (len(in_file) - errors, "warning"))
        if count
    ]
    paths = {diagnostic.path for diagnostic in in_file}
    place = f"{len(paths)} files" if len(paths) > 1 else "".join(paths)
    parts = [f"{' and '.join(counts)} in {place}"] if counts else []
    if not_set_up:
        parts.append(
            "1 connection is not set up" if not_set_up == 1 else f"{not_set_up} connections are not set up"
        )
    return "; ".join(parts)
