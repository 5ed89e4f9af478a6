"""Reading what a rule does: `do`, `on_failure` and `alerts`, checked against the connectors."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Literal

from bridge.connector.api import Action
from bridge.connector.discovery import settings_of
from bridge.errors import BridgeError
from bridge.rules.fields import kind_of, nearest
from bridge.rules.model import Once, Retry, Step, Trigger
from bridge.rules.parse_context import Entries, File
from bridge.rules.parse_params import NAMES, check_templates, read_params
from bridge.rules.templates import is_template
from bridge.rules.yaml import Node

KEYS = ("use", "connection", "with", "delay", "expires", "cancel_on", "once", "retry", "idempotency_key")
ALERT_KEYS = ("use", "connection", "with", "retry", "idempotency_key")
_CONNECTION = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


def read_steps(
    file: File, node: Node, what: str, origin: Trigger, events: Collection[str], live: bool
) -> tuple[Step, ...]:
    """The steps of a list; without `live` their connections need no settings."""
    steps = []
    for item in file.list_of(node, what):
        step = _step(file, item, origin, events, live)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def _step(file: File, node: Node, origin: Trigger, events: Collection[str], live: bool) -> Step | None:
    hint = "write `- use: connector.action`"
    entries = file.mapping(node, "a step", ALERT_KEYS if origin == "alert" else KEYS, hint)
    if node.entries is None:
        return None
    if "use" not in entries:
        file.problems.error(node, "a step needs `use`", hint)
        return None
    use_key, use_node = entries["use"]
    action = _action(file, use_node)
    timing = _timing(file, {name: value for name, (_, value) in entries.items()})
    connection = _connection(file, entries, action, live)
    idempotency_key = (
        _idempotency_key(file, entries["idempotency_key"][1], origin, events)
        if "idempotency_key" in entries
        else None
    )
    written = entries["with"][1] if "with" in entries else None
    if action is None:
        if written is not None:
            check_templates(file, written, origin, events)
        return None
    values = read_params(file, use_node, written, action, origin, events)
    return Step(
        use=action.full_name,
        action=action,
        connection=connection or action.connector,
        line=use_key.line,
        values=values,
        idempotency_key=idempotency_key,
        **timing,
    )


def _action(file: File, node: Node) -> Action | None:
    use = file.text(node, "`use`")
    if use is None:
        return None
    connector_name, dot, _ = use.partition(".")
    if not dot:
        actions = _actions(file, use)
        hint = f"one of: {', '.join(actions)}" if actions else "write `use: connector.action`"
        file.problems.error(node, f"`{use[:60]}` names no action", hint)
        return None
    try:
        return file.registry.action(use)
    except KeyError:
        pass
    except BridgeError as error:
        file.problems.error(node, str(error), "mend or remove the connector's file, or do without this step")
        return None
    known = [full for other in _candidates(file, connector_name) for full in _actions(file, other)]
    found = nearest(use, known)
    hint = f"did you mean `{found}`? " if found else ""
    file.problems.error(node, f"no action `{use[:60]}`", hint + "`bridge connectors` lists every action")
    return None


def _candidates(file: File, name: str) -> list[str]:
    names = file.registry.names()
    if name in names:
        return [name]
    found = nearest(name, names, cutoff=0.6)
    return [found] if found else []


def _actions(file: File, connector: str) -> list[str]:
    try:
        return [action.full_name for action in file.registry.connector(connector).actions.values()]
    except (KeyError, BridgeError):
        return []


def _connection(file: File, entries: Entries, action: Action | None, live: bool) -> str | None:
    if "connection" in entries:
        node = entries["connection"][1]
        name = file.text(node, "`connection`")
        if name is None:
            return None
        if not _CONNECTION.fullmatch(name):
            hint = "small letters, digits and _, such as `twilio_eu`"
            file.problems.error(node, f"`{name[:60]}` is no connection's name", hint)
            return None
    else:
        node, name = entries["use"][1], action.connector if action else None
    if name and action:
        known = name if name in file.registry.names() else action.connector
        owner = file.connections.setdefault(name, known)
        if owner != action.connector:
            hint = f"an account has one connector; give it another name, such as `{action.connector}_eu`"
            file.problems.error(node, f"the connection `{name}` belongs to the connector `{owner}`", hint)
        elif live:
            _settings(file, node, action, name)
    return name


def _settings(file: File, node: Node, action: Action, connection: str) -> None:
    """Note, once per connection, which variables are missing."""
    if file.environ is None or connection in file.checked_connections:
        return
    file.checked_connections.add(connection)
    try:
        settings_of(file.registry.connector(action.connector), connection, file.environ)
    except BridgeError as error:
        hint = f"set it in the environment or in .env; `bridge connectors show {action.connector}` explains"
        file.problems.error(node, f"connection `{connection}`: {error}", hint, connection)


def _timing(file: File, nodes: dict[str, Node]) -> dict[str, Any]:
    """Everything of a step that is about when and how often."""
    found: dict[str, Any] = {}
    if "delay" in nodes:
        found["delay"] = file.duration(nodes["delay"], "`delay`") or timedelta(0)
    if "expires" in nodes:
        found["expires"] = file.duration(nodes["expires"], "`expires`")
        if found["expires"] is not None and found["expires"] <= found.get("delay", timedelta(0)):
            hint = "both count from the event's own time: `expires` has to be longer"
            file.problems.error(nodes["expires"], "it expires before it is due", hint)
    if "cancel_on" in nodes:
        found["cancel_on"] = file.events(nodes["cancel_on"], "`cancel_on`")
    if "once" in nodes:
        found["once"] = _once(file, nodes["once"])
    if "retry" in nodes:
        found["retry"] = _retry(file, nodes["retry"])
    return found


def _once(file: File, node: Node) -> Once | None:
    hint = "write `once: {per: contact, within: 24h}`"
    entries = file.mapping(node, "`once`", ("per", "within"), hint)
    if node.entries is None:
        return None
    for name in ("per", "within"):
        if name not in node.entries:
            file.problems.error(node, f"`once` needs `{name}`", hint)
    per: Literal["contact", "conversation"] = "contact"
    if "per" in entries:
        value = entries["per"][1].value
        if value == "conversation":
            per = "conversation"
        elif value != "contact":
            file.problems.error(entries["per"][1], "`per` must be `contact` or `conversation`", hint)
    within = file.duration(entries["within"][1], "`within`") if "within" in entries else None
    return Once(per, within) if within else None


def _retry(file: File, node: Node) -> Retry:
    hint = "write `retry: 6h`, or `retry: {for: 6h, attempts: 4}`"
    if node.entries is None:
        return (
            Retry(limit=file.duration(node, "`retry`"))
            if isinstance(node.value, str)
            else _no_retry(file, node, hint)
        )
    entries = file.mapping(node, "`retry`", ("for", "attempts"), hint)
    return Retry(
        limit=file.duration(entries["for"][1], "`for`") if "for" in entries else None,
        attempts=file.count(entries["attempts"][1], "`attempts`") if "attempts" in entries else None,
    )


def _no_retry(file: File, node: Node, hint: str) -> Retry:
    file.problems.error(node, f"`retry` must be a duration or a mapping, not {kind_of(node.value)}", hint)
    return Retry()


def _idempotency_key(file: File, node: Node, origin: Trigger, events: Collection[str]) -> Any:
    source = file.text(node, "`idempotency_key`")
    if source is None:
        return None
    names = [name for name in NAMES[origin] if name != "now"]  # a replay has to find the same key
    return file.template(node, source, events, names) if is_template(source) else source
