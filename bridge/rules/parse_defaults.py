"""Parsers of `tables` and `defaults`: values that several rules share, so that nothing is copied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bridge.json_values import describe_type
from bridge.rules.parse_context import ParseContext
from bridge.rules.parse_steps import STEP
from bridge.rules.parse_use import find_action
from bridge.rules.yaml import Node

_NOT_SHARED = ("use", "connection", "idempotency_key")


def read_tables(context: ParseContext, node: Node, label: str) -> dict[str, dict[str, Any]]:
    """Return each table of the file: key -> value."""
    tables: dict[str, dict[str, Any]] = {}
    for name, (key, table) in context.mapping(node, label, hint="write `name: {key: value}`").items():
        tables[name] = {}
        entries = context.mapping(table, f"the table `{name}`", hint="write `key: value`")
        if table.entries is not None and not entries:
            context.error(key, f"the table `{name}` is empty")
        for entry, (_, value) in entries.items():
            data = value.data()
            if data is None or isinstance(data, list | dict):
                context.error(value, f"a table has single values, not {describe_type(data)}")
            else:
                tables[name][entry] = data
    return tables


def read_defaults(context: ParseContext, node: Node, label: str) -> dict[str, Node]:
    """Return the keys of a step that each action has unless a step sets them. Their values are read with the step."""
    shared = [key.name for key in STEP.keys if key.name not in _NOT_SHARED]
    defaults: dict[str, Node] = {}
    hint = "write `connector.action: {delay: 5m}`"
    for name, (key, value) in context.mapping(node, label, hint=hint).items():
        action = find_action(context, key, name)
        entries = context.mapping(value, f"the defaults of `{name}`", shared, hint)
        if action is not None and entries:
            defaults[name] = replace(value, value=dict(entries))
    return defaults
