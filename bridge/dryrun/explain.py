"""Explains one event: why each rule fires or not, what would be done, and when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal

from bridge.connector.sms import Segments, segments
from bridge.dryrun.delivery import build_due_delivery, text_in
from bridge.dryrun.details import what_is_read, with_templates
from bridge.events import EVENT_TYPES, Event
from bridge.lifecycle import SuppressReason
from bridge.policy import (
    Allow,
    Cancel,
    Defer,
    Hold,
    IdempotencyRecord,
    PolicyInputs,
    Suppress,
    decide,
    event_precedence,
)
from bridge.policy.idempotency import describe_duplicate
from bridge.policy.local_time import local_time
from bridge.policy.zones import zones_of
from bridge.rules.counting import History, no_history
from bridge.rules.model import PlannedDelivery, Routing, Rules
from bridge.rules.route import route
from bridge.rules.trace import Trace
from bridge.rules.unmet import unmet_conditions

PolicyInputsLoader = Callable[[PlannedDelivery], PolicyInputs]
"""Loads the policy inputs for a planned delivery from the service's database."""

_MAX_DEFERRALS = 8


@dataclass(frozen=True)
class PlannedOutcome:
    """A delivery that the event would create, and its outcome."""

    planned: PlannedDelivery
    outcome: Literal["go", "suppress", "cancel", "failed", "wait"]
    """`wait` if the end of the wait is unknown: `messaging.caps.total` would pause the connection, for example."""
    at: datetime
    """When it would be sent, suppressed or cancelled."""
    reason: str | None = None
    """The reason of the state that it would end in, if it would not be sent."""
    details: tuple[str, ...] = ()
    """The settings that defer or stop it, in order."""
    zones: tuple[str, ...] = ("UTC",)
    """The time zones where the recipient may be."""

    @property
    def segments(self) -> Segments | None:
        """The size of a text message, by which it is billed; None for everything else."""
        if self.planned.channel != "sms" or self.planned.render_error is not None:
            return None
        return segments(text_in(self.planned.params))

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        planned, size = self.planned, self.segments
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
            "local_time": local_time(self.at, self.zones),
            "reason": self.reason,
            "details": list(self.details),
            "notes": list(planned.notes),
            "segments": size.count if size else None,
        }


@dataclass(frozen=True)
class NearMiss:
    """The rule that came closest to firing, and its unmet conditions."""

    rule: str
    unmet: tuple[str, ...]

    @property
    def text(self) -> str:
        """The near miss as one sentence."""
        conditions = "one condition" if len(self.unmet) == 1 else f"{len(self.unmet)} conditions"
        return f"`{self.rule}` missed by {conditions}: {'; '.join(self.unmet)}"


