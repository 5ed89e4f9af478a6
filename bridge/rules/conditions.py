"""Conditions: evaluates `where`, `if` and `messaging.consent` for one event as true, false or unknown, with a trace.

A field that is missing, null, unreadable or of another type makes its condition unknown for every operator: `ne` and
`not` do not match a missing field. Groups follow Kleene's three-valued logic: `all` is false if any part is false,
`any` is true if any part is true, and otherwise an unknown part makes the group unknown. A rule fires only on true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.json_values import describe_type
from bridge.lazy import lazy
from bridge.rules.contradictions import Requirement
from bridge.rules.counting import describe_times
from bridge.rules.lookup import UNREAD, TemplateContext, describe_absence, look_up, show_fields, unreadable
from bridge.rules.model import Condition
from bridge.rules.operators import OPERATORS, PRESENCE_OPERATORS, is_filled
from bridge.rules.presence import Paths, proven_by_all, proven_by_any
from bridge.rules.template_filters import RenderError
from bridge.rules.templates import Template
from bridge.rules.trace import Check, Truth

_NEGATION: dict[Truth, Truth] = {"true": "false", "false": "true", "unknown": "unknown"}


_MAX_VALUES = 8
"""Fields of an expression whose values the trace shows."""


def combine(kind: str, results: Sequence[Truth]) -> Truth:
    """Return the result of a group (`all`, `any`, `not`) from the results of its parts."""
    if kind == "not":
        return _NEGATION[combine("all", results)]
    decisive: Truth = "true" if kind == "any" else "false"
    if decisive in results:
        return decisive
    if "unknown" in results:
        return "unknown"
    return "false" if kind == "any" else "true"


@dataclass(frozen=True)
class Comparison:
    """A field, an operator and a value of `where`: `event.direction` `eq` `outbound`."""

    path: tuple[str, ...]
    operator: str
    expected: Any
    text: str
    """The comparison as the trace shows it."""

    def check(self, context: TemplateContext, checks: list[Check], depth: int = 0) -> Truth:
        """Evaluate the comparison and append its row of the trace."""
        value, actual = look_up(context, self.path)
        matches: bool | None = None
        reason = ""
        if self.operator in PRESENCE_OPERATORS:
            is_there = value is not None if self.operator == "exists" else is_filled(value)
            matches = is_there is self.expected
            reason = (unreadable(context, self.path) or "") if value is None else ""
        elif value is None:
            reason = describe_absence(context, self.path, actual)
        else:
            matches = OPERATORS[self.operator](value, self.expected)
            if matches is None:
                reason = _describe_mismatch(self.operator, value, self.expected)
        result: Truth = "unknown" if matches is None else "true" if matches else "false"
        checks.append(Check(self.text, actual, result, reason, depth))
        return result

    def requirements(self) -> Sequence[Requirement]:
        """Return this comparison."""
        return (self,)

    def proves(self) -> Paths:
        """Return the field, unless the comparison is true of a field without a value."""
        is_absence = self.operator in PRESENCE_OPERATORS and not self.expected
        return frozenset() if is_absence else frozenset([self.path])


def _describe_mismatch(operator: str, value: Any, expected: Any) -> str:
    """Say why the operator cannot compare the two values: `a string is not compared with a number`."""
    kind = describe_type(value)
    others = sorted(
        {describe_type(item) for item in (expected if isinstance(expected, list) else [expected])}
    )
    if operator in ("contains", "starts_with", "ends_with") or kind in others:
        return f"{operator} does not apply to {kind}"
    return f"{kind} is not compared with {' or '.join(others)}"


@dataclass(frozen=True)
class Group:
    """A group of conditions: all of them, any of them, or not all of them."""

    kind: Literal["all", "any", "not"]
    parts: tuple[Condition, ...]

    def check(self, context: TemplateContext, checks: list[Check], depth: int = 0) -> Truth:
        """Evaluate every part, so that the trace is complete, and then the group."""
        index = len(checks)
        result = combine(self.kind, [part.check(context, checks, depth + 1) for part in self.parts])
        checks.insert(index, Check(f"{self.kind} of {len(self.parts)}", "", result, "", depth))
        return result

    def requirements(self) -> Sequence[Requirement]:
        """Return the comparisons of a group that must all be true."""
        return [item for part in self.parts for item in part.requirements()] if self.kind == "all" else ()

    def proves(self) -> Paths:
        """Return the fields that have a value whenever the group is true."""
        if self.kind == "all":
            return proven_by_all(self.parts)
        return proven_by_any(self.parts) if self.kind == "any" else frozenset()


@dataclass(frozen=True)
class Expression:
    """An `if` or a `messaging.consent`: one row of the trace, unknown if the expression cannot be evaluated."""

    label: str
    template: Template

    def check(self, context: TemplateContext, checks: list[Check], depth: int = 0) -> Truth:
        """Evaluate the expression and append its row of the trace."""
        unread: set[str] = context[UNREAD]
        unread.clear()
        try:
            result: Truth = "true" if self.template.run(context) else "false"
        except RenderError as error:
            checks.append(Check(self._text, "", "unknown", str(error), depth))
            return "unknown"
        reason = "; ".join(sorted(unread)) if unread else ""
        checks.append(Check(self._text, self._values(context) or result, result, reason, depth))
        return result

    @lazy
    def _text(self) -> str:
        """The expression as the trace shows it."""
        return f"{self.label} {self.template.source}"

    @lazy
    def _paths(self) -> tuple[tuple[str, ...], ...]:
        """The fields whose values the trace shows."""
        return tuple(sorted(self.template.paths)[:_MAX_VALUES])

    def _values(self, context: TemplateContext) -> str:
        """Return what decided: the events counted, and the values of the fields: `event.duration is 3`."""
        fields = show_fields(context, self._paths)
        if not self.template.counts:
            return fields
        counts = [describe_times(count.times(context)) for count in self.template.counts]
        return "; ".join([*counts, fields] if fields else counts)

    def requirements(self) -> Sequence[Requirement]:
        """Return the comparisons with constants that must all be true."""
        return self.template.requirements

    def proves(self) -> Paths:
        """Return the fields that have a value whenever the expression is true."""
        return self.template.proves
