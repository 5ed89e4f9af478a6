"""What the tests of a rules file never tried: rules, outcomes of conditions, and actions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from bridge.dryrun.simulator import Simulation
from bridge.rules.model import Check, Rules, Step, Trace, Trigger


@dataclass(frozen=True)
class Gap:
    """Something that no test tried."""

    kind: Literal["rule", "condition", "action"]
    rule: str
    line: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """The gap as plain data."""
        return vars(self)


@dataclass(frozen=True)
class Coverage:
    """How much of the rules the tests tried. Rules that are switched off do not count."""

    rules: tuple[int, int]
    """How many fired in some test, of how many."""
    conditions: tuple[int, int]
    """Outcomes seen, of those possible: each condition can hold and not hold."""
    actions: tuple[int, int]
    """How many were attempted in some test, of how many; those of `on_failure` and `alerts` included."""
    gaps: tuple[Gap, ...]

    def to_json(self) -> dict[str, Any]:
        """The coverage as plain data."""
        return {
            "rules": list(self.rules),
            "conditions": list(self.conditions),
            "actions": list(self.actions),
            "gaps": [gap.to_json() for gap in self.gaps],
        }


def coverage_of(rules: Rules, simulations: Iterable[Simulation]) -> Coverage:
    """What these simulations tried of the rules."""
    fired: set[str] = set()
    outcomes: defaultdict[str, defaultdict[tuple[int, str], set[bool]]] = defaultdict(
        lambda: defaultdict(set)
    )
    attempted: set[tuple[Trigger, str, int]] = set()
    for simulation in simulations:
        for event, traces in simulation.traces:
            for trace in traces:
                rule = rules.named(trace.rule)
                if rule is None or not rule.enabled or event.type not in rule.when:
                    continue
                if trace.fired:
                    fired.add(trace.rule)
                for place, check in _conditions(trace):
                    outcomes[trace.rule][place, check.condition].add(check.result == "true")
        for delivery in simulation.deliveries:
            if delivery.attempted or delivery.reason == "shadow":
                planned = delivery.planned
                attempted.add((planned.trigger, planned.rule, planned.step_index))
    enabled = [rule for rule in rules.rules if rule.enabled]
    steps = list(_steps(rules))
    gaps: list[Gap] = []
    for rule in enabled:
        if rule.name not in fired:
            gaps.append(Gap("rule", rule.name, rule.line, "never fires"))
        for (_, wanted), seen in outcomes[rule.name].items():
            if len(seen) == 1:
                missing = "never holds" if False in seen else "always holds"
                gaps.append(Gap("condition", rule.name, rule.line, f"{wanted}: {missing}"))
    gaps += [
        Gap("action", name, step.line, f"{step.use}{_place(origin)} is never attempted")
        for origin, name, position, step in steps
        if (origin, name, position) not in attempted
    ]
    conditions = [seen for found in outcomes.values() for seen in found.values()]
    return Coverage(
        rules=(len(fired), len(enabled)),
        conditions=(sum(map(len, conditions)), 2 * len(conditions)),
        actions=(sum(step[:3] in attempted for step in steps), len(steps)),
        gaps=tuple(gaps),
    )


def _conditions(trace: Trace) -> Iterator[tuple[int, Check]]:
    """The single conditions of a rule: neither the events it is for, which come first, nor groups of conditions."""
    for place, (check, following) in enumerate(zip_longest(trace.checks, trace.checks[1:])):
        if place > 0 and (following is None or following.depth <= check.depth):
            yield place, check


def _steps(rules: Rules) -> Iterator[tuple[Trigger, str, int, Step]]:
    for rule in rules.rules:
        if rule.enabled:
            yield from _placed("rule", rule.name, rule.do)
            yield from _placed("on_failure", rule.name, rule.on_failure)
    yield from _placed("alert", "alerts", rules.alerts)


def _placed(origin: Trigger, name: str, steps: Sequence[Step]) -> Iterator[tuple[Trigger, str, int, Step]]:
    for position, step in enumerate(steps):
        yield origin, name, position, step


def _place(origin: Trigger) -> str:
    return {"rule": "", "on_failure": " in on_failure", "alert": " in alerts"}[origin]
