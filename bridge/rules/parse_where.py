"""Parser of `where`: fields, operators and groups, checked against the fields that Heppu documents."""

from __future__ import annotations

import json
import re
from typing import Any

from bridge.json_values import describe_type
from bridge.rules.conditions import Comparison, Group
from bridge.rules.counting import MAX_COUNTED, CountComparison, EventCount, parse_count
from bridge.rules.fields import boolean_hint, check_value, number_hint
from bridge.rules.model import Condition, Diagnostic, unplaced_error
from bridge.rules.operators import OPERATORS, PRESENCE_OPERATORS
from bridge.rules.parse_context import ParseContext
from bridge.rules.suspicious_text import curly_quotes
from bridge.rules.yaml import Node
from bridge.rules.yaml_errors import comparison_hint
from bridge.spelling import did_you_mean, nearest

ROOTS = ("event", "contact")
GROUPS = ("all", "any", "not")
OPERATOR_NAMES = (*OPERATORS, *PRESENCE_OPERATORS)

_ORDERED = ("gt", "gte", "lt", "lte")
_COUNT_HINT = (
    "write `count(call.no-answer, 7d): {gte: 3}` on a line of its own; inside { }, put the key in quotes"
)
_COUNT_OPERATORS = ("eq", "ne", *_ORDERED)
_STRING_OPERATORS = ("starts_with", "ends_with")
_OPERATOR_ALIASES = {
    "=": "eq",
    "==": "eq",
    "equals": "eq",
    "equal": "eq",
    "is": "eq",
    "!=": "ne",
    "<>": "ne",
    "not": "ne",
    "is_not": "ne",
    "not_equal": "ne",
    "not_equals": "ne",
    ">": "gt",
    "greater": "gt",
    "greater_than": "gt",
    "more": "gt",
    "more_than": "gt",
    "over": "gt",
    ">=": "gte",
    "at_least": "gte",
    "min": "gte",
    "<": "lt",
    "less": "lt",
    "less_than": "lt",
    "under": "lt",
    "<=": "lte",
    "at_most": "lte",
    "max": "lte",
    "includes": "contains",
    "has": "contains",
    "like": "contains",
    "begins_with": "starts_with",
    "any_of": "in",
    "one_of": "in",
    "none_of": "not_in",
    "defined": "exists",
    "present": "filled",
    "not_empty": "filled",
    "known": "filled",
}
"""Common guess for an operator's name -> the operator."""


_PRESENCE_WORDS = ("exists", "exist", "present", "filled", "defined", "any", "*", "not empty", "set")
"""Words that are a condition to their author, and a text to compare with for the loader."""


def read_where(context: ParseContext, node: Node, label: str) -> tuple[Condition, ...]:
    """Return the conditions of a `where`, or of a group in it."""
    hint = _shape_hint(node)
    entries = context.mapping(node, label, hint=hint)
    if node.entries is not None and not entries:
        context.error(node, f"{label} is empty", hint)
    parts: list[Condition] = []
    for name, (key, value) in entries.items():
        if name in GROUPS:
            parts.append(_group(context, name, value))
        elif name.startswith("count("):
            parts.extend(_counts(context, name, key, value))
        else:
            parts.extend(_conditions(context, name, key, value))
    return tuple(parts)


def _shape_hint(node: Node) -> str:
    """Return how to write the conditions at a node that is perhaps a list, or a sentence such as `a.b > 30`."""
    if node.items is not None:
        return "write one `field: value` per line, without `- ` before it"
    sentence = re.match(r"([\w.]+)\s*(>=|<=|==|!=|<>|>|<|=)\s*(\S{1,20})", str(node.value)[:200])
    if sentence:
        return f"write `{sentence[1]}: {_comparison(sentence[2], sentence[3])}`"
    return "write `field: value` or `field: {operator: value}`"


def _comparison(sign: str, value: str) -> str:
    operator = _OPERATOR_ALIASES[sign]
    return value if operator == "eq" else f"{{{operator}: {value}}}"


def _group(context: ParseContext, kind: Any, node: Node) -> Group:
    if kind == "not" and node.items is None:
        return Group("not", read_where(context, node, "`not`"))
    parts: list[Condition] = []
    for item in context.list_items(node, f"`{kind}`"):
        item_parts = read_where(context, item, f"an entry of `{kind}`")
        parts.append(item_parts[0] if len(item_parts) == 1 else Group("all", item_parts))
    return Group(kind, tuple(parts))


