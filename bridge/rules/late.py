"""Late params: those that use `details`, which the bridge fetches, or `results` of earlier actions of the event.

A delivery is stored with the templates of its late params as the file has them, so it is sent as its rule was when the
event was routed, whatever has become of the rule since. `render_late` renders them once the details are there. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from bridge.connector.action import Action
from bridge.connector.action_name import ActionName
from bridge.connector.params import allows_none, markup_of
from bridge.events import Event
from bridge.rules.counting import COUNTER, History, counter_of, no_history
from bridge.rules.lookup import TemplateContext
from bridge.rules.model import Rules
from bridge.rules.parse_params import DefaultParam, params_of, paths_of, templates_in
from bridge.rules.render import RenderedParams, render_params, render_value
from bridge.rules.template_runtime import TABLES
from bridge.rules.templates import is_template, message_context, template, template_context

DETAILS: Final = "details"
"""The name of the details of a conversation in templates."""
RESULTS: Final = "results"
"""The name of the results of earlier actions in templates."""
DETAILS_CONNECTION: Final = "heppu"
"""The connection that reads them."""

Results = Mapping[str, str | None]
"""Action -> external ID that an earlier action of the event returned; None without one."""
Details = Mapping[str, Any]
"""The details of a conversation as JSON; empty if Heppu does not have any."""


def late_params(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a step that use `details` or `results`, with the sources of their templates."""
    return {
        name: _source(value)
        for name, value in values.items()
        if any(path[0] in (DETAILS, RESULTS) for path in paths_of(value))
    }


def using(name: str, late: Mapping[str, Any]) -> dict[str, Any]:
    """Return those late params that use `details`, or those that use `results`."""
    return {
        param: value for param, value in late.items() if any(path[0] == name for path in _late_paths(value))
    }


def has_params(action: Action, late: Mapping[str, Any]) -> bool:
    """Return whether this version of an action has the late params that another version may have stored."""
    return late.keys() <= params_of(action).keys()


def result_actions(late: Mapping[str, Any]) -> frozenset[str]:
    """Return the actions whose results late params use, as `connector.action`."""
    paths = (path for value in late.values() for path in _late_paths(value) if path[0] == RESULTS)
    return frozenset(".".join(path[1:3]) for path in paths)


def detail_fields(late: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of the details that late params use."""
    paths = (path for value in late.values() for path in _late_paths(value))
    return frozenset(path[1] for path in paths if path[0] == DETAILS and len(path) > 1)


def _late_paths(value: Any) -> Iterator[tuple[str, ...]]:
    return (path for source in _sources(value) for path in template(source).paths)


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
    results: Results | None = None,
    still_late: Collection[str] = (),
) -> RenderedParams:
    """Return all params of a delivery: those that were rendered when the event was routed, and the late ones.

    A param that may be empty is left out if its details are missing. `rules` provide the tables and the time zone. The
    params in `still_late` are not checked, because they are rendered later.
    """
    compiled, context = _prepare(action, late, event, details, rules, now, internal, history, results or {})
    rendered = render_params(action, {**params, **compiled}, context, event.default_country, still_late)
    missing = tuple(
        f"`{name}`: the conversation has no such details"
        for name in using(DETAILS, late)
        if name in rendered.values and rendered.values[name] is None
    )
    return rendered._replace(left_out=(*rendered.left_out, *missing))


def preview_results(
    action: Action,
    late: Mapping[str, Any],
    event: Event,
    details: Details,
    rules: Rules,
    now: datetime,
    *,
    internal: bool = False,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Return late params with a placeholder for each result, except those of the actions in `without`.

    They are not checked, because an ID looks different. Raise RenderError for a missing one without a default.
    """
    results = {name: None if name in without else f"(ID of {name})" for name in result_actions(late)}
    compiled, context = _prepare(action, late, event, details, rules, now, internal, no_history, results)
    return {name: render_value(value, context) for name, value in compiled.items()}


def _prepare(
    action: Action,
    late: Mapping[str, Any],
    event: Event,
    details: Details,
    rules: Rules,
    now: datetime,
    internal: bool,
    history: History,
    results: Results,
) -> tuple[dict[str, Any], TemplateContext]:
    """Return the compiled values of late params, and the context that they are rendered in."""
    context = template_context(event, now, rules.messaging.time_zone)
    context |= {TABLES: rules.tables, COUNTER: counter_of(event, history), DETAILS: dict(details)}
    context[RESULTS] = _as_record(results)
    is_message = action.channel is not None and not internal
    fields = params_of(action)
    with_results = using(
        RESULTS, late
    )  # an ID that is missing is an error: the rule may write `| default('')`
    compiled: dict[str, Any] = {}
    for name, source in late.items():
        info = fields[name]
        if isinstance(source, str):
            is_optional = allows_none(info) and name not in with_results
            compiled[name] = DefaultParam(template(source, markup_of(info)), is_optional)
        else:
            compiled[name] = _compile(source)
    return compiled, message_context(context, event) if is_message else context


def _as_record(results: Results) -> dict[str, Any]:
    """Return results as templates see them: `results.zendesk.create_ticket.id`."""
    record: dict[str, Any] = {}
    for name, external_id in results.items():
        connector, action = ActionName.parse(name)
        record.setdefault(connector, {})[action] = {} if external_id is None else {"id": external_id}
    return record


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
