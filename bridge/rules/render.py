"""Rendering of params: the values of a step for one event, validated by the action's model. Pure.

A param that uses `details` is late: it is not rendered when the event is routed, but before the first attempt, once the
details of the conversation have been fetched (`bridge.rules.late`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, create_model, model_validator

from bridge.connector.action import Action
from bridge.connector.params import DEFAULT_COUNTRY, Params, truncation_of
from bridge.rules.lookup import TemplateContext
from bridge.rules.parse_params import DefaultParam, describe_validation_error
from bridge.rules.template_filters import MissingValue, RenderError


class RenderedParams(NamedTuple):
    """The params of a delivery, or why they could not be rendered. It is a tuple because routing creates many."""

    values: dict[str, Any]
    """As JSON; phone numbers and email addresses are in canonical form. Empty if there is an error."""
    validated: Params | None = None
    error: str | None = None
    """Contains the names of params, but no values."""
    left_out: tuple[str, ...] = ()
    """Params that are left out because their template could not be evaluated."""


def render_params(
    action: Action,
    step_values: Mapping[str, Any],
    context: TemplateContext,
    country: str | None,
    late: Collection[str] = (),
) -> RenderedParams:
    """Render every param that is not late. `country` is the one whose national phone numbers are understood.

    A value of the event that does not fit its param is an error, also from a default: without it, the action might
    concern another record.
    """
    values: dict[str, Any] = {}
    errors: list[str] = []
    left_out: list[str] = []
    for name, value in step_values.items():
        if name in late:
            continue
        try:
            values[name] = render_value(value, context)
        except RenderError as error:
            if not (isinstance(value, DefaultParam) and value.optional):
                errors.append(f"`{name}`: {error}")
                continue
            values[name] = None
            if not isinstance(error, MissingValue):
                left_out.append(f"`{name}`: {error}")
    if errors:
        return RenderedParams({}, error="; ".join(errors))
    model = _without(action.params, frozenset(late)) if late else action.params
    try:
        validated = model.model_validate(values, context={DEFAULT_COUNTRY: country})
        return RenderedParams(
            _canonical(values, validated), validated, left_out=(*left_out, *_cut_texts(values, validated))
        )
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
    messages = (describe_validation_error(item, action, values) for item in details)
    return RenderedParams({}, error="; ".join(messages))


@lru_cache(maxsize=256)
def _without(model: type[Params], names: frozenset[str]) -> type[Params]:
    """Return the model with params that accept anything, because they are rendered and validated later.

    What the model requires of several params together is checked later as well: one of them may be late.
    """
    fields = {info.alias or name: (name, info.alias) for name, info in model.model_fields.items()}
    late: dict[str, Any] = {fields[name][0]: (Any, Field(None, alias=fields[name][1])) for name in names}
    unchecked: dict[str, Any] = {
        name: model_validator(mode="after")(_unchanged)
        for name in model.__pydantic_decorators__.model_validators
    }
    return create_model(model.__name__, __base__=model, __validators__=unchecked, **late)


def _unchanged(params: Params) -> Params:
    return params


def _canonical(values: Mapping[str, Any], validated: Params) -> dict[str, Any]:
    """Return the values with the strings as validation changed them, so that no later step needs its context."""
    return {
        name: changed if isinstance(value, str) and isinstance(changed, str) else value
        for name, value in values.items()
        for changed in [getattr(validated, name, value)]
    }


def _cut_texts(values: Mapping[str, Any], validated: Params) -> list[str]:
    """Return a note for each text that is cut because its param has room for fewer characters."""
    return [
        f"`{name}`: what does not fit into {length:,} characters"
        for name, length in _longest(type(validated)).items()
        if isinstance(text := values.get(name), str) and len(text.strip()) > length
    ]


@lru_cache(maxsize=512)
def _longest(model: type[Params]) -> Mapping[str, int]:
    """Return the length to which each param is cut that can be cut, by its name in rules."""
    lengths = {info.alias or name: truncation_of(info) for name, info in model.model_fields.items()}
    return {name: length for name, length in lengths.items() if length is not None}


def render_value(value: Any, context: TemplateContext) -> Any:
    """Return a value with its templates rendered, also nested ones."""
    if callable(value):
        return value(context)
    if isinstance(value, dict):
        return {name: render_value(item, context) for name, item in value.items()}
    if isinstance(value, list):
        return [render_value(item, context) for item in value]
    return value
