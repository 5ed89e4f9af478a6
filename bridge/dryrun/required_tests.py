"""Required tests: a rules file is put into effect only if its tests pass."""

from __future__ import annotations

from typing import Final

from bridge.connector.discovery import Registry
from bridge.dryrun.rule_tests import RuleTestResult, run_tests
from bridge.dryrun.test_files import load_test_files
from bridge.errors import ConfigError
from bridge.rules.model import Rules

MAX_NAMED_TESTS: Final = 5


def require_passing_tests(rules: Rules, registry: Registry, default_country: str | None = None) -> int:
    """Run the tests in a rules file and in the test files next to it; return their number.

    Raise ConfigError that names the failed tests, or the unusable test files.
    """
    complete, files = load_test_files(rules, registry)
    if broken := [file.report for file in files if not file.usable]:
        raise ConfigError("\n\n".join(broken))
    results = run_tests(complete, default_country=default_country).results
    failed = [result for result in results if not result.passed]
    if failed:
        names = "; ".join(map(_describe, failed[:MAX_NAMED_TESTS]))
        more = f"; and {len(failed) - MAX_NAMED_TESTS} more" if len(failed) > MAX_NAMED_TESTS else ""
        raise ConfigError(
            f"{len(failed)} of the {len(results)} tests of {rules.path} failed: {names}{more}; "
            "`bridge test FILE` shows why"
        )
    return len(results)


def _describe(result: RuleTestResult) -> str:
    """Return the name of a failed test with the first thing that is not as expected."""
    first = result.mismatches[0]
    return f"{result.name} ({f'{first.rule}: ' if first.rule else ''}{first.text})"
