"""Parser of steps: `do`, `on_success`, `on_failure` and `alerts`, checked against the connectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from bridge.connector.action import Action
from bridge.connector.discovery import name_variables, read_settings
from bridge.connector.params import is_team_only
from bridge.connector.rule_checks import Location, Place
from bridge.errors import BridgeError
from bridge.json_values import describe_type
from bridge.rules.keys import DURATION, EVENT_TYPES, POSITIVE_INT, STRING, Entries, Key, Section, ValueType
from bridge.rules.late import DETAILS, DETAILS_CONNECTION, RESULTS, late_params, using
from bridge.rules.model import OncePer, Retry, Step, Trigger
from bridge.rules.parse_connections import check_connection, connection_names, read_connection
from bridge.rules.parse_context import CONTEXT_NAMES, ParseContext
from bridge.rules.parse_params import (
    check_templates,
    has_template,
    params_of,
    paths_of,
    read_params,
    step_key_hints,
)
from bridge.rules.parse_use import find_action
from bridge.rules.presence import present_after
from bridge.rules.templates import is_template
from bridge.rules.yaml import Node
from bridge.spelling import did_you_mean


def read_steps(context: ParseContext, node: Node, label: str) -> tuple[Step, ...]:
    """Return the steps of a list, for the trigger of the context."""
    steps: list[Step] = []
    for item in context.list_items(node, label):
        step = _step(context.within(earlier=(*context.earlier, *steps)), item)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def read_on_success(context: ParseContext, node: Node, label: str) -> tuple[Step, ...]:
    """Return the steps of a rule that run after a success."""
    return _read_follow_ups(context, "on_success", node, label)


def read_on_failure(context: ParseContext, node: Node, label: str) -> tuple[Step, ...]:
    """Return the steps of a rule that run after a failure."""
    return _read_follow_ups(context, "on_failure", node, label)


def _read_follow_ups(context: ParseContext, trigger: Trigger, node: Node, label: str) -> tuple[Step, ...]:
    present = context.present | present_after(context.do, trigger)
    return read_steps(
        context.within(trigger=trigger, names=CONTEXT_NAMES[trigger], present=present, earlier=context.do),
        node,
        label,
    )


def _step(context: ParseContext, node: Node) -> Step | None:
    section = ALERT if context.trigger == "alert" else STEP
    entries = section.open(context, node, hints=_key_hints(context, node))
    if entries is None or "use" not in entries:
        return None
    use_key, use_node = entries["use"]
    entries = _with_defaults(context, section, entries)
    values = section.read(context, entries)
    if "expires" in values and values["expires"] <= values.get("delay", timedelta(0)):
        hint = "both count from the event's own time: `expires` must be longer than `delay`"
        context.error(entries["expires"][1], "the delivery expires before it is due", hint)
    action, with_node = values.pop("use", None), values.pop("with", None)
    if action is None:
        if with_node is not None:
            check_templates(context, with_node)
        return None
    if "connection" not in entries:
        values["connection"] = action.connector
    for name in connection_names(values.get("connection")):
        check_connection(context, entries.get("connection", entries["use"])[1], action, name)
    params = read_params(context, use_node, with_node, action)
    _check_team_params(context, with_node or use_node, action, params)
    late = late_params(params)
    if late:
        _check_late_params(context, with_node or use_node, params, late)
    values.setdefault("connection", action.connector)
    step = Step(
        use=action.full_name,
        action=action,
        line=use_key.line,
        path=use_key.path,
        values=params,
        late=late,
        places={(): Place(use_key.line, use_key.column, use_key.path)} | _places(with_node),
        internal=_has_literal_recipient(action, params),
        **values,
    )
    for name in step.connections:
        _check_params(context, with_node or use_node, action, name, params)
    return step


def _key_hints(context: ParseContext, node: Node) -> dict[str, str]:
    """Return the hints for keys of a step that belong elsewhere, which depend on its action."""
    use = (node.entries or {}).get("use")
    try:
        return step_key_hints(context, context.registry.action(str(use[1].value))) if use else {}
    except (KeyError, BridgeError):
        return {}


def _check_late_params(
    context: ParseContext, node: Node, params: Mapping[str, Any], late: Mapping[str, Any]
) -> None:
    """Add the errors of params that use `details` or `results`."""
    for name in late:
        paths = paths_of(params[name])
        if any(path[0] == "delivery" for path in paths):
            other = next(path[0] for path in sorted(paths) if path[0] in (DETAILS, RESULTS))
            hint = f"use them in two params: the {other} are known later"
            context.error(_entry(node, name), f"`{name}` cannot use both `delivery` and `{other}`", hint)
        for path in sorted(paths):
            if path[0] == RESULTS and len(path) == 4 and context.trigger != "alert":
                _check_result(context, _entry(node, name), ".".join(path[1:3]))
    if not using(DETAILS, late):
        return
    # The connection that fetches them must be set up.
    context.connections.setdefault(DETAILS_CONNECTION, DETAILS_CONNECTION)
    if context.needs_settings:
        context.check_settings(node, DETAILS_CONNECTION, DETAILS_CONNECTION)


def _check_result(context: ParseContext, node: Node, action: str) -> None:
    """Add an error unless exactly one earlier step uses the action."""
    earlier = [step.use for step in context.earlier]
    if earlier.count(action) == 1:
        return
    place = context.locate(node, f"{RESULTS}.{action}.id")
    if action in earlier:
        hint = "write the steps in rules of their own, so that it is clear which one is meant"
        context.error(place, f"several earlier steps use `{action}`", hint)
        return
    hint = (
        did_you_mean(action, dict.fromkeys(earlier))
        or "a step can use the results of those before it in its rule"
    )
    context.error(place, f"no earlier step of the rule uses `{action}`", hint)


def _places(node: Node | None, location: Location = ()) -> dict[Location, Place]:
    """Return the place of every key and list item below a node."""
    below: list[tuple[str | int, Node, Node]] = []
    if node is not None:
        below += [(name, key, value) for name, (key, value) in (node.entries or {}).items()]
        below += [(number, item, item) for number, item in enumerate(node.items or ())]
    places: dict[Location, Place] = {}
    for name, key, value in below:
        places[(*location, name)] = Place(key.line, key.column, key.path)
        places |= _places(value, (*location, name))
    return places


def _with_defaults(context: ParseContext, section: Section, entries: Entries) -> Entries:
    """Return the entries of a step, and those that `defaults` has for its action; params are added one by one."""
    use = entries["use"][1].value
    defaults = context.defaults.get(use) if isinstance(use, str) else None
    if defaults is None:
        return entries
    names = [key.name for key in section.keys]
    merged = {name: entry for name, entry in (defaults.entries or {}).items() if name in names} | entries
    shared, own = defaults.get("with").entries, entries.get("with")
    if own is not None and own[1].entries is not None and "with" in (defaults.entries or {}):
        node = own[1]
        params = {**(shared or {}), **(node.entries or {})}
        merged["with"] = (own[0], replace(node, value=params))
    return merged


def _check_params(
    context: ParseContext, node: Node, action: Action, connection: str, params: Mapping[str, Any]
) -> None:
    """Add the error that the connector finds in the values of a step, if its settings are known."""
    if action.run_check_params is None or context.environ is None or not context.needs_settings:
        return
    connector = context.registry.connector(action.connector)
    try:
        settings = read_settings(connector, connection, context.environ)
    except BridgeError:
        return  # the connection is not set up, which is reported once
    literals = {name: value for name, value in params.items() if not has_template(value)}
    literals |= {name: None for name in params_of(action) if name not in params}
    problem = action.run_check_params(settings, literals)
    if problem:
        context.error(node, name_variables(problem, connector, connection))


def _check_team_params(context: ParseContext, node: Node, action: Action, params: Mapping[str, Any]) -> None:
    """Add an error for further recipients of a message that the policy checks, because it checks one recipient."""
    recipient = action.recipient
    if recipient is None:
        return
    names = [
        name for name, info in action.params.model_fields.items() if is_team_only(info) and name in params
    ]
    hint = f"write every address itself, without a template, in `{recipient}` as well"
    if isinstance(params.get(recipient), list) and has_template(params[recipient]):
        context.error(
            _entry(node, recipient), f"`{recipient}` can be a list only in a message to the team", hint
        )
        return
    for name in names:
        if has_template(params[name]) or not _has_literal_recipient(action, params):
            context.error(_entry(node, name), f"`{name}` is possible only in a message to the team", hint)


def _entry(node: Node, name: str) -> Node:
    """Return the value of a param, or the node itself if a default set it."""
    return (node.entries or {}).get(name, (node, node))[1]


def _has_literal_recipient(action: Action, params: Mapping[str, Any]) -> bool:
    """Return whether the file itself names the recipient, so that the message never goes to an event's contact."""
    recipient = params.get(action.recipient) if action.recipient else None
    return recipient is not None and not has_template(recipient)


