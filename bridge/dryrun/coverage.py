"""Test coverage: the rules, condition results and actions that the tests of a rules file never tried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal

from bridge.dryrun.engine import DryRun
from bridge.rules.model import Rules, Step, Trigger
from bridge.rules.trace import Check, Trace

_LOCATIONS: Final[dict[Trigger, str]] = {
    "rule": "",
    "on_success": " in on_success",
    "on_failure": " in on_failure",
    "alert": " in alerts",
}


@dataclass(frozen=True)
class Gap:
    """A rule, condition or action that no test tried."""

    kind: Literal["rule", "condition", "action"]
    rule: str
    path: str
    line: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the gap as plain data."""
        return vars(self)


@dataclass(frozen=True)
class Coverage:
    """Share of the rules that the tests cover. Disabled rules do not count."""

    rules: tuple[int, int]
    """Rules that fired in a test, and all rules."""
    conditions: tuple[int, int]
    """Condition results seen, and all possible ones: each condition can hold and not hold."""
    actions: tuple[int, int]
    """Actions attempted in a test, and all actions, including those of `on_success`, `on_failure` and `alerts`."""
    gaps: tuple[Gap, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the coverage as plain data."""
        return {
            "rules": list(self.rules),
            "conditions": list(self.conditions),
            "actions": list(self.actions),
            "gaps": [gap.to_json() for gap in self.gaps],
        }


def coverage_of(rules: Rules, dry_runs: Iterable[DryRun]) -> Coverage:
    """Return how much of the rules these dry runs tried."""
    fired: set[str] = set()
    results: defaultdict[str, defaultdict[tuple[int, str], set[bool]]] = defaultdict(lambda: defaultdict(set))
    attempted: set[tuple[Trigger, str, int]] = set()
    for dry_run in dry_runs:
        for event, traces in dry_run.traces:
            for trace in traces:
                rule = rules.named(trace.rule)
                if rule is None or not rule.enabled or event.type not in rule.when:
                    continue
                if trace.fired:
                    fired.add(trace.rule)
                for index, check in _conditions(trace):
                    results[trace.rule][index, check.condition].add(check.result == "true")
        for delivery in dry_run.deliveries:
            if delivery.attempted or delivery.reason == "shadow":
                planned = delivery.planned
                attempted.add((planned.trigger, planned.rule, planned.step_index))
    enabled = [rule for rule in rules.rules if rule.enabled]
    steps = list(_steps(rules))
    gaps: list[Gap] = []
    for rule in enabled:
        if rule.name not in fired:
            gaps.append(Gap("rule", rule.name, rule.path, rule.line, "never fires"))
        for (_, condition), seen in results[rule.name].items():
            if len(seen) == 1:
                gap = "never true" if False in seen else "always true"
                gaps.append(Gap("condition", rule.name, rule.path, rule.line, f"{condition}: {gap}"))
    gaps += [
        Gap("action", name, step.path, step.line, f"{step.use}{_LOCATIONS[trigger]} is never attempted")
        for trigger, name, step_index, step in steps
        if (trigger, name, step_index) not in attempted
    ]
    conditions = [seen for by_condition in results.values() for seen in by_condition.values()]
    return Coverage(
        rules=(len(fired), len(enabled)),
        conditions=(sum(map(len, conditions)), 2 * len(conditions)),
        actions=(sum(step[:3] in attempted for step in steps), len(steps)),
        gaps=tuple(gaps),
    )


def _conditions(trace: Trace) -> Iterator[tuple[int, Check]]:
    """Yield the single conditions of a rule, without its event types, which come first, and without groups."""
    for index, (check, following) in enumerate(zip_longest(trace.checks, trace.checks[1:])):
        if index > 0 and (following is None or following.depth <= check.depth):
            yield index, check


def _steps(rules: Rules) -> Iterator[tuple[Trigger, str, int, Step]]:
    for rule in rules.rules:
        if rule.enabled:
            yield from _numbered("rule", rule.name, rule.do)
            yield from _numbered("on_success", rule.name, rule.on_success)
            yield from _numbered("on_failure", rule.name, rule.on_failure)
    yield from _numbered("alert", "alerts", rules.alerts)


def _numbered(trigger: Trigger, name: str, steps: Sequence[Step]) -> Iterator[tuple[Trigger, str, int, Step]]:
    for step_index, step in enumerate(steps):
        yield trigger, name, step_index, step
