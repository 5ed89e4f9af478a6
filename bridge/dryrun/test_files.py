"""Tests in files of their own, beside the rules file: where they are looked for, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError
from bridge.rules.load import load_tests
from bridge.rules.model import Problem, Rules
from bridge.rules.report import report


@dataclass(frozen=True)
class TestsFile:
    """A file of tests that was read."""

    path: Path
    text: bytes
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> bool:
        """Whether it has no errors; warnings stop nobody."""
        return all(problem.level != "error" for problem in self.problems)

    @property
    def report(self) -> str:
        """Every problem with its place."""
        return report(self.problems, self.text.decode("utf-8", "replace"), str(self.path))


def files_beside(path: Path) -> list[Path]:
    """For `rules.yaml`: `rules.tests.yaml` beside it, and every `*.yaml` in the folder `tests` beside it."""
    own = path.with_name(f"{path.stem}.tests.yaml")
    return [found for found in (own, *sorted((path.parent / "tests").glob("*.yaml"))) if found.is_file()]


def with_tests_beside(rules: Rules, registry: Registry) -> tuple[Rules, tuple[TestsFile, ...]]:
    """The rules with the tests of every file beside theirs that has no error, and what was read.

    Raises ConfigError when a file cannot be read.
    """
    files = []
    for path in files_beside(Path(rules.path)):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        loaded = load_tests(text, path=str(path), rules=rules, registry=registry)
        files.append(TestsFile(path, text, loaded.problems))
        rules = loaded.rules or rules
    return rules, tuple(files)
