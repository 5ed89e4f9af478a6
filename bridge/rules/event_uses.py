"""The event types that a set of rules needs from Heppu: those that rules are for, are cancelled by, or count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridge.events import HEPPU_EVENTS
from bridge.rules.conditions import Expression, Group
from bridge.rules.counting import CountComparison
from bridge.rules.model import Rule, Rules, Step
from bridge.rules.templates import Template


def event_uses(rules: Rules) -> dict[str, list[str]]:
    """Return each event type that the enabled rules need from Heppu -> the rules that need it, in the file's order."""
    uses: dict[str, dict[str, None]] = {}
    for rule in rules.rules:
        if rule.enabled:
            for event_type in _needed(rule):
                uses.setdefault(event_type, {})[rule.name] = None
    return {event_type: list(uses[event_type]) for event_type in HEPPU_EVENTS if event_type in uses}


def related_event_types(rules: Rules) -> frozenset[str]:
    """Return the event types that deliveries about other events look for: to be cancelled by them, or to count them."""
    return frozenset(event_type for rule in rules.rules if rule.enabled for event_type in _related(rule))


def _needed(rule: Rule) -> Iterator[str]:
    yield from rule.when
    yield from _related(rule)


def _related(rule: Rule) -> Iterator[str]:
    yield from _counted(rule.conditions)
    for step in rule.steps:
        yield from step.cancel_on
        yield from _counted(_templates(step))


def _counted(items: Iterable[Any]) -> Iterator[str]:
    """Yield the event types that conditions and templates count."""
    for item in items:
        if isinstance(item, Group):
            yield from _counted(item.parts)
        elif isinstance(item, CountComparison):
            yield from item.count.event_types
        elif isinstance(item, Expression):
            yield from _counted([item.template])
        elif isinstance(item, Template):
            for count in item.counts:
                yield from count.event_types


def _templates(step: Step) -> Iterator[Any]:
    pending: list[Any] = [*step.values.values(), step.idempotency_key]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
        else:
            yield value