def _conditions(context: ParseContext, name: str, key: Node, value: Node) -> list[Comparison]:
    """Return the conditions of one field, which can have several operators."""
    if "." not in name and name not in ROOTS:
        operator = _OPERATOR_ALIASES.get(name) or (name if name in OPERATOR_NAMES else None)
        if operator:
            hint = f"write `field: {{{operator}: value}}`"
            context.error(key, f"expected a field, not the operator `{name}`", hint)
            return []
        if value.items and value.items[0].entries is not None:
            hint = "the groups are `all`, `any` and `not`"
            context.error(key, f"no group `{name[:60]}`", hint)
            return []
    if name == "count":
        context.error(key, "`count` needs event types and a window", _COUNT_HINT)
        return []
    path = tuple(name.split("."))
    if not all(path):
        context.error(key, f"invalid field `{name[:60]}`", "write `event.direction` or `contact.email`")
        return []
    usable = context.check_field(key, name, ROOTS)
    if value.entries is None:
        pairs = [("in" if value.items is not None else "eq", value, value)]
    else:
        pairs = [
            (operator, operator_key, operand) for operator, (operator_key, operand) in value.entries.items()
        ]
    if not pairs:
        context.error(value, f"`{name[:60]}` has no condition", "write a value, or `{exists: true}`")
    return [
        Comparison(path, operator, operand.data(), f"{name} {operator} {_format_operand(operand.data())}")
        for operator, operator_key, operand in pairs
        if _check_operator(context, path, operator, operator_key, operand) and usable
    ]


def _counts(context: ParseContext, name: str, key: Node, value: Node) -> list[CountComparison]:
    """Return the conditions of `count(...)`, which compare a number."""
    arguments = name.removeprefix("count(").removesuffix(")")
    count = parse_count(arguments.split(",")) if name.endswith(")") else None
    if not isinstance(count, EventCount):
        context.report(key, count or unplaced_error("`count(` is not closed", _COUNT_HINT))
        return []
    if value.entries is None:
        context.error(value, f"`{name[:60]}` needs a comparison", "write `{gte: 3}`")
        return []
    comparisons = []
    for operator, (operator_key, operand) in value.entries.items():
        number = operand.data()
        if operator not in _COUNT_OPERATORS:
            hint = did_you_mean(_OPERATOR_ALIASES.get(operator, operator), _COUNT_OPERATORS)
            context.error(operator_key, f"`count` has no operator `{operator[:40]}`", hint)
        elif not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_COUNTED:
            context.error(
                operand, f"`{operator}` takes a whole number from 0 to {MAX_COUNTED}", number_hint(number)
            )
        else:
            text = f"{name} {operator} {number}"
            comparisons.append(CountComparison(count, operator, number, text))
    return comparisons


def _check_operator(
    context: ParseContext,
    path: tuple[str, ...],
    operator: str,
    key: Node,
    operand: Node,
) -> bool:
    """Return whether the operator takes the operand, and the operand fits the field. Add an error if not."""
    if operator not in OPERATOR_NAMES:
        context.error(key, f"no operator `{operator[:40]}`", _operator_hint(operator, ".".join(path)))
        return False
    if operator in ("in", "not_in") and operand.value is not None:
        return _check_list(context, path, operator, operand)
    if operator in _STRING_OPERATORS and operand.items is not None:
        return _check_prefixes(context, operator, operand)
    error = _operand_error(operator, operand.data(), ".".join(path))
    if error is not None:
        return context.report(operand, error)
    comparison = _sign_hint(operand.value) if operator == "eq" and isinstance(operand.value, str) else ""
    if comparison:
        context.error(operand, "comparisons are written in words", comparison)
        return False
    if isinstance(operand.value, str) and (curly := curly_quotes(operand.value)):
        return context.report(operand, curly)
    if operator == "eq" and operand.value in _PRESENCE_WORDS:
        hint = f"write `{'.'.join(path)}: {{exists: true}}`"
        context.warning(operand, f"this compares the field with the word `{operand.value}`", hint)
        return True
    if (
        isinstance(operand.value, str)
        and operator in ("eq", "ne")
        and (wildcard := _wildcard_hint(operand.value))
    ):
        context.warning(operand, "`*` stands for itself here", wildcard)
        return True
    if operator in ("eq", "ne", *_ORDERED):
        return context.report(operand, check_value(path, operand.data(), context.event_types))
    return True


