"""Why a rule did not fire: counts, over many events, the first condition of the rule that was not true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bridge.rules.trace import Trace
from bridge.rules.unmet import is_disabled, is_for_other_events, unmet_conditions

COMMON: Final = 0.5
"""Part of the events of a condition from which one value is worth naming; rarer ones may be personal data."""


@dataclass(frozen=True)
class Miss:
    """A condition that kept a rule from firing."""

    text: str
    events: int


@dataclass(frozen=True)
class Misses:
    """How often a rule fired for the events of its types, and which condition failed first where it did not."""

    events: int = 0
    fired: int = 0
    misses: tuple[Miss, ...] = ()
    """The most frequent first."""


def count_misses(traces: Iterable[Trace]) -> Misses:
    """Count the traces of one rule. Those of other event types and of the disabled rule are left out."""
    events = fired = 0
    conditions: dict[str, Counter[str]] = {}
    for trace in traces:
        if is_for_other_events(trace) or is_disabled(trace):
            continue
        events += 1
        fired += trace.fired
        unmet = next((check for check in trace.checks if check.depth == 0 and check.result != "true"), None)
        if not trace.fired and unmet is not None:
            conditions.setdefault(unmet.condition, Counter())[unmet_conditions(trace)[0]] += 1
    misses = [Miss(_text(condition, texts), texts.total()) for condition, texts in conditions.items()]
    return Misses(events, fired, tuple(sorted(misses, key=lambda miss: -miss.events)))


def _text(condition: str, texts: Counter[str]) -> str:
    """Return the sentence that most of the events share, or the condition alone if their values differ."""
    text, count = texts.most_common(1)[0]
    if count > 1 and count >= COMMON * texts.total():
        return text
    return f"`{condition}` is not true"
