"""Parser of `with`: always checks the names of params, and their types unless the value is a template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bridge.connector.action import Action
from bridge.connector.param_types import as_yaml
from bridge.connector.params import (
    ConnectorSettings,
    MarkupLanguage,
    allows_none,
    example_of,
    form_of,
    markup_of,
    number_to_text,
    template_of,
    truncation_of,
)
from bridge.rules.fields import ROOTS, check_path
from bridge.rules.lookup import TemplateContext
from bridge.rules.model import Trigger
from bridge.rules.parse_context import STEP_KEYS, ParseContext
from bridge.rules.presence import may_be_missing
from bridge.rules.suspicious_text import check_text
from bridge.rules.template_compiler import TemplateError
from bridge.rules.template_runtime import unusable
from bridge.rules.templates import Template, is_template, template
from bridge.rules.yaml import Node
from bridge.telemetry import mask
from bridge.validation_messages import requirement

_FOLLOW_UP_DEFAULTS = {"text": "{{ delivery.message }}", "subject": "{{ delivery.message | truncate(100) }}"}
"""Default params of a follow-up for the team, if the rule sets nothing else."""

_ACCOUNT_WORDS = ("channel", "account", "from", "sender", "webhook", "webhook_url")
"""Params that authors expect in an action, but that are settings of its connection."""


@dataclass(frozen=True)
class DefaultParam:
    """The default template of a param that the rule does not set."""

    template: Template
    optional: bool
    """True if the param is None if its template cannot be rendered. Otherwise that is an error."""

    def __call__(self, context: TemplateContext) -> Any:
        """Return the rendered value. Raise RenderError if it cannot be rendered."""
        return self.template(context)


def params_of(action: Action) -> dict[str, FieldInfo]:
    """Return the params of an action by their names in rules.yaml."""
    return {info.alias or name: info for name, info in action.params.model_fields.items()}


def is_required(info: FieldInfo) -> bool:
    """Return whether a rule must set this param: it has no default and no template, and does not allow None."""
    if template_of(info) is not None:
        return False
    return info.is_required() or (info.default is None and not _optional(info))


def _optional(info: FieldInfo) -> bool:
    return info.annotation is Any or allows_none(info)


def read_params(context: ParseContext, use: Node, with_node: Node | None, action: Action) -> dict[str, Any]:
    """Return every param that the rule or a default sets. Templates are compiled, other values are validated."""
    params = params_of(action)
    hint = f"the params of `{action.full_name}` are {', '.join(params)}"
    hints = _misplaced_hints(context, action)
    entries = context.mapping(with_node, "`with`", params, hint, hints) if with_node is not None else {}
    values: dict[str, Any] = {}
    for name, info in params.items():
        if name in entries:
            inner = _with_late_names(context, action, name, info)
            value = _compile(inner, entries[name][1], markup=markup_of(info))
            values[name] = number_to_text(info, value)
            continue
        source = _default_template(action, name, info, context.trigger)
        if source is not None:
            compiled = _compile_default(context, use, action, name, source)
            if compiled is None:
                continue
            default = DefaultParam(compiled, _optional(info))
            if _suits(context, use, action, name, default):
                values[name] = default
        elif is_required(info) or (context.trigger == "alert" and name == action.recipient):
            example = example_of(info)
            example = f", such as `{name}: {example}`" if example is not None else ""
            context.error(use, f"`{action.full_name}` needs `{name}`", f"write it under `with:`{example}")
    if context.trigger == "alert":
        _require_message(context, use, action, values)
    _validate(context, use, with_node, action, values)
    return values


def _compile_default(
    context: ParseContext, use: Node, action: Action, name: str, source: str
) -> Template | None:
    """Return the compiled default of a param. Add an error about the connector if it is wrong for every event."""
    try:
        compiled = template(source, markup_of(params_of(action)[name]))
        problems = [check_path(path, (), ROOTS) for path in sorted(compiled.paths)]
    except TemplateError as error:
        compiled, problems = None, [diagnostic for _, diagnostic in error.diagnostics]
    found = next((problem for problem in problems if problem is not None and problem.level == "error"), None)
    if found is None:
        return compiled
    text = f"the default of `{name}` in the connector `{action.connector}` is wrong: {found.text}"
    hint = f"correct it in the connector's code, or write `{name}` under `with:`"
    context.error(use, text, f"{found.hint} {hint[0].upper()}{hint[1:]}" if found.hint else hint)
    return None


def _require_message(context: ParseContext, use: Node, action: Action, values: Mapping[str, Any]) -> None:
    """Add an error if an alert says nothing about the problem: no param is for text, and none uses `delivery`."""
    if "text" in values or any(
        path[0] == "delivery" for value in values.values() for path in paths_of(value)
    ):
        return
    text = f"an alert through `{action.full_name}` would not say what is wrong"
    context.error(
        use, text, "write `{{ delivery.message }}` in one of its params, or use an action with a `text`"
    )


def paths_of(value: Any) -> frozenset[tuple[str, ...]]:
    """Return every dotted name in the templates of a param of a step."""
    return frozenset(path for item in templates_in(value) for path in item.paths)


def templates_in(value: Any) -> Iterator[Template]:
    """Yield the templates of a param of a step, also nested ones."""
    if isinstance(value, DefaultParam):
        yield value.template
    elif isinstance(value, Template):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from templates_in(item)


def step_key_hints(context: ParseContext, action: Action) -> dict[str, str]:
    """Return the hints for params of an action that stand next to `with`."""
    of_params = f"it is a param of `{action.full_name}`: indent it below `with:`"
    of_connection = {
        word: hint for word, hint in _misplaced_hints(context, action).items() if word not in STEP_KEYS
    }
    return of_connection | dict.fromkeys(params_of(action), of_params)


def _misplaced_hints(context: ParseContext, action: Action) -> dict[str, str]:
    """Return the hints for params that people expect, but that belong to the step or to its connection."""
    of_step = "it belongs to the step: start it exactly below `use`"
    settings, name = context.registry.connector(action.connector).settings, f"{action.connector}_2"
    own = [field for field in settings.model_fields if field not in ConnectorSettings.model_fields]
    if not own:
        return dict.fromkeys(STEP_KEYS, of_step)
    variable = settings.variable(settings.prefix(name), own[0])
    hint = (
        f"it belongs to the connection: for a second one, write `connection: {name}`, which reads {variable}"
    )
    return dict.fromkeys(_ACCOUNT_WORDS, hint) | dict.fromkeys(STEP_KEYS, of_step)


def _with_late_names(context: ParseContext, action: Action, name: str, info: FieldInfo) -> ParseContext:
    """Return the context of a param that the rule sets: most params can use `details` and `results`.

    The one that decides to whom a delivery goes cannot. An alert has no conversation.
    """
    if context.trigger == "alert" or name == action.recipient:
        return context
    present = context.present | {("details",)} if _optional(info) else context.present
    if context.trigger != "on_failure":  # without the ID of an earlier action, the delivery shall not be sent
        present = present | {("results",)}
    return context.within(names=(*context.names, "details", "results"), present=present)


def _suits(context: ParseContext, use: Node, action: Action, name: str, default: DefaultParam) -> bool:
    """Return whether a default has what it needs here. Add an error if one that a step must have lacks it."""
    in_rule = context.trigger == "rule"
    paths = default.template.paths if in_rule else default.template.required
    missing = {path for path in paths if path[0] == "delivery" and may_be_missing(path)} - context.present
    if not missing or default.optional:
        return not (missing and in_rule)
    place = "under `on_success`" if in_rule else "in a rule in which every step of `do` is a message"
    hint = f"write it under `with:`, or use the action {place}, where it is `{default.template.source}`"
    context.error(use, f"`{action.full_name}` needs `{name}` here", hint)
    return False


def check_templates(context: ParseContext, with_node: Node) -> None:
    """Check the templates under `with` if the action is unknown."""
    _compile(context.within(names=(*context.names, "details", "results")), with_node, markup=None)


def _default_template(action: Action, name: str, info: FieldInfo, trigger: Trigger) -> str | None:
    """Return the template of a param that the rule does not set.

    The recipient of an alert has no default, because the event's contact must not receive alerts. The default text of
    a follow-up for the team describes what happened.
    """
    if trigger == "alert" and name == action.recipient:
        return None
    for_team = trigger == "alert" or (trigger != "rule" and action.channel is None)
    own = template_of(info)
    is_about_event = is_required(info) if own is None else "delivery." not in own
    if name in _FOLLOW_UP_DEFAULTS and for_team and is_about_event:
        return _FOLLOW_UP_DEFAULTS[name]
    return own


def _compile(context: ParseContext, node: Node, *, markup: MarkupLanguage | None) -> Any:
    """Return a value with all of its templates compiled, also nested ones."""
    if node.entries is not None:
        return {name: _compile(context, value, markup=markup) for name, (_, value) in node.entries.items()}
    if node.items is not None:
        return [_compile(context, item, markup=markup) for item in node.items]
    if isinstance(node.value, str):
        context.report(node, check_text(node.value))
    if isinstance(node.value, str) and is_template(node.value):
        return context.template(node, node.value, markup=markup) or unusable
    return node.value


def has_template(value: Any) -> bool:
    """Return whether a compiled value still depends on the event."""
    if isinstance(value, dict):
        return any(has_template(item) for item in value.values())
    if isinstance(value, list):
        return any(has_template(item) for item in value)
    return callable(value)


def _validate(
    context: ParseContext, use: Node, with_node: Node | None, action: Action, values: dict[str, Any]
) -> None:
    """Validate the values without templates with the action's own model."""
    literals = {name: value for name, value in values.items() if not has_template(value)}
    complete = len(literals) == len(values)
    try:
        action.params.model_validate(literals)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            location = tuple(item["loc"])
            if (location and location[0] not in literals) or not (location or complete):
                continue  # the value is a template, which is validated after rendering
            text = describe_validation_error(item, action, literals)
            if len(location) == 1 and literals[str(location[0])] is None:
                text = f"`{location[0]}` must not be empty"
            context.error(_find(with_node, location) or use, text, _example(action, location))
    for name, info in params_of(action).items():
        length = truncation_of(info)
        if length is not None and len(str(literals.get(name, "")).strip()) > length:
            place = _find(with_node, (name,)) or use
            context.warning(
                place, f"`{name}` has room for {length:,} characters: the rest is cut", "shorten it"
            )


