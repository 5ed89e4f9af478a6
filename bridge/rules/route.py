"""Routing: turns an event into planned deliveries. Pure: the same event, rules and time give the same result.

Params are rendered here, once, so that every attempt of a delivery sends the same content; only those that use
`details` follow later (`bridge.rules.late`). If they cannot be rendered, the delivery is planned with its
`render_error`, so that operators see it. An exception in one rule ends up in that rule's trace and does not affect
other rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from bridge.connector.action import Action
from bridge.connector.idempotency import IdempotencyInput, SerializeBy
from bridge.connector.params import Params, is_team_only
from bridge.contacts.address import address_key, normalize_address
from bridge.contacts.phone import is_withheld, phone_problem
from bridge.events import Event
from bridge.rules.conditions import Expression, combine
from bridge.rules.counting import COUNTER, History, counter_of, no_history
from bridge.rules.lookup import UNREAD, TemplateContext, look_up
from bridge.rules.model import (
    ALERTS,
    DELIVERY_FIELDS,
    MessagingPolicy,
    PlannedDelivery,
    Routing,
    Rule,
    Rules,
    Step,
    Trigger,
)
from bridge.rules.render import render_params
from bridge.rules.template_filters import RenderError, to_text
from bridge.rules.template_runtime import TABLES
from bridge.rules.templates import condition, message_context, template_context
from bridge.rules.trace import Check, Trace

MESSAGE_EXPIRY = timedelta(hours=24)
"""Counted from the event's own time, for actions with a channel. `expires:` overrides it."""

_MAX_KEY_LENGTH = 400


def route(event: Event, rules: Rules, now: datetime, history: History = no_history) -> Routing:
    """Return the deliveries for an event, and the trace of every rule. Never raises.

    `history` finds the other events of the contact, for `count`.
    """
    context = _context(event, rules, now)
    context[COUNTER] = counter_of(event, history)
    planned: list[PlannedDelivery] = []
    traces: list[Trace] = []
    selected = rules.for_event(event.type)
    for rule, trace in selected.evaluated:
        checks = [*trace.checks]
        try:
            results = [part.check(context, checks) for part in rule.conditions]
            fired = combine("all", results) == "true"
            if fired:
                plan = _PlanContext(
                    "rule", rule.name, event, event.occurred_at, now, "", rule.shadow, bool(rule.on_success)
                )
                planned.extend(_plan_steps(rule.do, plan, context))
            traces.append(Trace(rule.name, fired, tuple(checks)))
        except Exception as error:
            message = f"bug in the bridge: {type(error).__name__}"
            traces.append(Trace(rule.name, False, tuple(checks), message))
    return Routing(tuple(planned), tuple(traces), selected.started)


def follow_up(
    event: Event, rules: Rules, rule_name: str, delivery: Mapping[str, Any], now: datetime
) -> tuple[PlannedDelivery, ...]:
    """Plan a rule's `on_success` or `on_failure` for a delivery that ended.

    `delivery` has the fields of `DELIVERY_FIELDS`, and `params`. It is a success if it `succeeded` without a `reason`
    (the message was not reported as undelivered). Delays count from `now`. Each `outcome_id`, or else each `id`, is
    followed up once. Empty if the rule no longer exists.
    """
    rule = rules.named(rule_name)
    if rule is None:
        return ()
    trigger: Trigger = "on_success" if _is_success(delivery) else "on_failure"
    steps = rule.on_success if trigger == "on_success" else rule.on_failure
    if not steps:
        return ()
    fields = _delivery_fields(delivery, rule)
    plan = _PlanContext(trigger, rule.name, event, now, now, _outcome_id(delivery), rule.shadow)
    return _plan_steps(steps, plan, _context(event, rules, now, fields))


def _outcome_id(delivery: Mapping[str, Any]) -> str:
    return str(delivery.get("outcome_id") or delivery.get("id") or "")


