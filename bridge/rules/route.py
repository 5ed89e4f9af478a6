"""Routing: what an event leads to. Pure: the same event, rules and instant always give the same.

Params are rendered here, once, so that every attempt of a delivery sends the same; what cannot be rendered is
planned all the same, with its problem, so that somebody is told. One rule's bug is that rule's trace.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from bridge.connector.api import Cause, Params, SerializeBy
from bridge.events import Event
from bridge.rules.conditions import check_condition
from bridge.rules.model import (
    ALERTS,
    DELIVERY_FIELDS,
    Check,
    Messaging,
    Planned,
    Routing,
    Rule,
    Rules,
    Step,
    Trace,
    Trigger,
)
from bridge.rules.parse_params import Default, complaint
from bridge.rules.template_filters import RenderError
from bridge.rules.template_runtime import Names
from bridge.rules.templates import condition, names_of

MESSAGES_EXPIRE = timedelta(hours=24)
"""From the event's own time, for actions with a channel; a rule can say otherwise."""

_LONGEST_KEY = 400


def route(event: Event, rules: Rules, now: datetime) -> Routing:
    """The deliveries that an event leads to, and for every rule why it did or did not fire. Never raises."""
    names = names_of(event, now, rules.messaging.time_zone)
    planned: list[Planned] = []
    traces: list[Trace] = []
    for rule, first in rules.for_event(event.type):
        if not first.fired:
            traces.append(first)
            continue
        checks = [*first.checks]
        try:
            fired = _fires(rule, names, checks)
            if fired:
                cause = _Cause("rule", rule.name, event, event.occurred_at, now, "", rule.shadow)
                planned.extend(_all_planned(rule.do, cause, names))
            traces.append(Trace(rule.name, fired, tuple(checks)))
        except Exception as error:
            traces.append(
                Trace(rule.name, False, tuple(checks), f"bug in the bridge: {type(error).__name__}")
            )
    return Routing(tuple(planned), tuple(traces))


def follow_up(
    event: Event, rules: Rules, rule_name: str, delivery: Mapping[str, Any], now: datetime
) -> tuple[Planned, ...]:
    """The `on_failure` of a rule, for a delivery of it that was given up on (or whose text did not arrive).

    `delivery` holds what `DELIVERY_FIELDS` names; times count from `now`, and its `id` makes each effect happen
    once. Nothing when the rule is gone.
    """
    rule = rules.named(rule_name)
    if rule is None or not rule.on_failure:
        return ()
    known = _delivery(delivery)
    cause = _Cause("on_failure", rule.name, event, now, now, str(known.get("id", "")), rule.shadow)
    return _all_planned(rule.on_failure, cause, names_of(event, now, rules.messaging.time_zone, known))


def alerts(
    event: Event | None, rules: Rules, delivery: Mapping[str, Any], now: datetime
) -> tuple[Planned, ...]:
    """The file's alerts, for a delivery that waits for a person, or without an event for a paused connection.

    `delivery` holds what `DELIVERY_FIELDS` names; one `id` is alerted once.
    """
    known = _delivery(delivery)
    cause = _Cause("alert", ALERTS, event, now, now, str(known.get("id", "")), False)
    return _all_planned(rules.alerts, cause, names_of(event, now, rules.messaging.time_zone, known))


def after_failure(
    event: Event, rules: Rules, delivery: Mapping[str, Any], now: datetime
) -> tuple[Planned, ...]:
    """What a failed delivery leads to: its rule's `on_failure`; alerts, when a person must act or the rule is mute."""
    planned = follow_up(event, rules, str(delivery["rule"]), delivery, now)
    if delivery["state"] == "needs_review" or not planned:
        planned += alerts(event, rules, delivery, now)
    return planned


def consent(event: Event, messaging: Messaging, now: datetime) -> Check | None:
    """What `messaging.consent` says about this event; None when it requires nothing."""
    if messaging.consent is None:
        return None
    names = names_of(event, now, messaging.time_zone)
    return check_condition(condition(messaging.consent), names, label="consent")


@dataclass(frozen=True)
class _Cause:
    """Why deliveries are planned, and from when their times count."""

    trigger: Trigger
    rule: str
    event: Event | None
    since: datetime
    now: datetime
    delivery: str
    shadow: bool

    @property
    def conversation(self) -> str:
        return self.event.conversation.id if self.event else f"alert {self.delivery}"