def describe_validation_error(item: ErrorDetails, action: Action, values: Mapping[str, Any]) -> str:
    """Return the message for one of pydantic's errors about a param.

    It contains no value, except one that does not have the form of an ID; addresses in it are masked.
    """
    name = ".".join(str(part) for part in item["loc"])
    info = params_of(action).get(name)
    if item["type"] == "string_pattern_mismatch" and info is not None:
        shown = mask(str(values.get(name)).strip())[:40]
        return f"`{name}` must be {form_of(info)}, got {f'`{shown}`' if shown else 'an empty text'}"
    if must_be := requirement(item):
        return f"`{name}` {must_be}"
    message = item["msg"].removeprefix("Value error, ")
    if not name:
        return message
    return f"`{name}` {message}" if message[:1].islower() else f"`{name}`: {message}"


def _find(node: Node | None, location: tuple[Any, ...]) -> Node | None:
    """Return the node at one of pydantic's locations, or its closest parent that the file has."""
    for part in location:
        if node is None:
            return None
        if node.entries is not None and part in node.entries:
            node = node.entries[str(part)][1]
        elif node.items is not None and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
    return node


def _example(action: Action, location: tuple[Any, ...]) -> str:
    """Return a hint with the example of a param as YAML."""
    name = str(location[0]) if location else ""
    info = params_of(action).get(name)
    example = example_of(info) if info else None
    if example is None:
        return ""
    return f"for example, `{name}: {as_yaml(example)}`"
