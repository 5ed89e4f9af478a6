"""Reading `where`: fields, operators and groups, checked against what Heppu documents."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from bridge.rules.conditions import OPERATORS, Condition, Group, Where
from bridge.rules.fields import check_value, did_you_mean, kind_of, number_hint, truth_hint
from bridge.rules.parse_context import File
from bridge.rules.yaml import Node

NAMES = ("event", "contact")
GROUPS = ("all", "any", "not")
OPERATOR_NAMES = (*OPERATORS, "exists")

_ORDERED = ("gt", "gte", "lt", "lte")
_TEXTUAL = ("starts_with", "ends_with")
_SIGNS = {
    "=": "eq",
    "==": "eq",
    "equals": "eq",
    "is": "eq",
    "!=": "ne",
    "not": "ne",
    ">": "gt",
    "greater": "gt",
    "more": "gt",
    ">=": "gte",
    "<": "lt",
    "less": "lt",
    "<=": "lte",
    "defined": "exists",
}
"""What people write for an operator that is called otherwise."""


def read_where(file: File, node: Node, events: Collection[str]) -> Where:
    """The whole `where` of a rule for these events."""
    return Where(_parts(file, node, "`where`", events))


def _parts(file: File, node: Node, what: str, events: Collection[str]) -> tuple[Condition | Group, ...]:
    hint = "write `field: value` or `field: {operator: value}`"
    entries = file.mapping(node, what, hint=hint)
    if node.entries is not None and not entries:
        file.problems.error(node, f"{what} is empty", hint)
    parts: list[Condition | Group] = []
    for name, (key, value) in entries.items():
        if name in GROUPS:
            parts.append(_group(file, name, value, events))
        else:
            parts.extend(_field(file, name, key, value, events))
    return tuple(parts)


def _group(file: File, kind: Any, node: Node, events: Collection[str]) -> Group:
    parts: list[Condition | Group] = []
    what = f"an entry of `{kind}`"
    if kind == "not" and node.items is None:
        return Group("not", _parts(file, node, "`not`", events))
    for item in file.list_of(node, f"`{kind}`"):
        found = _parts(file, item, what, events)
        parts.append(found[0] if len(found) == 1 else Group("all", found))
    return Group(kind, tuple(parts))


def _field(file: File, name: str, key: Node, value: Node, events: Collection[str]) -> list[Condition]:
    if "." not in name and name not in NAMES:
        operator = _SIGNS.get(name) or (name if name in OPERATOR_NAMES else None)
        if operator:
            hint = f"write `field: {{{operator}: value}}`"
            file.problems.error(key, f"the operator `{name}` stands where a field must be", hint)
            return []
        if value.items and value.items[0].entries is not None:
            hint = "the groups are `all`, `any` and `not`"
            file.problems.error(key, f"no group `{name[:60]}`", hint)
            return []
    path = tuple(name.split("."))
    if not all(path):
        file.problems.error(key, f"`{name[:60]}` is no field", "write `event.direction` or `contact.email`")
        return []
    known = file.path(key, name, events, NAMES)
    if value.entries is None:
        pairs = [("in" if value.items is not None else "eq", value, value)]
    else:
        pairs = [(operator, at, wanted) for operator, (at, wanted) in value.entries.items()]
    if not pairs:
        file.problems.error(value, f"`{name[:60]}` has no condition", "write a value, or `{exists: true}`")
    return [
        Condition(path, operator, wanted.data(), f"{name} {operator} {_short(wanted.data())}")
        for operator, at, wanted in pairs
        if _usable(file, path, operator, at, wanted, events) and known
    ]


def _usable(
    file: File, path: tuple[str, ...], operator: str, at: Node, wanted: Node, events: Collection[str]
) -> bool:
    """Whether an operator fits its value, and the value the field; what does not is noted."""
    error, name = file.problems.error, ".".join(path)
    if operator not in OPERATOR_NAMES:
        hint = (
            f"did you mean `{_SIGNS[operator]}`?"
            if operator in _SIGNS
            else did_you_mean(operator, OPERATOR_NAMES)
        )
        error(at, f"no operator `{operator[:40]}`", hint)
        return False
    value = wanted.data()
    if operator == "exists":
        if not isinstance(value, bool):
            error(wanted, f"`exists` takes true or false, not {kind_of(value)}", truth_hint(value))
        return isinstance(value, bool)
    if value is None:
        error(wanted, f"`{operator}` cannot compare with nothing", f"write `{name}: {{exists: false}}`")
        return False
    if operator in ("in", "not_in"):
        return _usable_list(file, path, operator, wanted, events)
    if isinstance(value, list | dict):
        error(
            wanted,
            f"`{operator}` takes one value, not {kind_of(value)}",
            "for several values write `in: [a, b]`",
        )
        return False
    if operator in _ORDERED and kind_of(value) != "a number":
        error(wanted, f"`{operator}` takes a number, not {kind_of(value)}", number_hint(value))
        return False
    if operator in _TEXTUAL and not isinstance(value, str):
        error(wanted, f"`{operator}` takes a text, not {kind_of(value)}", "put it in quotes")
        return False
    if operator in ("eq", "ne", *_ORDERED):
        return file.complain(wanted, check_value(path, value, events))
    return True


def _usable_list(
    file: File, path: tuple[str, ...], operator: str, wanted: Node, events: Collection[str]
) -> bool:
    if wanted.items is None:
        hint = f"write `{operator}: [a, b]`"
        file.problems.error(wanted, f"`{operator}` takes a list, not {kind_of(wanted.value)}", hint)
        return False
    if not wanted.items:
        file.problems.error(wanted, f"the list of `{operator}` is empty")
        return False
    fine = True
    for item in wanted.items:
        value = item.data()
        if value is None or isinstance(value, list | dict):
            file.problems.error(item, f"the list of `{operator}` takes single values, not {kind_of(value)}")
            fine = False
        else:
            fine = file.complain(item, check_value(path, value, events)) and fine
    return fine


def _short(value: Any) -> str:
    """The wanted value as the rule's author wrote it, with quotes only where it could be mistaken."""
    if isinstance(value, str) and value and value not in ("true", "false") and not value[0].isdigit():
        return value[:80]
    return json.dumps(value, ensure_ascii=False)[:80]
