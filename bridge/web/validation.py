"""Validation of requests: reads query parameters and JSON bodies into models, with errors that say what is allowed.

The same models are published in the API's OpenAPI document, so what it promises is what is checked here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from starlette.datastructures import QueryParams

from bridge.errors import BridgeError
from bridge.spelling import did_you_mean, nearest
from bridge.validation_messages import requirement

Source = Literal["parameter", "field"]
"""Where a value is: a query parameter, or a field of a JSON body."""
_MAX_SHOWN: Final = 40
"""Characters of a name that a message repeats."""


class InvalidParameter(BridgeError):
    """A parameter is invalid. The message says which values are valid."""


class Parameters(BaseModel):
    """Query parameters of a request, or the fields of its JSON body. Each describes itself with `Field`."""

    # Building a validator takes about a millisecond: only models that are used pay for it.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


P = TypeVar("P", bound=Parameters)


def read_query(model: type[P], query: QueryParams) -> P:
    """Return the query parameters as a model; an empty one counts as missing. Raise InvalidParameter.

    Only a field that holds several values may be repeated.
    """
    values: dict[str, Any] = {}
    for name in query:
        given = [value for value in query.getlist(name) if value]
        field = model.model_fields.get(name)
        if len(given) > 1 and field is not None and not _holds_several(field):
            raise InvalidParameter(f"`{name}` is given {len(given)} times; once is allowed")
        if given or field is None:
            values[name] = ",".join(given)
    return _validate(model, values, "parameter")


def read_fields(model: type[P], body: Mapping[str, Any]) -> P:
    """Return the fields of a JSON object as a model. Raise InvalidParameter.

    An empty string counts as missing where any string is allowed.
    """
    fields = model.model_fields
    values = {
        name: value
        for name, value in body.items()
        if value != "" or name not in fields or not _allows_empty(fields[name])
    }
    for name, value in values.items():
        if not _is_encodable(value):
            raise InvalidParameter(f"`{name}` must be a string of characters that UTF-8 can encode")
    return _validate(model, values, "field")


def parse_json_object(raw: bytes) -> Mapping[str, Any]:
    """Return the JSON object in a body; an empty body is an empty object. Raise InvalidParameter.

    A name that occurs twice is an error, because parsers differ in which value they take.
    """
    try:
        body = _JSON.decode(raw.decode("utf-8")) if raw.strip() else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InvalidParameter("send a JSON object or an empty body")
    return body


def _validate(model: type[P], values: Mapping[str, Any], source: Source) -> P:
    try:
        if source == "parameter":
            return model.model_validate(values, context=source)
        # As JSON, because the strict rules for it are those of the document: "5" is not taken as a number.
        return model.model_validate_json(json.dumps(values), strict=True, context=source)
    except ValidationError as error:
        messages = [_message(model, item, source) for item in error.errors(include_url=False)]
        raise InvalidParameter("; ".join(dict.fromkeys(messages))) from None


def _is_encodable(value: Any) -> bool:
    """Return whether no string of a JSON value has half a character (a lone surrogate)."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _message(model: type[BaseModel], item: ErrorDetails, source: Source) -> str:
    """Return what is wrong with one value, and what is allowed instead."""
    name, field, key = "", None, ""
    for part in item["loc"]:
        if isinstance(part, str):
            model = _inner_model(field) or model
            field, key = model.model_fields.get(part), part
            name += f".{part}"
        elif source == "field":
            name += f"[{part}]"
    name = name.lstrip(".")
    if item["type"] == "extra_forbidden":
        return _unknown_name(key, list(model.model_fields), source)
    if field is not None and (choices := _choices(field.annotation)):
        hint = nearest(item["input"], choices) if isinstance(item["input"], str) else None
        suggestion = f"; did you mean `{hint}`?" if hint else ""
        return f"`{name}` must be one of {', '.join(choices)}{suggestion}"
    if item["type"] == "missing" or (item["type"] == "string_too_short" and item["ctx"]["min_length"] == 1):
        return f"`{f'?{name}=' if source == 'parameter' else name}` is missing{_described(field, ': ')}"
    return f"`{name}` {_requirement(item, field)}"


