"""Problems as people read them: place, line, caret, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.errors import ConfigError
from bridge.rules.model import Problem
from bridge.rules.yaml import lines_of

_WIDEST = 100
_BEFORE = 60
_SET_UP = "set these in the environment or in .env; `bridge connectors show NAME` says what each variable is"


class RulesError(ConfigError):
    """A rules file that cannot be used; the text is the whole report, `ending` what follows from it."""

    def __init__(self, problems: Sequence[Problem], text: str, path: str, ending: str = "") -> None:
        super().__init__(report(problems, text, path) + ending)
        self.problems = tuple(problems)
        self.path = path


def report(problems: Sequence[Problem], text: str, path: str) -> str:
    """Every problem with its line and a hint, and how many there are; empty when there is none.

    What is wrong with the file comes first, then the connections that are not set up, one line each.
    """
    if not problems:
        return ""
    lines = lines_of(text)
    mistakes = [problem for problem in problems if problem.connection is None]
    missing = [
        f"{problem.text}  (line {problem.line})" for problem in problems if problem.connection is not None
    ]
    parts = [_one(problem, lines, path) for problem in mistakes]
    if missing:
        parts += [*([""] if mistakes else []), *missing, f"  hint: {_SET_UP}"]
    return "\n".join([*parts, "", _summary(mistakes, len(missing), path)])


def one_line(problem: Problem, path: str) -> str:
    """A problem's place, text and hint, for where there is one line each, such as the log."""
    return _place_and_text(problem, path) + (f"; {problem.hint}" if problem.hint else "")


def _place_and_text(problem: Problem, path: str) -> str:
    level = "warning: " if problem.level == "warning" else ""
    rule = f"  (rule `{problem.rule}`)" if problem.rule else ""
    return f"{path}:{problem.line}:{problem.column}: {level}{problem.text}{rule}"


def _one(problem: Problem, lines: Sequence[str], path: str) -> str:
    shown = [_place_and_text(problem, path)]
    if 0 < problem.line <= len(lines):
        line, column = _window(lines[problem.line - 1], problem.column)
        gutter = f"  {problem.line} | "
        shown.append((gutter + line).rstrip())
        shown.append(" " * (len(gutter) - 2) + "| " + " " * (column - 1) + "^")
    if problem.hint:
        shown.append(f"  hint: {problem.hint}")
    return "\n".join(shown)


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a long line around the mistake, and the mistake's column in it."""
    line = "".join(char if char.isprintable() else " " for char in line[: column + _WIDEST])
    start = 0
    if column > _WIDEST - 20:
        start = column - _BEFORE
        line = "…" + line[start:]
        start -= 1
    if len(line) > _WIDEST:
        line = line[: _WIDEST - 1] + "…"
    return line, column - start


def _summary(mistakes: Sequence[Problem], missing: int, path: str) -> str:
    errors = sum(problem.level == "error" for problem in mistakes)
    counts = [
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((errors, "problem"), (len(mistakes) - errors, "warning"))
        if count
    ]
    parts = [f"{' and '.join(counts)} in {path}"] if counts else []
    if missing:
        parts.append(
            "1 connection is not set up" if missing == 1 else f"{missing} connections are not set up"
        )
    return "; ".join(parts)
