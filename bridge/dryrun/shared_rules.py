"""Shared rules: what two versions of the rules have in common, which a plan routes and simulates only once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from bridge.connector.idempotency import per_conversation, per_event, per_message
from bridge.events import Event
from bridge.rules.changes import rule_definitions
from bridge.rules.counting import History
from bridge.rules.model import PlannedDelivery, Rule, Rules, Step
from bridge.rules.route import route

_SCOPES: Final = (per_conversation, per_event, per_message)
"""The scopes whose idempotency keys contain the action."""
_ANY_ACTION: Final = "any action"
"""Stands for the actions whose idempotency keys may be those of other actions."""


class SharedRules:
    """Plans the deliveries of events under two versions of the rules."""

    def __init__(self, old: Rules, new: Rules) -> None:
        same = {rule.name for rule in old.rules if _is_same(rule, old, new)}
        self._same = _subset(old, same)
        self._own = [_subset(rules, {rule.name for rule in rules.rules} - same) for rules in (old, new)]
        self._positions = [{rule.name: number for number, rule in enumerate(it.rules)} for it in (old, new)]
        self._independent = _independent(same, old, new)

    def plan(self, event: Event, history: History) -> list[Sequence[PlannedDelivery]]:
        """Return the deliveries of an event in three lists: under the old rules, under the new rules, and shared.

        A shared delivery has the same result under both versions and is in neither of their lists. One that cannot be
        rendered is never shared, because an alert may count it together with others.
        """
        shared, both = list[PlannedDelivery](), list[PlannedDelivery]()
        for item in _planned(event, self._same, history):
            is_shared = item.rule in self._independent and item.render_error is None
            (shared if is_shared else both).append(item)
        apart = [
            sorted([*both, *_planned(event, own, history)], key=lambda item: positions[item.rule])
            for own, positions in zip(self._own, self._positions, strict=True)
        ]
        return [*apart, shared]


def _planned(event: Event, rules: Rules, history: History) -> Sequence[PlannedDelivery]:
    if not rules.for_event(event.type).evaluated:
        return ()
    return route(event, rules, event.received_at, history).planned


def _subset(rules: Rules, names: Collection[str]) -> Rules:
    return replace(rules, rules=tuple(rule for rule in rules.rules if rule.name in names))


def _is_same(rule: Rule, old: Rules, new: Rules) -> bool:
    """Return True if both versions plan the same deliveries of the rule for every event."""
    other = new.named(rule.name)
    if other is None or old.messaging.time_zone != new.messaging.time_zone:
        return False
    if (rule.enabled, rule.shadow) != (other.enabled, other.shadow):
        return False
    if [step.action for step in rule.steps] != [step.action for step in other.steps]:
        return False  # defined by another version of a connector
    definitions = [rule_definitions(version.text).get(rule.name) for version in (old, new)]
    return None not in definitions and definitions[0] == definitions[1]


def _independent(same: Collection[str], old: Rules, new: Rules) -> Collection[str]:
    """Return the names of those among the same rules whose deliveries have the same result under both versions.

    What decides about them is touched by no rule that differs, by no alert, and by no rule that depends on these: the
    idempotency keys of their actions, and for messages the caps of an address and of a connection, which pause it. A
    rule with `on_failure` is not independent, because what follows a failure counts for `once` and for caps.
    """
    orders = [[rule.name for rule in rules.rules if rule.name in same] for rules in (old, new)]
    if orders[0] != orders[1]:
        return ()  # which of two deliveries comes first decides which is held back
    rules = [rule for version in (old, new) for rule in version.rules if rule.enabled]
    alerts = [*old.alerts, *new.alerts]
    messages = [step for step in _steps(rules, alerts) if step.action.channel]
    pausable = {name for step in messages for name in step.connections}
    touched = _touched(
        _steps((rule for rule in rules if rule.name not in same or rule.on_failure), alerts), pausable
    )
    if old.messaging != new.messaging:
        touched |= _touched(messages, pausable)
    untouched = {rule.name: _touched(rule.steps, pausable) for rule in rules if rule.name in same}
    while found := [name for name, needed in untouched.items() if needed & touched]:
        for name in found:
            touched |= untouched.pop(name)
    return untouched.keys()


def _steps(rules: Iterable[Rule], alerts: Iterable[Step]) -> Iterator[Step]:
    for rule in rules:
        yield from rule.steps
    yield from alerts


def _touched(steps: Iterable[Step], pausable: Collection[str]) -> set[str]:
    """Return what these steps read and change of what decides about deliveries."""
    touched: set[str] = set()
    for step in steps:
        touched.add(step.action.full_name if step.action.idempotency in _SCOPES else _ANY_ACTION)
        touched.update(name for name in step.connections if name in pausable)
        if step.action.channel:
            touched.add(step.action.channel)
    return touched
