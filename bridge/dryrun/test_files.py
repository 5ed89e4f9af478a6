"""Rule-test files next to the rules file: finds and loads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError
from bridge.rules.files import list_test_files
from bridge.rules.load import load_tests
from bridge.rules.model import Diagnostic, LoadResult, Rules
from bridge.rules.report import report


@dataclass(frozen=True)
class RuleTestFile:
    """A file of rule tests that was read."""

    path: Path
    loaded: LoadResult

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The errors and warnings of the file."""
        return self.loaded.diagnostics

    @property
    def usable(self) -> bool:
        """True if the file has no errors; warnings are allowed."""
        return all(diagnostic.level != "error" for diagnostic in self.diagnostics)

    @property
    def report(self) -> str:
        """The report of every diagnostic with its place."""
        return report(self.diagnostics, self.loaded.texts)


def load_test_files(rules: Rules, registry: Registry) -> tuple[Rules, tuple[RuleTestFile, ...]]:
    """Return the rules with the tests of every usable test file added, and all test files.

    Raise ConfigError if a file cannot be read.
    """
    files = []
    for path in list_test_files(Path(rules.path)):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        loaded = load_tests(text, path=str(path), rules=rules, registry=registry)
        files.append(RuleTestFile(path, loaded))
        rules = loaded.rules or rules
    return rules, tuple(files)
