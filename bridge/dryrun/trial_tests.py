"""The tests of changed rules, for the dashboard. Separate from `trial`, because a plan does not need the engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bridge.clock import uptime
from bridge.dryrun.rule_tests import RuleTestResult, run_tests
from bridge.dryrun.trial import MAX_SECONDS, TooSlow
from bridge.events import EVENT_TYPES
from bridge.rules.model import Rules


def run_own_tests(
    rules: Rules,
    default_country: str | None,
    *,
    seconds: float = MAX_SECONDS,
    clock: Callable[[], float] = uptime,
) -> dict[str, Any]:
    """Run the tests of the rules and return the results as plain data; only the first ones if time is short.

    Tests with events from files are left out: a trial must not read files of the server.
    """
    tests = [test for test in rules.tests if all(event.source in EVENT_TYPES for event in test.events)]
    deadline = clock() + seconds
    results: list[RuleTestResult] = []

    def keep(result: RuleTestResult) -> None:
        results.append(result)
        if clock() > deadline:
            raise TooSlow

    with suppress(TooSlow):
        run_tests(rules, tests, on_result=keep, default_country=default_country)
    return {
        "run": len(results),
        "not_run": len(rules.tests) - len(results),
        "failed": [
            {
                "name": result.name,
                "line": result.line,
                "mismatches": [item.text for item in result.mismatches],
            }
            for result in results
            if not result.passed
        ],
    }
