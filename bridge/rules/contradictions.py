"""Contradictions: conditions of a rule that no event of its types can meet.

Every condition of a rule must be true, so two conditions on one field that exclude each other turn the rule off. The
loader warns about those that it can prove: limits without a value between them, different required values, and values
that the field never has in these event types.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from jinja2 import nodes

from bridge.rules.operators import OPERATORS, PRESENCE_OPERATORS
from bridge.rules.presence import path_of

Path = tuple[str, ...]

STATUS_BY_EVENT: Final[Mapping[str, str]] = {
    "call.completed": "completed",
    "call.failed": "failed",
    "call.busy": "busy",
    "call.no-answer": "no_answer",
    "chat.completed": "completed",
    "chat.resolved": "completed",
    "chat.abandoned": "completed",
}
"""Event type -> the documented value of `event.status`."""
_LOWER: Final = ("gt", "gte")
_UPPER: Final = ("lt", "lte")
_ONE_OF: Final = ("eq", "in")


class Requirement(Protocol):
    """A comparison of one field with a value: a row of `where`, or a comparison in `if`."""

    @property
    def path(self) -> Path:
        """The field as a dotted name."""
        ...

    @property
    def operator(self) -> str:
        """The operator, by its name in `where`."""
        ...

    @property
    def expected(self) -> Any:
        """The value it is compared with."""
        ...


@dataclass(frozen=True)
class FieldComparison:
    """A comparison of a field with a constant in an expression."""

    path: Path
    operator: str
    expected: Any


_WHERE_NAMES: Final = {"gteq": "gte", "lteq": "lte", "notin": "not_in"}
"""Jinja's name of an operator -> its name in `where`, where the two differ."""
_MIRRORED: Final = {"gt": "lt", "gte": "lte", "lt": "gt", "lte": "gte"}


def requirements_of(node: nodes.Node) -> tuple[FieldComparison, ...]:
    """Return the comparisons with constants that must be true for an expression to be true."""
    if isinstance(node, nodes.And):
        return requirements_of(node.left) + requirements_of(node.right)
    if not isinstance(node, nodes.Compare):
        return ()
    found = []
    sides = [node.expr, *(operand.expr for operand in node.ops)]
    for left, operand, right in zip(sides, node.ops, sides[1:], strict=False):
        operator = _WHERE_NAMES.get(operand.op, operand.op)
        if isinstance(left, nodes.Const):
            left, right, operator = right, left, _MIRRORED.get(operator, operator)
        path, value = path_of(left), _constant(right)
        if (
            path is not None
            and value is not None
            and (operator in ("in", "not_in")) == isinstance(value, list)
        ):
            found.append(FieldComparison(path, operator, value))
    return tuple(found)


def _constant(node: nodes.Node) -> Any:
    if isinstance(node, nodes.List | nodes.Tuple):
        items = [_constant(item) for item in node.items]
        return items if None not in items else None
    return node.value if isinstance(node, nodes.Const) else None


def contradictions(
    requirements: Iterable[Requirement], event_types: Collection[str]
) -> Iterator[tuple[Path, str]]:
    """Yield each field whose requirements no event of these types meets, and why."""
    by_path: dict[Path, list[Requirement]] = defaultdict(list)
    for requirement in requirements:
        by_path[requirement.path].append(requirement)
    for path, own in by_path.items():
        reason = _fixed_value(path, own, event_types) or _excluded(own)
        if reason:
            yield path, reason


def _fixed_value(path: Path, requirements: Sequence[Requirement], event_types: Collection[str]) -> str:
    """Return why the requirements do not fit the values that the field has in these event types, if they do not."""
    if path == ("event", "event"):
        values = set(event_types)
    elif path == ("event", "status"):
        values = {STATUS_BY_EVENT[name] for name in event_types if name in STATUS_BY_EVENT}
    elif path == ("event", "conversationType"):
        values = {
            "chat" if name.startswith("chat.") else "phone" for name in event_types if name in STATUS_BY_EVENT
        }
    else:
        return ""
    if not values or any(_meets_all(value, requirements) for value in values):
        return ""
    shown = " or ".join(f"`{value}`" for value in sorted(values))
    return f"it is always {shown} in {', '.join(sorted(event_types))}"


def _excluded(requirements: Sequence[Requirement]) -> str:
    """Return why no value meets all requirements, if it can be proved."""
    absent = [item for item in requirements if item.operator in PRESENCE_OPERATORS and item.expected is False]
    comparisons = [item for item in requirements if item.operator not in PRESENCE_OPERATORS]
    if absent and (comparisons or any(_requires_value(item) for item in requirements)):
        return "a missing field meets no other condition"
    choices = [item for item in comparisons if item.operator in _ONE_OF]
    if choices:
        first = choices[0].expected
        candidates = first if isinstance(first, list) else [first]
        if any(_meets_all(value, comparisons) for value in candidates):
            return ""
        return "no value meets all of its conditions" if len(comparisons) > 1 else ""
    return _empty_range(comparisons)


def _requires_value(requirement: Requirement) -> bool:
    return requirement.operator == "filled" and requirement.expected is True


def _empty_range(comparisons: Sequence[Requirement]) -> str:
    numbers = [item for item in comparisons if isinstance(item.expected, int | float)]
    lower = [(item.expected, item.operator == "gt") for item in numbers if item.operator in _LOWER]
    upper = [(item.expected, item.operator == "lt") for item in numbers if item.operator in _UPPER]
    if not lower or not upper:
        return ""
    (least, above), (most, below) = max(lower), min(upper, key=lambda bound: (bound[0], not bound[1]))
    if least < most or (least == most and not above and not below):
        return ""
    return f"no number is {'above' if above else 'at least'} {least} and {'below' if below else 'at most'} {most}"


def _meets_all(value: Any, requirements: Sequence[Requirement]) -> bool:
    return all(
        item.operator in PRESENCE_OPERATORS or OPERATORS[item.operator](value, item.expected) is True
        for item in requirements
    )
