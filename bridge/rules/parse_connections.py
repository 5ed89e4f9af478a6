"""Parser of `connection`: the account that a step uses, or the table that chooses it for each event."""

from __future__ import annotations

import re

from bridge.connector.action import Action
from bridge.rules.keys import Key, Section, ValueType
from bridge.rules.model import ConnectionChoice
from bridge.rules.parse_context import ParseContext
from bridge.rules.templates import is_template
from bridge.rules.yaml import Node
from bridge.spelling import did_you_mean

_CONNECTION = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


def read_connection(context: ParseContext, node: Node, label: str) -> str | ConnectionChoice | None:
    """Return the connection that a step names, or the table by which it is chosen for each event."""
    if node.entries is not None:
        return _choice(context, node)
    name = context.string(node, label)
    if name is not None and not _CONNECTION.fullmatch(name):
        hint = "use lowercase letters, digits and _, such as `twilio_eu`"
        if is_template(name):
            choice = "{by: contact.country, table: {US: twilio_us}, default: twilio_eu}"
            hint = f"to choose by a field, write `connection: {choice}`"
        context.error(node, f"invalid connection name `{name[:60]}`", hint)
        return None
    return name


def _choice(context: ParseContext, node: Node) -> ConnectionChoice | None:
    values = CHOICE.read(context, CHOICE.open(context, node) or {})
    if "by" not in values or "table" not in values:
        return None
    return ConnectionChoice(**values)


def _by(context: ParseContext, node: Node, label: str) -> tuple[str, ...] | None:
    name = context.string(node, label)
    if name is None or not context.check_field(node, name, ("event", "contact")):
        return None
    return tuple(name.split("."))


def _table(context: ParseContext, node: Node, label: str) -> dict[str, str] | None:
    """Return value -> connection, from a mapping or from a table of the file."""
    if node.entries is None:
        name = context.string(node, label)
        if name is None:
            return None
        if name not in context.tables:
            hint = "define it under `tables:`, or write `{value: connection}`"
            hint = did_you_mean(name, sorted(context.tables)) or hint
            context.error(node, f"no table `{name[:60]}`", hint)
            return None
        return {key: str(value) for key, value in context.tables[name].items()}
    table = {key: read_connection(context, value, label) for key, (_, value) in node.entries.items()}
    if not table:
        context.error(node, f"{label} is empty", CHOICE.hint)
    return {key: name for key, name in table.items() if isinstance(name, str)} or None


def connection_names(connection: str | ConnectionChoice | None) -> tuple[str, ...]:
    """Return every connection that a step may use."""
    if isinstance(connection, ConnectionChoice):
        return (*connection.table.values(), *((connection.default,) if connection.default else ()))
    return (connection,) if connection else ()


def check_connection(context: ParseContext, node: Node, action: Action, name: str) -> None:
    """Add an error if the connection belongs to another connector, or its settings are missing or invalid."""
    connector = name if name in context.registry.names() else action.connector
    owner = context.connections.setdefault(name, connector)
    if owner != action.connector:
        hint = f"a connection has one connector: write another name, such as `{action.connector}_eu`"
        context.error(node, f"the connection `{name}` belongs to the connector `{owner}`", hint)
    elif context.needs_settings:
        context.check_settings(node, action.connector, name)


CHOICE = Section(
    "`connection`",
    hint="write `connection: {by: contact.country, table: {US: twilio_us}, default: twilio_eu}`",
    keys=(
        Key("by", ValueType(_by, {"type": "string"}), "the field whose value is looked up", required=True),
        Key(
            "table",
            ValueType(_table, {"type": ["object", "string"]}),
            "value -> connection, or the name of a [table](#tables-and-defaults)",
            required=True,
        ),
        Key(
            "default",
            ValueType(read_connection, {"type": "string"}),
            "the connection for any other value, and for an event without the field",
        ),
    ),
)