def _sign_hint(value: str) -> str:
    """Return how to write a comparison such as `> 30` or `!= failed`. Empty if the value is none."""
    sign = re.fullmatch(r"(==|!=|<>|=)\s*(\S.{0,40})", value.strip()[:60])
    return f"write `{_comparison(sign[1], sign[2])}`" if sign else comparison_hint(value)


def _wildcard_hint(value: str) -> str:
    """Return the operator that a value with `*` at its start or end is meant for. Empty if there is no `*`."""
    text = value.strip("*")
    if not text or text == value:
        return ""
    operator = (
        "contains" if value[0] == value[-1] == "*" else "ends_with" if value[0] == "*" else "starts_with"
    )
    negated = ", under `not:` if it must not"
    return f'write `{{{operator}: "{text[:40]}"}}`{negated}'


def _operator_hint(operator: str, name: str) -> str:
    """Return what to write instead of an unknown operator. A negated one is not the operator that it contains."""
    operator = operator.lower().replace(" ", "_")
    alias = _OPERATOR_ALIASES.get(operator)
    if alias:
        return f"did you mean `{alias}`?"
    negated = re.fullmatch(r"(?:is_not|not|no|does_not|doesnt|isnt)[ _]?(\w+)", operator)
    inner = negated and (negated[1] if negated[1] in OPERATOR_NAMES else nearest(negated[1], OPERATOR_NAMES))
    if inner:
        return f"write `not: {{{name}: {{{inner}: ...}}}}`"
    return did_you_mean(operator, OPERATOR_NAMES)


def _operand_error(operator: str, value: Any, name: str) -> Diagnostic | None:
    """Return the error in the single value of an operator, if any."""
    kind = describe_type(value)
    if operator in PRESENCE_OPERATORS:
        if isinstance(value, bool):
            return None
        return unplaced_error(f"`{operator}` takes true or false, not {kind}", boolean_hint(value))
    if value is None:
        return unplaced_error(f"`{operator}` cannot compare with null", f"write `{name}: {{exists: false}}`")
    if isinstance(value, list | dict):
        return unplaced_error(
            f"`{operator}` takes one value, not {kind}", "for several values, write `in: [a, b]`"
        )
    if operator in _ORDERED and kind != "a number":
        return unplaced_error(f"`{operator}` takes a number, not {kind}", number_hint(value))
    if operator in _STRING_OPERATORS and not isinstance(value, str):
        return unplaced_error(f"`{operator}` takes a string, not {kind}", "put it in quotes")
    return None


def _check_list(context: ParseContext, path: tuple[str, ...], operator: str, operand: Node) -> bool:
    """Return whether the operand is a list of values that fit the field. Add an error if not."""
    if operand.items is None:
        hint = f"write `{operator}: [a, b]`"
        context.error(operand, f"`{operator}` takes a list, not {describe_type(operand.value)}", hint)
        return False
    if not operand.items:
        context.error(operand, f"the list of `{operator}` is empty")
        return False
    usable = True
    for item in operand.items:
        value = item.data()
        if value is None or isinstance(value, list | dict):
            context.error(item, f"the list of `{operator}` takes single values, not {describe_type(value)}")
            usable = False
        else:
            usable = context.report(item, check_value(path, value, context.event_types)) and usable
    return usable


def _check_prefixes(context: ParseContext, operator: str, operand: Node) -> bool:
    """Return whether the operand is a list of strings. Add an error if not."""
    if not operand.items:
        context.error(operand, f"the list of `{operator}` is empty")
        return False
    usable = True
    for item in operand.items:
        usable = context.report(item, _operand_error(operator, item.data(), "")) and usable
    return usable


def _format_operand(value: Any) -> str:
    """Return the value as the rule's author wrote it, in quotes only if it could be read as another type."""
    if isinstance(value, str) and value and value not in ("true", "false") and not value[0].isdigit():
        return value[:80]
    return json.dumps(value, ensure_ascii=False)[:80]
