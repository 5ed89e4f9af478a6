"""Parser of steps: `do`, `on_failure` and `alerts`, checked against the connectors."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Literal

from bridge.connector.api import Action
from bridge.connector.discovery import read_settings
from bridge.errors import BridgeError
from bridge.rules.fields import describe_type, nearest
from bridge.rules.model import OncePer, Retry, Step, Trigger
from bridge.rules.parse_context import Entries, ParseContext
from bridge.rules.parse_params import CONTEXT_NAMES, check_templates, read_params
from bridge.rules.templates import is_template
from bridge.rules.yaml import Node

KEYS = ("use", "connection", "with", "delay", "expires", "cancel_on", "once", "retry", "idempotency_key")
ALERT_KEYS = ("use", "connection", "with", "retry", "idempotency_key")
_CONNECTION = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


def read_steps(
    context: ParseContext,
    node: Node,
    label: str,
    trigger: Trigger,
    event_types: Collection[str],
    needs_settings: bool,
) -> tuple[Step, ...]:
    """Return the steps of a list. With `needs_settings`, their connections must be set up."""
    steps = []
    for item in context.list_items(node, label):
        step = _step(context, item, trigger, event_types, needs_settings)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def _step(
    context: ParseContext, node: Node, trigger: Trigger, event_types: Collection[str], needs_settings: bool
) -> Step | None:
    hint = "write `- use: connector.action`"
    entries = context.mapping(node, "a step", ALERT_KEYS if trigger == "alert" else KEYS, hint)
    if node.entries is None:
        return None
    if "use" not in entries:
        context.error(node, "a step needs `use`", hint)
        return None
    use_key, use_node = entries["use"]
    action = _action(context, use_node)
    timing = _timing(context, {name: value for name, (_, value) in entries.items()})
    connection = _connection(context, entries, action, needs_settings)
    idempotency_key = (
        _idempotency_key(context, entries["idempotency_key"][1], trigger, event_types)
        if "idempotency_key" in entries
        else None
    )
    with_node = entries["with"][1] if "with" in entries else None
    if action is None:
        if with_node is not None:
            check_templates(context, with_node, trigger, event_types)
        return None
    values = read_params(context, use_node, with_node, action, trigger, event_types)
    return Step(
        use=action.full_name,
        action=action,
        connection=connection or action.connector,
        line=use_key.line,
        values=values,
        idempotency_key=idempotency_key,
        **timing,
    )


def _action(context: ParseContext, node: Node) -> Action | None:
    use = context.string(node, "`use`")
    if use is None:
        return None
    connector_name, dot, _ = use.partition(".")
    if not dot:
        actions = _actions(context, use)
        hint = f"one of: {', '.join(actions)}" if actions else "write `use: connector.action`"
        context.error(node, f"`{use[:60]}` does not name an action", hint)
        return None
    try:
        return context.registry.action(use)
    except KeyError:
        pass
    except BridgeError as error:
        context.error(node, str(error), "fix or remove the connector's file, or remove this step")
        return None
    known = [action for other in _candidates(context, connector_name) for action in _actions(context, other)]
    suggestion = nearest(use, known)
    hint = f"did you mean `{suggestion}`? " if suggestion else ""
    context.error(node, f"no action `{use[:60]}`", hint + "`bridge connectors` lists every action")
    return None


def _candidates(context: ParseContext, name: str) -> list[str]:
    names = context.registry.names()
    if name in names:
        return [name]
    similar = nearest(name, names, cutoff=0.6)
    return [similar] if similar else []


def _actions(context: ParseContext, connector: str) -> list[str]:
    try:
        return [action.full_name for action in context.registry.connector(connector).actions.values()]
    except (KeyError, BridgeError):
        return []


def _connection(
    context: ParseContext, entries: Entries, action: Action | None, needs_settings: bool
) -> str | None:
    if "connection" in entries:
        node = entries["connection"][1]
        name = context.string(node, "`connection`")
        if name is None:
            return None
        if not _CONNECTION.fullmatch(name):
            hint = "use lowercase letters, digits and _, such as `twilio_eu`"
            context.error(node, f"invalid connection name `{name[:60]}`", hint)
            return None
    else:
        node, name = entries["use"][1], action.connector if action else None
    if name and action:
        connector = name if name in context.registry.names() else action.connector
        owner = context.connections.setdefault(name, connector)
        if owner != action.connector:
            hint = f"a connection has one connector: write another name, such as `{action.connector}_eu`"
            context.error(node, f"the connection `{name}` belongs to the connector `{owner}`", hint)
        elif needs_settings:
            _check_settings(context, node, action, name)
    return name


def _check_settings(context: ParseContext, node: Node, action: Action, connection: str) -> None:
    """Add an error for missing or invalid variables, once per connection."""
    if context.environ is None or connection in context.checked_connections:
        return
    context.checked_connections.add(connection)
    try:
        read_settings(context.registry.connector(action.connector), connection, context.environ)
    except BridgeError as error:
        hint = f"set it in the environment or in .env; see `bridge connectors show {action.connector}`"
        context.error(node, f"connection `{connection}`: {error}", hint, connection)


def _timing(context: ParseContext, nodes: dict[str, Node]) -> dict[str, Any]:
    """Return the attributes of a step that control when and how often it runs."""
    timing: dict[str, Any] = {}
    if "delay" in nodes:
        timing["delay"] = context.duration(nodes["delay"], "`delay`") or timedelta(0)
    if "expires" in nodes:
        timing["expires"] = context.duration(nodes["expires"], "`expires`")
        if timing["expires"] is not None and timing["expires"] <= timing.get("delay", timedelta(0)):
            hint = "both count from the event's own time: `expires` must be longer than `delay`"
            context.error(nodes["expires"], "the delivery expires before it is due", hint)
    if "cancel_on" in nodes:
        timing["cancel_on"] = context.event_types(nodes["cancel_on"], "`cancel_on`")
    if "once" in nodes:
        timing["once"] = _once(context, nodes["once"])
    if "retry" in nodes:
        timing["retry"] = _retry(context, nodes["retry"])
    return timing


def _once(context: ParseContext, node: Node) -> OncePer | None:
    hint = "write `once: {per: contact, within: 24h}`"
    entries = context.mapping(node, "`once`", ("per", "within"), hint)
    if node.entries is None:
        return None
    for name in ("per", "within"):
        if name not in node.entries:
            context.error(node, f"`once` needs `{name}`", hint)
    per: Literal["contact", "conversation"] = "contact"
    if "per" in entries:
        value = entries["per"][1].value
        if value == "conversation":
            per = "conversation"
        elif value != "contact":
            context.error(entries["per"][1], "`per` must be `contact` or `conversation`", hint)
    within = context.duration(entries["within"][1], "`within`") if "within" in entries else None
    return OncePer(per, within) if within else None


def _retry(context: ParseContext, node: Node) -> Retry:
    hint = "write `retry: 6h`, or `retry: {for: 6h, attempts: 4}`"
    if node.entries is None:
        return (
            Retry(limit=context.duration(node, "`retry`"))
            if isinstance(node.value, str)
            else _invalid_retry(context, node, hint)
        )
    entries = context.mapping(node, "`retry`", ("for", "attempts"), hint)
    return Retry(
        limit=context.duration(entries["for"][1], "`for`") if "for" in entries else None,
        attempts=context.positive_int(entries["attempts"][1], "`attempts`")
        if "attempts" in entries
        else None,
    )


def _invalid_retry(context: ParseContext, node: Node, hint: str) -> Retry:
    context.error(node, f"`retry` must be a duration or a mapping, not {describe_type(node.value)}", hint)
    return Retry()


def _idempotency_key(
    context: ParseContext, node: Node, trigger: Trigger, event_types: Collection[str]
) -> Any:
    source = context.string(node, "`idempotency_key`")
    if source is None:
        return None
    names = [name for name in CONTEXT_NAMES[trigger] if name != "now"]  # a replay must produce the same key
    return context.template(node, source, event_types, names) if is_template(source) else source
