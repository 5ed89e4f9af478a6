"""Shared routing: routes an event through several versions of the rules, and the rules that all have only once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from bridge.events import Event
from bridge.rules.changes import rule_definitions
from bridge.rules.counting import History
from bridge.rules.model import PlannedDelivery, Rule, Rules
from bridge.rules.route import route


class SharedRouting:
    """Routes events through versions of the rules."""

    def __init__(self, versions: Sequence[Rules]) -> None:
        first, *others = versions
        same = _same_rules(first, others) if others else set[str]()
        self._common = _subset(first, same)
        self._own = [_subset(rules, {rule.name for rule in rules.rules} - same) for rules in versions]
        self._positions = [{rule.name: number for number, rule in enumerate(it.rules)} for it in versions]

    def route(self, event: Event, history: History) -> list[Sequence[PlannedDelivery]]:
        """Return the deliveries of the event under each version."""
        common = _planned(event, self._common, history)
        return [
            sorted([*common, *_planned(event, own, history)], key=lambda item: positions[item.rule])
            for own, positions in zip(self._own, self._positions, strict=True)
        ]


def _planned(event: Event, rules: Rules, history: History) -> Sequence[PlannedDelivery]:
    if not rules.for_event(event.type).evaluated:
        return ()
    return route(event, rules, event.received_at, history).planned


def _subset(rules: Rules, names: Collection[str]) -> Rules:
    return replace(rules, rules=tuple(rule for rule in rules.rules if rule.name in names))


def _same_rules(first: Rules, others: Sequence[Rules]) -> set[str]:
    """Return the names of the rules that plan the same deliveries for every event in all versions."""
    return {rule.name for rule in first.rules if all(_is_same(rule, first, other) for other in others)}


def _is_same(rule: Rule, rules: Rules, others: Rules) -> bool:
    other = others.named(rule.name)
    if other is None or rules.messaging.time_zone != others.messaging.time_zone:
        return False
    if (rule.enabled, rule.shadow) != (other.enabled, other.shadow):
        return False
    if [step.action for step in rule.steps] != [step.action for step in other.steps]:
        return False  # defined by another version of a connector
    definitions = [rule_definitions(version.text).get(rule.name) for version in (rules, others)]
    return None not in definitions and definitions[0] == definitions[1]
