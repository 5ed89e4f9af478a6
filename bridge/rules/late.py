"""Late params: those that use `details`, which the bridge fetches before a delivery's first attempt.

A delivery is stored with the templates of its late params as the file has them, so it is sent as its rule was when the
event was routed, whatever has become of the rule since. `render_late` renders them once the details are there. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from bridge.connector.api import Action
from bridge.connector.params import allows_none, markup_of
from bridge.events import Event
from bridge.rules.counting import COUNTER, History, counter_of, no_history
from bridge.rules.model import Rules
from bridge.rules.parse_params import DefaultParam, params_of, paths_of, templates_in
from bridge.rules.render import RenderedParams, render_params
from bridge.rules.template_runtime import TABLES
from bridge.rules.templates import is_template, message_context, template, template_context

DETAILS: Final = "details"
"""The name of the details of a conversation in templates."""
DETAILS_CONNECTION: Final = "heppu"
"""The connection that reads them."""

Details = Mapping[str, Any]
"""The details of a conversation as JSON; empty if Heppu does not have any."""


def late_params(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a step that use `details`, with the sources of their templates."""
    return {
        name: _source(value)
        for name, value in values.items()
        if any(path[0] == DETAILS for path in paths_of(value))
    }


def detail_fields(late: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of the details that late params use."""
    templates = (template(source) for value in late.values() for source in _sources(value))
    return frozenset(
        path[1] for item in templates for path in item.paths if path[0] == DETAILS and len(path) > 1
    )


def render_late(
    action: Action,
    params: Mapping[str, Any],
    late: Mapping[str, Any],
    event: Event,
    details: Details,
    rules: Rules,
    now: datetime,
    *,
    internal: bool = False,
    history: History = no_history,
) -> RenderedParams:
    """Return all params of a delivery: those that were rendered when the event was routed, and the late ones.

    A param that may be empty is left out if its details are missing. `rules` provide the tables and the time zone.
    """
    context = template_context(event, now, rules.messaging.time_zone)
    context |= {TABLES: rules.tables, COUNTER: counter_of(event, history), DETAILS: dict(details)}
    is_message = action.channel is not None and not internal
    fields = params_of(action)
    compiled: dict[str, Any] = {}
    for name, source in late.items():
        info = fields[name]
        if isinstance(source, str):
            compiled[name] = DefaultParam(template(source, markup_of(info)), allows_none(info))
        else:
            compiled[name] = _compile(source)
    rendered = render_params(
        action,
        {**params, **compiled},
        message_context(context, event) if is_message else context,
        event.default_country,
    )
    missing = tuple(
        f"`{name}`: the conversation has no such details"
        for name in late
        if name in rendered.values and rendered.values[name] is None
    )
    return replace(rendered, left_out=(*rendered.left_out, *missing))


def _compile(source: Any) -> Any:
    if isinstance(source, dict):
        return {name: _compile(item) for name, item in source.items()}
    if isinstance(source, list):
        return [_compile(item) for item in source]
    return template(source) if isinstance(source, str) and is_template(source) else source


def _source(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _source(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_source(item) for item in value]
    compiled = next(templates_in(value), None)
    return value if compiled is None else compiled.source


def _sources(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if is_template(value):
            yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _sources(item)