def _is_success(delivery: Mapping[str, Any]) -> bool:
    return delivery.get("state") == "succeeded" and not delivery.get("reason")


def alerts(
    event: Event | None, rules: Rules, delivery: Mapping[str, Any], now: datetime
) -> tuple[PlannedDelivery, ...]:
    """Plan the file's alerts for a delivery that needs an operator or, without an event, for a paused connection.

    `delivery` has the fields of `DELIVERY_FIELDS`, and optionally `outcome_id`: each one, or else each `id`, is alerted
    once.
    """
    fields = _delivery_fields(delivery, rules.named(str(delivery.get("rule", ""))))
    plan = _PlanContext("alert", ALERTS, event, now, now, _outcome_id(delivery), False)
    return _plan_steps(rules.alerts, plan, _context(event, rules, now, fields))


def _context(
    event: Event | None, rules: Rules, now: datetime, delivery: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    context = template_context(event, now, rules.messaging.time_zone, delivery)
    context[TABLES] = rules.tables
    return context


def after_delivery(
    event: Event, rules: Rules, delivery: Mapping[str, Any], now: datetime
) -> tuple[PlannedDelivery, ...]:
    """Plan the rule's follow-ups, and alerts if the delivery needs review or failed without `on_failure`.

    A delivery whose `trigger` is not `rule` is a follow-up itself, which has none.
    """
    is_follow_up = delivery.get("trigger", "rule") != "rule"
    planned = () if is_follow_up else follow_up(event, rules, str(delivery["rule"]), delivery, now)
    if delivery["state"] == "needs_review" or not (planned or _is_success(delivery)):
        planned += alerts(event, rules, delivery, now)
    return planned


def consent(event: Event, messaging: MessagingPolicy, now: datetime) -> Check | None:
    """Evaluate `messaging.consent` for an event. None if the file has no such condition."""
    if messaging.consent is None:
        return None
    checks: list[Check] = []
    expression = Expression("consent", condition(messaging.consent))
    expression.check(template_context(event, now, messaging.time_zone), checks)
    return checks[0]


class _PlanContext(NamedTuple):
    """The trigger of planned deliveries, and the time from which their delays count."""

    trigger: Trigger
    rule: str
    event: Event | None
    since: datetime
    now: datetime
    delivery_id: str
    """The delivery that a follow-up or alert is about. Empty for a rule's own deliveries."""
    shadow: bool
    on_success: bool = False
    """The rule follows up on the success of these deliveries."""

    @property
    def conversation(self) -> str:
        return self.event.conversation.id if self.event else f"alert {self.delivery_id}"


def _plan_steps(
    steps: Sequence[Step], plan: _PlanContext, context: TemplateContext
) -> tuple[PlannedDelivery, ...]:
    return tuple(_plan_or_fail(step, step_index, plan, context) for step_index, step in enumerate(steps))


def _plan_or_fail(
    step: Step, step_index: int, plan: _PlanContext, context: TemplateContext
) -> PlannedDelivery:
    """Plan a step. One that cannot be planned, because of a bug, is planned as failed: the others are not lost."""
    try:
        return _plan_step(step, step_index, plan, context)
    except Exception as error:
        cause = plan.delivery_id or (plan.event.dedupe_key if plan.event else "")
        return PlannedDelivery(
            rule=plan.rule,
            trigger=plan.trigger,
            step_index=step_index,
            action=step.action.full_name,
            connection=step.connections[0],
            params={},
            run_at=plan.now,
            idempotency_key=_shorten_key(f"not planned|{plan.trigger}|{plan.rule}|{step_index}|{cause}"),
            updates_existing=False,
            concurrency_key=None,
            render_error=f"bug in the bridge: {type(error).__name__}",
            shadow=plan.shadow,
        )


def _plan_step(step: Step, step_index: int, plan: _PlanContext, context: TemplateContext) -> PlannedDelivery:
    action = step.action
    context[UNREAD].clear()
    is_message = action.channel is not None and not step.internal
    rendered = render_params(
        action,
        step.values,
        message_context(context, plan.event) if is_message else context,
        _country(plan),
        step.late,
    )
    params, validated, error = rendered.values, rendered.validated, rendered.error
    connection, no_connection = _choose_connection(step, context)
    error = error or no_connection
    recipient = _recipient(action, validated, plan, step)
    if recipient and isinstance(params.get(action.recipient or ""), str):
        params[str(action.recipient)] = recipient
    if validated and action.channel and not recipient:
        error = _recipient_problem(action, validated, plan)
    key, no_key = _own_key(step, context)
    error = error or no_key
    unread = sorted(context[UNREAD])
    if error:
        error = "; ".join([error, *(reason for reason in unread if reason not in error)])
    more_recipients = _more_recipients(step, params, recipient) if step.internal else ()
    recipients = ", ".join((recipient, *more_recipients)) if recipient else None
    expires = step.expires or (MESSAGE_EXPIRY if action.channel else None)
    return PlannedDelivery(
        rule=plan.rule,
        trigger=plan.trigger,
        step_index=step_index,
        action=action.full_name,
        connection=connection,
        params={} if error else params,
        late={} if error else step.late,
        run_at=max(plan.now, plan.since + step.delay),
        idempotency_key=_idempotency_key(step, connection, plan, recipients, key, params),
        updates_existing=action.idempotency.updates,
        concurrency_key=concurrency_key(action, connection, plan.event, plan.conversation, recipient, params),
        channel=action.channel,
        recipient=recipient,
        render_error=error,
        expires_at=plan.since + expires if expires else None,
        cancel_on=step.cancel_on,
        once=step.once,
        retry=step.retry,
        shadow=plan.shadow,
        internal=step.internal,
        more_recipients=more_recipients,
        on_success=plan.on_success,
        notes=() if error else (*unread, *rendered.left_out),
    )


def _recipient(action: Action, params: Params | None, plan: _PlanContext, step: Step) -> str | None:
    """Return the recipient of a message in canonical form, even if the connector's param is any string.

    Opt-outs are of phone numbers and email addresses, so only a message to the team may go to anything else, or to
    several addresses, of which the first one stands for all.
    """
    address = getattr(params, action.recipient, None) if params and action.recipient else None
    if isinstance(address, list) and step.internal:
        address = address[0]
    if not isinstance(address, str):
        return None
    canonical = normalize_address(address, _country(plan))
    return canonical or (address if step.internal and not is_withheld(address) else None)


def _more_recipients(step: Step, params: Mapping[str, Any], recipient: str | None) -> tuple[str, ...]:
    """Return the other addresses of a message to several colleagues, an internal step."""
    fields = step.action.params.model_fields.items()
    names = [step.action.recipient, *(name for name, info in fields if is_team_only(info))]
    values = [params.get(name or "") for name in names]
    addresses = [item for value in values for item in (value if isinstance(value, list) else [value])]
    canonical = (normalize_address(address) or address for address in addresses if isinstance(address, str))
    return tuple(dict.fromkeys(address for address in canonical if address != recipient))


def _recipient_problem(action: Action, params: Params, plan: _PlanContext) -> str:
    """Return why a message has no recipient. Contains no part of the value."""
    address = getattr(params, action.recipient or "", None)
    if isinstance(address, list):
        return f"`{action.recipient}` is a list: only a message to the team can have several recipients"
    if not isinstance(address, str) or not address:
        return f"`{action.recipient}` is empty: the message has no recipient"
    if "@" in address or action.channel == "email":
        return f"`{action.recipient}` is not one valid email address"
    return f"`{action.recipient}` {phone_problem(address, _country(plan))}"


def _country(plan: _PlanContext) -> str | None:
    return plan.event.default_country if plan.event else None


def _choose_connection(step: Step, context: TemplateContext) -> tuple[str, str | None]:
    """Return the connection of a step for an event, and the error if its table has none for it."""
    choice = step.connection
    if isinstance(choice, str):
        return choice, None
    value, shown = look_up(context, choice.by)
    name = (
        choice.table.get(to_text(value), choice.default)
        if isinstance(value, str | int | float)
        else choice.default
    )
    if name is not None:
        return name, None
    return step.connections[
        0
    ], f"`connection`: no entry for {'.'.join(choice.by)} ({shown}), and no `default`"


def _own_key(step: Step, context: TemplateContext) -> tuple[str, str | None]:
    """Return `idempotency_key` of a step for an event, and the error if it cannot be rendered."""
    if not callable(step.idempotency_key):
        return step.idempotency_key or "", None
    try:
        return str(step.idempotency_key(context)), None
    except RenderError as error:
        return "", f"`idempotency_key`: {error}"


def _idempotency_key(
    step: Step,
    connection: str,
    plan: _PlanContext,
    recipient: str | None,
    key: str,
    params: Mapping[str, Any],
) -> str:
    """Return the idempotency key. For a follow-up it contains the delivery, so it differs from the rule's own keys."""
    if plan.trigger != "rule":
        key = "|".join((plan.trigger, plan.delivery_id, key))
    event = plan.event.dedupe_key if plan.event else plan.conversation
    action = step.action
    # A late param counts by its template: the same template has the same value for the event.
    dedupe_value = _dedupe_value(action.dedupe_by, {**params, **step.late}) if action.dedupe_by else ""
    return _shorten_key(
        action.idempotency.key(
            IdempotencyInput(
                connection, action.full_name, event, plan.conversation, recipient, key, dedupe_value
            )
        )
    )


def _dedupe_value(names: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return the values of these params as part of a key; empty if there are none."""
    if not any(name in values for name in names):
        return ""
    value = values[names[0]] if len(names) == 1 else [values.get(name) for name in names]
    return json.dumps(value, sort_keys=True)


def concurrency_key(
    action: Action,
    connection: str,
    event: Event | None,
    conversation: str,
    recipient: str | None,
    params: Mapping[str, Any],
) -> str | None:
    """Return the key of deliveries that never run at the same time; None if any may.

    An action that is serialized by a param without a value for this event is serialized by the contact.
    """
    serialize_by = action.serialize_by
    if serialize_by is SerializeBy.NONE or event is None:
        return None
    if action.channel:
        target = address_key(recipient) if recipient else conversation
    elif serialize_by is SerializeBy.CONVERSATION:
        target = conversation
    elif not isinstance(serialize_by, SerializeBy) and (value := params.get(serialize_by)) not in (None, ""):
        target = f"{serialize_by} {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"
    else:
        target = event.contact.key or conversation
    return _shorten_key(f"{connection}|{target}")


def _shorten_key(key: str) -> str:
    """Return the key, or its hash if it is too long or not printable: it contains IDs from outside."""
    if len(key) <= _MAX_KEY_LENGTH and key.isprintable():
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _delivery_fields(delivery: Mapping[str, Any], rule: Rule | None) -> dict[str, Any]:
    """Return the fields of a delivery of `rule` that templates can use, as plain JSON."""
    fields = {name: delivery.get(name) for name in DELIVERY_FIELDS} | _message(delivery, rule)
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in fields.items()
        if value is not None
    }


def _message(delivery: Mapping[str, Any], rule: Rule | None) -> dict[str, Any]:
    """Return text and subject of a message as it was sent; neither for another action, and once it was pruned."""
    names = {step.action.text for step in rule.do if step.use == delivery.get("action")} if rule else set()
    params = delivery.get("params") or {}
    text = next((text for name in names if isinstance(text := params.get(name or ""), str)), None)
    return {"text": text, "subject": params.get("subject") if text is not None else None}
