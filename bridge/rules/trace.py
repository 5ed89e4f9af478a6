"""Traces: which rules fired for an event, and why the others did not. Pure.

Only the rules for the type of an event are evaluated, so only their traces are stored with it. Those of the other rules
follow from the `RuleOutline`s, which are stored once with each version of the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Truth = Literal["true", "false", "unknown"]
"""Three-valued logic: a field that is missing, null or of another type is unknown, and unknown never matches."""


class Check(NamedTuple):
    """The result of one condition for one event. It is a tuple because routing creates very many of them."""

    condition: str
    """The condition as the rule spells it: `event.direction eq outbound`."""
    actual: str
    """The event's value, shortened: `"inbound"`, `missing`, `null`."""
    result: Truth
    reason: str = ""
    depth: int = 0
    """Nesting depth in groups (`any`, `all`, `not`), for indentation."""


class Trace(NamedTuple):
    """The evaluation of one rule for one event: whether it fired, and why."""

    rule: str
    fired: bool
    checks: tuple[Check, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the trace as plain data, the form in which the store saves it."""
        return {
            "rule": self.rule,
            "fired": self.fired,
            "checks": [check._asdict() for check in self.checks],
            "error": self.error,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Trace:
        """Return the trace that `to_json` turned into plain data."""
        checks = tuple(Check(**check) for check in record["checks"])
        return Trace(record["rule"], record["fired"], checks, record["error"])


@dataclass(frozen=True)
class RuleOutline:
    """What the trace of a rule starts with: all that is needed if the rule is disabled or for other events."""

    name: str
    when: Sequence[str]
    when_text: str
    """`when` as the file spells it."""
    enabled: bool

    def start(self, event_type: str) -> Trace:
        """Return the trace of `enabled` and `when`. It fired so far if the rule is evaluated."""
        matches = event_type in self.when
        check = Check(f"when {self.when_text}", event_type[:80], "true" if matches else "false")
        if not self.enabled:
            return Trace(self.name, False, (Check("enabled", "false", "false"), check))
        return Trace(self.name, matches, (check,))


def complete(started: Iterable[Trace], evaluated: Iterable[Trace]) -> tuple[Trace, ...]:
    """Return the traces of all rules in file order: `started` with the evaluated ones in their places.

    If one that has to be evaluated was not, none was: a duplicate call, or an error of the router itself.
    """
    started, results = tuple(started), {trace.rule: trace for trace in evaluated}
    if any(trace.fired and trace.rule not in results for trace in started):
        return tuple(results.values())
    traces = tuple(results.pop(trace.rule, trace) for trace in started)
    return (*traces, *results.values())  # an error of the router itself belongs to no rule
