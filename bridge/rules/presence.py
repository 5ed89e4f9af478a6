"""Presence of fields: which fields certainly have a value where a template uses them.

A field without a value makes a template fail, so the loader warns about each use that nothing guards. A field is
guarded by `default`, by a test such as `is filled` around it, or by a condition of the rule that is true only if the
field has a value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from jinja2 import nodes

from bridge.events import FIELDS
from bridge.rules.model import MESSAGE_FIELDS, Condition, Diagnostic, Step, Trigger, unplaced_warning

Path = tuple[str, ...]
Paths = frozenset[Path]

PRESENT_TESTS: Final = ("defined", "filled")
"""Tests that are true only if their value is there, and false instead of an error if it is not."""
ABSENT_TESTS: Final = ("undefined", "none")

_NOTHING: Paths = frozenset()
_OPTIONAL: Final = ("outcome", "summary", "duration", "agentNumber", "twilioCallSid")
"""Top-level fields that some of Heppu's samples lack, or that its documentation allows to be null."""
_OPTIONAL_OF_DELIVERY: Final = MESSAGE_FIELDS | {"external_id", "sent_at"}
_DOCUMENTED: Final = frozenset(path for fields in FIELDS.values() for path in fields if "." not in path)


def may_be_missing(path: Path) -> bool:
    """Return whether some events have no value for this field of a template."""
    root, *rest = path
    if root == "event":
        return len(rest) > 1 or (bool(rest) and (rest[0] in _OPTIONAL or rest[0] not in _DOCUMENTED))
    if root == "delivery":
        return bool(rest) and rest[0] in _OPTIONAL_OF_DELIVERY
    return root in ("contact", "details", "results")


def present_after(steps: Sequence[Step], trigger: Trigger) -> Paths:
    """Return the fields of `delivery` that have a value in a follow-up (`trigger`) of any of these steps."""
    names = {"sent_at"} if trigger == "on_success" else set()
    if steps and all(step.action.channel for step in steps):
        names |= {"channel", "recipient"}
        if all(step.action.text in step.values for step in steps):
            names.add("text")
            names |= {"subject"} if all("subject" in step.values for step in steps) else set()
    return frozenset(("delivery", name) for name in names)


def check_presence(path: Path) -> Diagnostic | None:
    """Return a warning for a field that a template needs and some events do not have."""
    if not may_be_missing(path):
        return None
    name = ".".join(path)
    if path[0] == "details":
        hint = "add `| default('...')`"
        return unplaced_warning(f"some conversations have no `{name}`, and this fails for them", hint)
    if path[0] == "results":
        text = f"the failed action may be `{'.'.join(path[1:3])}`, and this fails without its ID"
        return unplaced_warning(text, "add `| default('...')`")
    if path[0] == "delivery":
        hint = "add `| default('...')`"
        if path[1] in MESSAGE_FIELDS:
            hint += ", or move it to a rule in which every step of `do` is a message"
        return unplaced_warning(f"some deliveries have no `{name}`, and this fails for them", hint)
    hint = f"add `| default('...')`, or require it in `where`: `{name}: {{filled: true}}`"
    return unplaced_warning(f"some events have no `{name}`, and this fails for them", hint)


def path_of(node: nodes.Node) -> Path | None:
    """Return the dotted name that a node stands for, if it is one."""
    keys: list[str] = []
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        if isinstance(node, nodes.Getattr):
            keys.append(node.attr)
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            keys.append(node.arg.value)
        else:
            return None
        node = node.node
    return (node.name, *reversed(keys)) if isinstance(node, nodes.Name) else None


def proven_by(test: nodes.Node) -> tuple[Paths, Paths]:
    """Return the fields that have a value if the test is true, and those that have one if it is false."""
    if isinstance(test, nodes.Not):
        if_true, if_false = proven_by(test.node)
        return if_false, if_true
    if isinstance(test, nodes.And):
        (left_true, left_false), (right_true, right_false) = proven_by(test.left), proven_by(test.right)
        return left_true | right_true, left_false & right_false
    if isinstance(test, nodes.Or):
        (left_true, left_false), (right_true, right_false) = proven_by(test.left), proven_by(test.right)
        return left_true & right_true, left_false | right_false
    if isinstance(test, nodes.Test):
        own = _paths([test.node])
        if test.name in PRESENT_TESTS:
            return own, _NOTHING
        return (_NOTHING, own) if test.name in ABSENT_TESTS else (own, own)
    if isinstance(test, nodes.Compare):
        # Only the first comparison of a chain is certainly made.
        own = _paths([test.expr, test.ops[0].expr])
        return own, own
    own = _paths([test])
    return own, own


def _paths(sides: Iterable[nodes.Node]) -> Paths:
    return frozenset(path for side in sides if (path := path_of(side)) is not None)


def proven_by_all(conditions: Collection[Condition]) -> Paths:
    """Return the fields that have a value whenever all of these conditions are true."""
    return _NOTHING.union(*(condition.proves() for condition in conditions))


def proven_by_any(conditions: Collection[Condition]) -> Paths:
    """Return the fields that have a value whenever one of these conditions is true."""
    proven = [condition.proves() for condition in conditions]
    return proven[0].intersection(*proven[1:]) if proven else _NOTHING