def _action(context: ParseContext, node: Node, label: str) -> Action | None:
    use = context.string(node, label)
    return find_action(context, node, use) if use is not None else None


def _once(context: ParseContext, node: Node, _label: str) -> OncePer | None:
    entries = ONCE.open(context, node)
    values = ONCE.read(context, entries or {})
    return OncePer(**values) if len(values) == len(ONCE.keys) else None


def _per(context: ParseContext, node: Node, label: str) -> Any:
    if node.value in _PER:
        return node.value
    context.error(node, f"{label} must be `contact` or `conversation`", ONCE.hint)
    return None


def _retry(context: ParseContext, node: Node, label: str) -> Retry | None:
    if isinstance(node.value, str):
        return Retry(limit=context.duration(node, label))
    if node.entries is None:
        text = f"{label} must be a duration or a mapping, not {describe_type(node.value)}"
        context.error(node, text, RETRY.hint)
        return None
    return Retry(**RETRY.read(context, RETRY.open(context, node) or {}))


def _idempotency_key(context: ParseContext, node: Node, label: str) -> Any:
    source = context.string(node, label)
    if source is None or not is_template(source):
        return source
    names = [name for name in context.names if name != "now"]  # a replay must produce the same key
    return context.template(node, source, names=names)


_PER = ("contact", "conversation")
ONCE = Section(
    "`once`",
    hint="write `once: {per: contact, within: 24h}`",
    keys=(
        Key("per", ValueType(_per, {"enum": list(_PER)}), "per contact or per conversation", required=True),
        Key("within", DURATION, "the period in which only one delivery runs", required=True),
    ),
)
RETRY = Section(
    "`retry`",
    hint="write `retry: 6h`, or `retry: {for: 6h, attempts: 4}`",
    keys=(
        Key("for", DURATION, "how long to retry", attribute="limit"),
        Key("attempts", POSITIVE_INT, "how often to retry"),
    ),
)
STEP = Section(
    "a step",
    hint="write `- use: connector.action`",
    keys=(
        Key(
            "use",
            ValueType(_action, {"$ref": "#/$defs/use"}),
            "the action, as `connector.action`",
            example="twilio.send_sms",
            required=True,
        ),
        Key(
            "connection",
            ValueType(
                read_connection,
                {
                    "anyOf": [
                        {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
                        {"$ref": "#/$defs/connection"},
                    ]
                },
            ),
            "another account of the same connector: `twilio_eu` uses the settings `TWILIO_EU_...`; "
            "or a [choice](#tables-and-defaults) by a field of the event",
            example="twilio_eu",
        ),
        Key(
            "with",
            ValueType(lambda _context, node, _label: node, {"type": "object"}),  # read after `use`
            "the params of the action",
            example='{body: "Hi {{ contact.first_name }}"}',
        ),
        Key("delay", DURATION, "how long to wait after the event", example="5m"),
        Key(
            "expires",
            DURATION,
            "how long after the event the action may still run; default: 24 hours for messages, no limit for records. "
            "A replay of older events sends no message unless this is longer",
            example="2d",
        ),
        Key(
            "cancel_on",
            EVENT_TYPES,
            "event types that cancel the delivery if they arrive first, for the same conversation or contact",
            example="[call.completed, chat.*]",
        ),
        Key(
            "once",
            ValueType(_once, {"$ref": "#/$defs/once"}),
            "at most one delivery of this rule and action `within` a period, `per` contact or conversation",
            example="{per: contact, within: 7d}",
        ),
        Key(
            "retry",
            ValueType(_retry, {"anyOf": [DURATION.schema, {"$ref": "#/$defs/retry"}]}),
            "how long or how often to retry: a duration or a mapping; default: 3 days, with growing intervals",
            example="{for: 6h, attempts: 4}",
        ),
        Key(
            "idempotency_key",
            ValueType(_idempotency_key, STRING.schema),
            "allows another message or record for the same event; may be a template",
            example='"{{ event.conversationId }}"',
        ),
    ),
)
_ALERT_KEYS = ("use", "connection", "with", "retry", "idempotency_key")
ALERT = replace(STEP, keys=tuple(key for key in STEP.keys if key.name in _ALERT_KEYS))