def _described(field: FieldInfo | None, separator: str) -> str:
    """Return what a field is, for the end of a message."""
    text = ((field and field.description) or "").rstrip(".")
    return f"{separator}{text[0].lower()}{text[1:]}" if text else ""


def _unknown_name(name: str, known: list[str], source: Source) -> str:
    if not known:
        return f"unknown {source} `{name[:_MAX_SHOWN]}`; this request takes no {source}s"
    advice = did_you_mean(name, known) if nearest(name, known) else f"use {', '.join(known)}"
    return f"unknown {source} `{name[:_MAX_SHOWN]}`; {advice}"


def _requirement(item: ErrorDetails, field: FieldInfo | None) -> str:
    """Return what a value must be, as a predicate."""
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if item["type"] == "string_pattern_mismatch":
        return f"must be{_described(field, ' ')}"
    limits = _limits(field)
    if "ge" in limits and "le" in limits:
        return f"must be a number from {limits['ge']} to {limits['le']}"
    if item["type"].startswith("string") and "max_length" in limits:
        return f"must be a string of at most {limits['max_length']} characters"
    if item["type"] in ("too_short", "too_long") and "max_length" in limits:
        return f"must be a list of {limits.get('min_length', 0)} to {limits['max_length']} items"
    return requirement(item) or item["msg"]


def _limits(field: FieldInfo | None) -> Mapping[str, Any]:
    """Return the constraints of a field, also those that are inside `... | None`."""
    constraints = [*field.metadata, *_metadata(field.annotation)] if field else []
    names = ("pattern", "ge", "le", "min_length", "max_length")
    return {
        name: value
        for item in constraints
        for name in names
        if (value := getattr(item, name, None)) is not None
    }


def _metadata(annotation: Any) -> list[Any]:
    """Return the metadata of an annotation."""
    own = annotation.__metadata__ if get_origin(annotation) is Annotated else ()
    inner = [item for part in get_args(annotation) for item in _metadata(part)]
    return [
        *inner,
        *(item for part in own for item in (part.metadata if isinstance(part, FieldInfo) else [part])),
    ]


def _inner_model(field: FieldInfo | None) -> type[BaseModel] | None:
    """Return the model of a field's value, or of its items."""
    types = [item for item in _parts(field.annotation if field else None) if isinstance(item, type)]
    return next((item for item in types if issubclass(item, BaseModel)), None)


def _choices(annotation: Any) -> list[str]:
    """Return the values that a field allows, if it is a choice."""
    choices: list[str] = []
    for part in _parts(annotation):
        if get_origin(part) is Literal:
            choices += get_args(part)
        elif hasattr(part, "__members__"):
            choices += map(str, part)
    return choices


def _parts(annotation: Any) -> list[Any]:
    """Return the types that an annotation is made of, without None."""
    if get_origin(annotation) in (Union, UnionType, tuple, list, Annotated):
        return [inner for argument in get_args(annotation) for inner in _parts(argument)]
    return [] if annotation in (None, type(None), Ellipsis) else [annotation]


def _allows_empty(field: FieldInfo) -> bool:
    """Return whether a field is optional and any string is allowed."""
    is_free = not {"min_length", "pattern"} & _limits(field).keys()
    return not field.is_required() and str in _parts(field.annotation) and is_free


def _holds_several(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (list, tuple)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidParameter(f"the field `{repeated[:_MAX_SHOWN]}` occurs more than once")
    return values


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_number(digits: str) -> int | float:
    """Return a number with a fraction or an exponent; `5.0` and `5e1` are whole numbers in JSON Schema."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return int(number) if number.is_integer() else number


_JSON: Final = json.JSONDecoder(
    parse_constant=_reject_constant, parse_float=_parse_number, object_pairs_hook=_unique
)