def _fires(rule: Rule, names: Names, checks: list[Check]) -> bool:
    """Whether `where` and `if` are both true. Both are always worked out, so that the trace is whole."""
    fires = rule.where is None or rule.where.check(names, checks) == "true"
    if rule.condition is not None:
        check = check_condition(rule.condition, names)
        checks.append(check)
        fires = fires and check.result == "true"
    return fires


def _all_planned(steps: Sequence[Step], cause: _Cause, names: Names) -> tuple[Planned, ...]:
    return tuple(_planned(step, step_index, cause, names) for step_index, step in enumerate(steps))


def _planned(step: Step, step_index: int, cause: _Cause, names: Names) -> Planned:
    action = step.action
    params, checked, problem = _params(step, names)
    recipient = getattr(checked, action.recipient, None) if checked and action.recipient else None
    if checked and action.channel and not recipient:
        problem = f"`{action.recipient}`: there is nobody to write to"
    try:
        key = (
            str(step.idempotency_key(names)) if callable(step.idempotency_key) else step.idempotency_key or ""
        )
    except RenderError as error:
        key, problem = "", problem or f"`idempotency_key`: {error}"
    expires = step.expires or (MESSAGES_EXPIRE if action.channel else None)
    return Planned(
        rule=cause.rule,
        trigger=cause.trigger,
        step_index=step_index,
        action=action.full_name,
        connection=step.connection,
        params={} if problem else params,
        run_at=max(cause.now, cause.since + step.delay),
        idempotency_key=_effect(step, cause, recipient, key, params),
        updates_existing=action.idempotency.updates,
        concurrency_key=_lane(step, cause, recipient),
        channel=action.channel,
        recipient=recipient,
        problem=problem,
        expires_at=cause.since + expires if expires else None,
        cancel_on=step.cancel_on,
        once=step.once,
        retry=step.retry,
        shadow=cause.shadow,
    )


def _params(step: Step, names: Names) -> tuple[dict[str, Any], Params | None, str | None]:
    """The rendered params as JSON and as the action's model, or why they cannot be (names, never values)."""
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, value in step.values.items():
        try:
            values[name] = _rendered(value, names)
        except RenderError as error:
            wrong.append(f"`{name}`: {error}")
    if wrong:
        return {}, None, "; ".join(wrong)
    try:
        return values, step.action.params.model_validate(values), None
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
    unfit = {str(item["loc"][0]) for item in found if item["loc"]} & {
        name for name, value in step.values.items() if isinstance(value, Default) and value.optional
    }
    if (
        unfit
    ):  # read as leniently as Heppu's fields: of an odd type is missing, where the rule did not ask for it
        values.update(dict.fromkeys(unfit))
        try:
            return values, step.action.params.model_validate(values), None
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
    return {}, None, "; ".join(complaint(item) for item in found)


def _rendered(value: Any, names: Names) -> Any:
    if callable(value):
        return value(names)
    if isinstance(value, dict):
        return {name: _rendered(item, names) for name, item in value.items()}
    if isinstance(value, list):
        return [_rendered(item, names) for item in value]
    return value


def _effect(step: Step, cause: _Cause, recipient: str | None, key: str, params: Mapping[str, Any]) -> str:
    """The effect key. A follow-up's cause is the delivery, so it does not collide with the rule's own effects."""
    if cause.trigger != "rule":
        key = "|".join((cause.trigger, cause.delivery, key))
    event = cause.event.dedupe_key if cause.event else cause.conversation
    action = step.action
    dedupe_by = action.dedupe_by or ""
    apart = json.dumps(params[dedupe_by], sort_keys=True) if dedupe_by in params else ""
    return _bounded(
        action.idempotency.key(
            Cause(step.connection, action.full_name, event, cause.conversation, recipient, key, apart)
        )
    )


def _lane(step: Step, cause: _Cause, recipient: str | None) -> str | None:
    if step.action.serialize_by is SerializeBy.NONE or cause.event is None:
        return None
    if step.action.channel:
        who = recipient.casefold() if recipient else cause.conversation
    elif step.action.serialize_by is SerializeBy.CONVERSATION:
        who = cause.conversation
    else:
        who = cause.event.contact.key or cause.conversation
    return _bounded(f"{step.connection}|{who}")


def _bounded(key: str) -> str:
    """The key itself, or its hash when it is too long or too odd for an index: ids come from outside."""
    if len(key) <= _LONGEST_KEY and key.isprintable():
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _delivery(delivery: Mapping[str, Any]) -> dict[str, Any]:
    """What templates may see of a delivery, as plain JSON."""
    found = {name: delivery.get(name) for name in DELIVERY_FIELDS}
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in found.items()
        if value is not None
    }