@dataclass(frozen=True)
class Explanation:
    """All traces and planned deliveries of an event."""

    event: Event
    traces: tuple[Trace, ...]
    """One per rule, in the file's order."""
    deliveries: tuple[PlannedOutcome, ...]
    nearest: NearMiss | None = None
    """The rule for this event type that came closest to firing, if any did not fire."""
    hint: str = ""
    """Advice if an expected delivery is missing."""

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain data."""
        return {
            "event": self.event.type,
            "id": self.event.id or None,
            "occurred_at": self.event.occurred_at.isoformat(),
            "contact": asdict(self.event.contact),
            "unreadable_fields": [asdict(item) for item in self.event.unreadable_fields],
            "rules": [trace.to_json() for trace in self.traces],
            "deliveries": [delivery.to_json() for delivery in self.deliveries],
            "hint": self.hint,
        }


def explain(
    event: Event,
    rules: Rules,
    now: datetime,
    *,
    load_inputs: PolicyInputsLoader | None = None,
    history: History = no_history,
    allowlist: Collection[str] = (),
    routing: Routing | None = None,
) -> Explanation:
    """Explain what would happen if `event` were routed at `now`, without doing it.

    `routing` is what `route` returns for it, if that is known.

    Without `load_inputs` and `history`, there is no database: the policy inputs are empty, and the event is the
    contact's only one. No CRM is asked for opt-out flags.
    """
    routing = routing or route(event, rules, now, history)
    without_database = PolicyInputs(crms_to_ask=tuple(rules.messaging.crm_opt_outs))
    inputs = [load_inputs(planned) if load_inputs else without_database for planned in routing.planned]

    def decide_outcome(planned: PlannedDelivery, inputs: PolicyInputs) -> PlannedOutcome:
        return _planned_outcome(planned, event, rules, now, inputs, allowlist)

    outcomes = _consider_each_other(
        [decide_outcome(*item) for item in zip(routing.planned, inputs, strict=True)],
        inputs,
        decide_outcome,
        event,
    )
    miss = nearest_miss(routing.traces, rules, event.type)
    outcomes = tuple(map(_with_late_params, outcomes))
    return Explanation(event, routing.traces, outcomes, miss, _hint(event, rules, routing.traces, miss))


def _with_late_params(outcome: PlannedOutcome) -> PlannedOutcome:
    """Return the outcome with the templates of its late params, and with what will fill them in."""
    details = (*outcome.details, *what_is_read(outcome.planned))
    return replace(outcome, planned=with_templates(outcome.planned), details=details)


def _consider_each_other(
    outcomes: Sequence[PlannedOutcome],
    inputs: Sequence[PolicyInputs],
    decide_outcome: Callable[[PlannedDelivery, PolicyInputs], PlannedOutcome],
    event: Event,
) -> tuple[PlannedOutcome, ...]:
    """Decide again in the order of time, so that a message that is sent counts for later ones of the same event.

    The later of two messages of one event to one person is a duplicate, also if another rule sends it.
    """
    results = list(outcomes)
    sent: list[PlannedOutcome] = []
    order = sorted(range(len(results)), key=lambda index: (results[index].at, results[index].planned.run_at))
    for index in order:
        planned = results[index].planned
        first = next(
            (item.planned for item in sent if item.planned.idempotency_key == planned.idempotency_key), None
        )
        earlier = [item.at for item in sent if planned.channel and _same_recipient(item.planned, planned)]
        if first is not None or earlier:
            outcome = decide_outcome(planned, _with_earlier(inputs[index], first, event, earlier))
            if first is not None and outcome.reason == SuppressReason.DUPLICATE:
                detail = describe_duplicate(first.rule, first.action, first.channel)
                outcome = replace(outcome, details=(*outcome.details[:-1], detail))
            results[index] = outcome
        if results[index].outcome == "go":
            sent.append(results[index])
    return tuple(results)


def _same_recipient(first: PlannedDelivery, second: PlannedDelivery) -> bool:
    return (first.channel, first.recipient) == (second.channel, second.recipient)


def _with_earlier(
    inputs: PolicyInputs, first: PlannedDelivery | None, event: Event, earlier: Sequence[datetime]
) -> PolicyInputs:
    """Return the inputs after earlier messages to the recipient, and after `first`, which has the same key."""
    record = inputs.idempotency_record
    if first is not None and record is None:
        record = IdempotencyRecord(first.rule, True, event_precedence(event.type), event.occurred_at)
    return replace(inputs, messages_sent_at=[*inputs.messages_sent_at, *earlier], idempotency_record=record)


def nearest_miss(traces: Sequence[Trace], rules: Rules, event_type: str) -> NearMiss | None:
    """Return the rule for this event type with the fewest unmet conditions, or None if every such rule fired."""
    misses = []
    for trace in traces:
        rule = rules.named(trace.rule)
        if not trace.fired and rule is not None and rule.enabled and event_type in rule.when:
            misses.append(NearMiss(trace.rule, unmet_conditions(trace)))
    return min((miss for miss in misses if miss.unmet), key=lambda miss: len(miss.unmet), default=None)


def _hint(event: Event, rules: Rules, traces: Sequence[Trace], miss: NearMiss | None) -> str:
    if miss is not None:
        return miss.text
    if any(trace.fired for trace in traces):
        return ""
    disabled = [rule.name for rule in rules.rules if not rule.enabled and event.type in rule.when]
    if disabled:
        return f"the rules for {event.type} are disabled (`enabled: false`): {', '.join(disabled)}"
    if event.type not in EVENT_TYPES:
        return f"`{event.type}` is not a known event type: {', '.join(EVENT_TYPES)}"
    return f"no rule handles {event.type}"


def _planned_outcome(
    planned: PlannedDelivery,
    event: Event,
    rules: Rules,
    now: datetime,
    inputs: PolicyInputs,
    allowlist: Collection[str],
) -> PlannedOutcome:
    if planned.render_error is not None:
        return PlannedOutcome(planned, "failed", now, "render_error", (planned.render_error,))
    zones = zones_of(event.contact, planned.recipient, rules.messaging.time_zone, inputs.crm_time_zone)
    outcome = partial(PlannedOutcome, planned, zones=zones)
    due = build_due_delivery("", planned, event, rules, now)
    at = max(planned.run_at, now)
    details: list[str] = []
    for _ in range(_MAX_DEFERRALS):
        match decide(due, inputs, rules.messaging, at, allowlist):
            case Defer(crms_to_ask=[*crms]) if crms:
                note = f"messaging.crm_opt_outs: {' and '.join(crms)} can still suppress it: asked when it is sent"
                return outcome("go", at, None, (*details, note))
            case Defer(until, detail):
                details.append(detail)
                at = until
            case Suppress(reason, detail):
                return outcome("suppress", at, reason, (*details, detail))
            case Cancel(_, detail):
                return outcome("cancel", at, None, (*details, detail))
            case Hold(detail):
                return outcome("wait", at, None, (*details, detail))
            case Allow(note=note):
                return outcome("go", at, None, (*details, *filter(None, [note])))
    return outcome("wait", at, None, tuple(dict.fromkeys(details)))
