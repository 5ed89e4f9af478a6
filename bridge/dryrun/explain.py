"""Why each rule fires or does not fire for one event, what would be done, and when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from bridge.dryrun.simulator import due_of
from bridge.events import EVENT_NAMES, Event
from bridge.policy import Cancel, Facts, Go, Suppress, Wait, decide
from bridge.rules.model import Check, Planned, Rules, Trace
from bridge.rules.route import route

FactsOf = Callable[[Planned], Facts]
"""What the service remembers that bears on a planned delivery; nothing when there is no database to ask."""

_MOST_WAITS = 8


@dataclass(frozen=True)
class Forecast:
    """A delivery that the event would lead to, and what would become of it."""

    planned: Planned
    outcome: Literal["go", "suppress", "cancel", "failed", "wait"]
    """`wait` only when no end of the waiting can be told."""
    at: datetime
    """When it would go, or when it would be decided that it does not."""
    reason: str | None = None
    """Why it would not go: the reason of the state it would end in."""
    why: tuple[str, ...] = ()
    """The lines of rule and policy that hold it up or stop it, in their order."""

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain data."""
        planned = self.planned
        return {
            "rule": planned.rule,
            "action": planned.action,
            "connection": planned.connection,
            "channel": planned.channel,
            "recipient": planned.recipient,
            "params": dict(planned.params),
            "expires_at": planned.expires_at.isoformat() if planned.expires_at else None,
            "cancel_on": list(planned.cancel_on),
            "outcome": self.outcome,
            "at": self.at.isoformat(),
            "reason": self.reason,
            "why": list(self.why),
        }


@dataclass(frozen=True)
class Miss:
    """The rule that came closest to firing, and the conditions that kept it from it."""

    rule: str
    unmet: tuple[str, ...]

    @property
    def text(self) -> str:
        """In one sentence."""
        number = "one condition" if len(self.unmet) == 1 else f"{len(self.unmet)} conditions"
        return f"`{self.rule}` missed by {number}: {'; '.join(self.unmet)}"


@dataclass(frozen=True)
class Explanation:
    """Everything that an event leads to."""

    event: Event
    traces: tuple[Trace, ...]
    """Of every rule, in the file's order."""
    deliveries: tuple[Forecast, ...]
    nearest: Miss | None = None
    """Of the rules for this event that do not fire, the one that came closest."""
    hint: str = ""
    """What to look at when something is missing that should happen."""

    def to_json(self) -> dict[str, Any]:
        """The explanation as plain data."""
        return {
            "event": self.event.type,
            "id": self.event.id or None,
            "occurred_at": self.event.occurred_at.isoformat(),
            "contact": asdict(self.event.contact),
            "rules": [trace.to_json() for trace in self.traces],
            "deliveries": [forecast.to_json() for forecast in self.deliveries],
            "hint": self.hint,
        }


def explain(
    event: Event,
    rules: Rules,
    now: datetime,
    *,
    facts_of: FactsOf | None = None,
    allowlist: Collection[str] = (),
) -> Explanation:
    """Explain what would happen if `event` were routed at `now`; nothing is done."""
    routing = route(event, rules, now)
    forecasts = tuple(
        _forecast(planned, event, rules, now, facts_of(planned) if facts_of else Facts(), allowlist)
        for planned in routing.planned
    )
    miss = nearest_miss(routing.traces, rules, event.type)
    return Explanation(event, routing.traces, forecasts, miss, _hint(event, rules, routing.traces, miss))


def nearest_miss(traces: Sequence[Trace], rules: Rules, event: str) -> Miss | None:
    """Of the rules for this event, the one with the fewest conditions that are not true; None when there is none."""
    misses = []
    for trace in traces:
        rule = rules.named(trace.rule)
        if not trace.fired and rule is not None and rule.enabled and event in rule.when:
            misses.append(Miss(trace.rule, unmet(trace)))
    return min((miss for miss in misses if miss.unmet), key=lambda miss: len(miss.unmet), default=None)


def unmet(trace: Trace) -> tuple[str, ...]:
    """The conditions of a rule that were not true, in words; a group is one, with its parts."""
    missed: list[tuple[Check, list[str]]] = []
    in_missed = False
    for check in trace.checks:
        if check.depth == 0:
            in_missed = check.result != "true"
            if in_missed:
                missed.append((check, []))
        elif in_missed and check.depth == 1:
            missed[-1][1].append(_sentence(check))
    return tuple(_sentence(check) + (f" ({'; '.join(parts)})" if parts else "") for check, parts in missed)


def _sentence(check: Check) -> str:
    if check.condition.startswith("if "):
        return f"`{check.condition}` is {check.result}" + (f" ({check.reason})" if check.reason else "")
    found = f", found {check.actual}" if check.actual else f" is {check.result}"
    why = f" ({check.reason})" if check.reason and not check.reason.endswith(check.actual) else ""
    return f"{check.condition}{found}{why}"


def _hint(event: Event, rules: Rules, traces: Sequence[Trace], miss: Miss | None) -> str:
    if miss is not None:
        return miss.text
    if any(trace.fired for trace in traces):
        return ""
    switched_off = [rule.name for rule in rules.rules if not rule.enabled and event.type in rule.when]
    if switched_off:
        return f"the rules for {event.type} are switched off (`enabled: false`): {', '.join(switched_off)}"
    if event.type not in EVENT_NAMES:
        return f"`{event.type}` is none of Heppu's documented events: {', '.join(EVENT_NAMES)}"
    return f"no rule is for {event.type}"


def _forecast(
    planned: Planned, event: Event, rules: Rules, now: datetime, facts: Facts, allowlist: Collection[str]
) -> Forecast:
    if planned.problem is not None:
        return Forecast(planned, "failed", now, "render_error", (planned.problem,))
    due = due_of("", planned, event, rules, now)
    at = max(planned.run_at, now)
    why: list[str] = []
    for _ in range(_MOST_WAITS):
        match decide(due, facts, rules.messaging, at, allowlist):
            case Wait(until, line):
                why.append(line)
                at = until
            case Suppress(reason, line):
                return Forecast(planned, "suppress", at, reason, (*why, line))
            case Cancel(_, line):
                return Forecast(planned, "cancel", at, None, (*why, line))
            case Go():
                return Forecast(planned, "go", at, None, tuple(why))
    return Forecast(planned, "wait", at, None, tuple(dict.fromkeys(why)))
