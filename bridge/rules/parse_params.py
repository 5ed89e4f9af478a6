"""Reading the params under `with`: names always checked, types where no template stands."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bridge.connector.api import Action, allows_none, example_of, is_html, template_of
from bridge.rules.model import Trigger
from bridge.rules.parse_context import File
from bridge.rules.template_filters import Missing, RenderError
from bridge.rules.template_runtime import Names
from bridge.rules.templates import Template, is_template, template
from bridge.rules.yaml import Node

NAMES: dict[Trigger, tuple[str, ...]] = {
    "rule": ("event", "contact", "now"),
    "on_failure": ("event", "contact", "now", "delivery"),
    "alert": ("event", "contact", "now", "delivery"),
}
"""What templates can name, by where they stand."""

_READY = {"text": "{{ delivery.message }}", "subject": "{{ delivery.message | truncate(100) }}"}
"""What a follow-up for the team says when its rule writes nothing else."""


@dataclass(frozen=True)
class Default:
    """A param's own template, which the rule left as it is."""

    template: Template
    optional: bool
    """Whether what cannot be worked out is None; else it is an error."""

    def __call__(self, names: Names) -> Any:
        """The value, or None; raises RenderError."""
        try:
            return self.template(names)
        except RenderError:
            if self.optional:
                return None
            raise


def params_of(action: Action) -> dict[str, FieldInfo]:
    """The params of an action by the names that rules.yaml gives them."""
    return {info.alias or name: info for name, info in action.params.model_fields.items()}


def is_required(info: FieldInfo) -> bool:
    """Whether a rule has to write this param: it has neither default nor template, and None is not allowed."""
    if template_of(info) is not None:
        return False
    return info.is_required() or (info.default is None and not _optional(info))


def _optional(info: FieldInfo) -> bool:
    return info.annotation is Any or allows_none(info)


def read_params(
    file: File, use: Node, written: Node | None, action: Action, origin: Trigger, events: Collection[str]
) -> dict[str, Any]:
    """Every param that the rule or a default sets, templates compiled, the rest checked."""
    params = params_of(action)
    hint = f"`{action.full_name}` takes: {', '.join(params)}"
    entries = file.mapping(written, "`with`", params, hint) if written is not None else {}
    values: dict[str, Any] = {}
    for name, info in params.items():
        if name in entries:
            values[name] = _compiled(file, entries[name][1], origin, events, html=is_html(info))
            continue
        source = _default(action, name, info, origin)
        if source is not None:
            values[name] = Default(template(source, is_html(info)), _optional(info))
        elif is_required(info) or (origin == "alert" and name == action.recipient):
            example = example_of(info)
            example = f", such as `{name}: {example}`" if example is not None else ""
            file.problems.error(
                use, f"`{action.full_name}` needs `{name}`", f"write it under `with:`{example}"
            )
    _check_values(file, use, written, action, values)
    return values


def check_templates(file: File, written: Node, origin: Trigger, events: Collection[str]) -> None:
    """Check what can be checked under `with` when the action is not known."""
    _compiled(file, written, origin, events, html=False)


def _default(action: Action, name: str, info: FieldInfo, origin: Trigger) -> str | None:
    """The template of a param that the rule does not write.

    An alert is never addressed to the person the event is about, and a follow-up for the team says what happened.
    """
    if origin == "alert" and name == action.recipient:
        return None
    if name in _READY and (origin == "alert" or (origin == "on_failure" and action.channel is None)):
        return _READY[name]
    return template_of(info)


def _compiled(file: File, node: Node, origin: Trigger, events: Collection[str], html: bool) -> Any:
    """A value with its templates compiled, however deep they are."""
    if node.entries is not None:
        return {
            name: _compiled(file, value, origin, events, html) for name, (_, value) in node.entries.items()
        }
    if node.items is not None:
        return [_compiled(file, item, origin, events, html) for item in node.items]
    if isinstance(node.value, str) and is_template(node.value):
        return file.template(node, node.value, events, NAMES[origin], html) or _never
    return node.value


def _never(_names: Names) -> Any:
    """Stands where a template has mistakes, so that the rest can still be checked."""
    raise Missing("the template has mistakes")


def has_template(value: Any) -> bool:
    """Whether a compiled value still depends on the event."""
    if isinstance(value, dict):
        return any(has_template(item) for item in value.values())
    if isinstance(value, list):
        return any(has_template(item) for item in value)
    return callable(value)


def _check_values(
    file: File, use: Node, written: Node | None, action: Action, values: dict[str, Any]
) -> None:
    """Check the types of what stands there without templates, with the action's own model."""
    literal = {name: value for name, value in values.items() if not has_template(value)}
    whole = len(literal) == len(values)
    try:
        action.params.model_validate(literal)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            place = tuple(item["loc"])
            if (place and place[0] not in literal) or not (place or whole):
                continue  # a template stands there; it is checked when it is rendered
            found = complaint(item)
            if len(place) == 1 and literal[str(place[0])] is None:
                found = f"`{place[0]}` cannot be empty"
            file.problems.error(_find(written, place) or use, found, _example(action, place))


_WANTED = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "none_required": "must be left out",
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_too_long": "may have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be more than {gt}",
    "less_than": "must be less than {lt}",
}
"""Pydantic's kinds of errors in the words of people; what is in braces is the model's, never the value."""


def complaint(item: ErrorDetails) -> str:
    """What pydantic finds wrong with a param; it never holds the value."""
    name = ".".join(str(part) for part in item["loc"])
    wanted = _WANTED.get(item["type"])
    if wanted is not None:
        return f"`{name}` {wanted.format_map(item.get('ctx', {}))}"
    message = item["msg"].removeprefix("Value error, ")
    if not name:
        return message
    return f"`{name}` {message}" if message[:1].islower() else f"`{name}`: {message}"


def _find(node: Node | None, place: tuple[Any, ...]) -> Node | None:
    """The node at a place that pydantic names, or the nearest one above it."""
    for part in place:
        if node is None:
            return None
        if node.entries is not None and part in node.entries:
            node = node.entries[str(part)][1]
        elif node.items is not None and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
    return node


def _example(action: Action, place: tuple[Any, ...]) -> str:
    info = params_of(action).get(str(place[0])) if place else None
    return f"for example: {_written(str(place[0]), info)}" if info and example_of(info) is not None else ""


def _written(name: str, info: FieldInfo) -> str:
    """The example of a param as it stands in the file."""
    example = example_of(info)
    return f"{name}: {example if isinstance(example, str) else json.dumps(example)}"
