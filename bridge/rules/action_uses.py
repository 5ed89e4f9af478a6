"""The steps of the loaded rules as connectors check them against an account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bridge.connector.rule_checks import FROM_EVENT, ActionUse, RuleProblem
from bridge.rules.model import Diagnostic, Rules, Step
from bridge.rules.parse_params import DefaultParam


def action_uses(rules: Rules) -> dict[str, list[ActionUse]]:
    """Return connection -> every step of an enabled rule and every alert that uses it, in the order of the file."""
    uses: dict[str, list[ActionUse]] = {}
    for rule, step in _steps(rules):
        use = ActionUse(step.action, _written_params(step), rule, step.places)
        for connection in step.connections:
            uses.setdefault(connection, []).append(use)
    return uses


def diagnostic(problem: RuleProblem, use: ActionUse) -> Diagnostic:
    """Return a problem of a step as a diagnostic of the file."""
    place = use.place_of(problem.location)
    return Diagnostic(
        place.line, place.column, problem.text, problem.hint, use.rule, problem.level, path=place.path
    )


def _steps(rules: Rules) -> Iterator[tuple[str | None, Step]]:
    for rule in rules.rules:
        if rule.enabled:
            yield from ((rule.name, step) for step in rule.steps)
    yield from ((None, step) for step in rules.alerts)


def _written_params(step: Step) -> Mapping[str, Any]:
    return {
        name: _literal(value) for name, value in step.values.items() if not isinstance(value, DefaultParam)
    }


def _literal(value: Any) -> Any:
    """Return a compiled value with FROM_EVENT in place of its templates."""
    if isinstance(value, Mapping):
        return {name: _literal(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_literal(item) for item in value]
    return FROM_EVENT if callable(value) else value
