"""Unmet conditions: says in words, from the trace of a rule, which of its conditions kept it from firing.

`bridge explain`, `test`, `why` and the dashboard all use these sentences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.rules.trace import Check, Trace

_WORDS: Final = {
    "eq": ("is {}", "{}"),
    "ne": ("is not {}", "anything but {}"),
    "in": ("is one of {}", "one of {}"),
    "not_in": ("is none of {}", "none of {}"),
    "gt": ("is more than {}", "more than {}"),
    "gte": ("is at least {}", "at least {}"),
    "lt": ("is less than {}", "less than {}"),
    "lte": ("is at most {}", "at most {}"),
    "contains": ("contains {}", "it to contain {}"),
    "starts_with": ("starts with {}", "it to start with {}"),
    "ends_with": ("ends with {}", "it to end with {}"),
}
"""Operator of `where` -> how a field meets it, and what is expected of a field that does not."""
_PRESENCE: Final = {
    ("exists", "true"): ("has a value", "a value"),
    ("exists", "false"): ("has no value", "no value"),
    ("filled", "true"): ("is filled", "a value that is not empty"),
    ("filled", "false"): ("is not filled", "no value, or an empty one"),
}
_COMPARISON: Final = re.compile(rf"(.+?) ({'|'.join(_WORDS)}|exists|filled) (.*)", re.DOTALL)
_GROUP: Final = re.compile(r"(all|any|not) of \d+")
_PLAIN: Final = re.compile(r"(?!(?:true|false|null)$)[A-Za-z@+](?:[\w.@+:/ -]*\w)?")
"""A string that needs no quotes: nobody takes it for a number, a boolean or two values."""


@dataclass
class _Node:
    """A condition of a trace, and the parts of a group."""

    check: Check
    parts: list[_Node] = field(default_factory=list)


def unmet_conditions(trace: Trace) -> tuple[str, ...]:
    """Describe the conditions of a rule that were not true. A group is one condition, with its parts."""
    return tuple(_describe_unmet(node) for node in _tree(trace.checks) if node.check.result != "true")


def describe_check(check: Check) -> str:
    """Describe one line of a trace: the value of a condition that was met, the expectation of one that was not."""
    group = _GROUP.fullmatch(check.condition)
    if group:
        return {"all": "All of these:", "any": "At least one of these:", "not": "None of these:"}[group[1]]
    if check.condition == "enabled":
        return "the rule is enabled" if check.result == "true" else "the rule is disabled (`enabled: false`)"
    if check.condition.startswith("when ") and check.result == "true":
        return f"`{check.condition}` includes {check.actual}"
    node = _Node(check)
    return _describe_met(node) if check.result == "true" else _describe_unmet(node)


def is_disabled(trace: Trace) -> bool:
    """Return whether the rule was disabled and is for the type of the event."""
    checks = trace.checks
    return bool(checks) and checks[0].condition == "enabled" and all(c.result == "true" for c in checks[1:])


def is_for_other_events(trace: Trace) -> bool:
    """Return whether the rule is for other event types; a disabled rule may be, too."""
    return any(check.condition.startswith("when ") and check.result == "false" for check in trace.checks[:2])


def _tree(checks: Sequence[Check]) -> list[_Node]:
    top: list[_Node] = []
    open_groups: list[_Node] = []
    for check in checks:
        del open_groups[check.depth :]
        node = _Node(check)
        (open_groups[-1].parts if open_groups else top).append(node)
        open_groups.append(node)
    return top


def _describe_unmet(node: _Node) -> str:
    check = node.check
    group = _GROUP.fullmatch(check.condition)
    if group:
        return _describe_unmet_group(group[1], node)
    if check.condition == "enabled":
        return "the rule is disabled (`enabled: false`)"
    if check.condition.startswith("when "):
        return f"`{check.condition}` does not include {check.actual}"
    comparison = _COMPARISON.fullmatch(check.condition)
    if check.condition.startswith("if ") or comparison is None:
        why = check.reason or ("" if check.actual == check.result else check.actual)
        return f"`{check.condition}` is {check.result}" + (f": {why}" if why else "")
    if not check.actual:
        return f"`{check.condition}` is {check.result}: {check.reason}"
    path, operator, expected = comparison.groups()
    wanted = _wording(operator, expected)[1]
    if check.result == "unknown" and check.reason.startswith((f"{path} is ", f"{path} cannot be read")):
        return f"{check.reason}, expected {wanted}"
    reason = f" ({check.reason})" if check.reason else ""
    return f"{path} is {_value(check)}, expected {wanted}{reason}"


def _describe_unmet_group(kind: str, node: _Node) -> str:
    if kind == "not" and node.check.result == "false":
        return f"{_join_met(node.parts)}, which `not` excludes"
    unmet = "; ".join(_describe_unmet(part) for part in _unmet(node, kind))
    if kind == "any" and len(node.parts) > 1:
        return f"none of these {len(node.parts)} is true: {unmet}"
    return unmet


def _unmet(node: _Node, kind: str) -> Iterator[_Node]:
    """Yield the parts that decided: those that are not true; of a `not`, those without a result."""
    return (
        part
        for part in node.parts
        if part.check.result in (("unknown",) if kind == "not" else ("false", "unknown"))
    )


def _describe_met(node: _Node) -> str:
    check = node.check
    group = _GROUP.fullmatch(check.condition)
    if group:
        met = [part for part in node.parts if part.check.result == "true"]
        match group[1]:
            case "all":
                return _join_met(met)
            case "any":
                return _describe_met(met[0])
            case _:
                return "; ".join(_describe_unmet(part) for part in node.parts if part.check.result == "false")
    comparison = _COMPARISON.fullmatch(check.condition)
    if comparison is None:
        return f"`{check.condition}` is true"
    path, operator, expected = comparison.groups()
    found = "" if operator in ("eq", "exists", "filled") else f" ({check.actual})"
    return f"{path} {_wording(operator, expected)[0]}{found}"


def _join_met(parts: Sequence[_Node]) -> str:
    return " and ".join(_describe_met(part) for part in parts)


def _wording(operator: str, expected: str) -> tuple[str, str]:
    """Return how a field meets the operator, and what is expected of a field that does not."""
    if presence := _PRESENCE.get((operator, expected)):
        return presence
    met, wanted = _WORDS[operator]
    return met.format(expected), wanted.format(expected)


def _value(check: Check) -> str:
    """Return the value as the trace shows it, a plain string without its quotes."""
    if check.result == "false" and check.actual.startswith('"') and check.actual.endswith('"'):
        value = str(json.loads(check.actual))
        if _PLAIN.fullmatch(value):
            return value
    return check.actual
