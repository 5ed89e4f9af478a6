"""What a param accepts, in words and as YAML: for `bridge connectors show` and the reference of the actions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic.errors import PydanticUserError

from bridge.connector.params import Params

EMPTY: tuple[object, ...] = (None, "", {}, [])
"""Defaults and examples that say nothing, so that they are not printed."""
_FORMATS = {
    "date": "date",
    "date-time": "date and time",
    "duration": "duration",
    "email": "email address",
    "phone": "phone number",
}
_TYPES = {"boolean": "true or false", "integer": "whole number", "number": "number", "object": "mapping"}
_PLURALS = {
    "email address": "email addresses",
    "mapping": "mappings",
    "number": "numbers",
    "phone number": "phone numbers",
    "text": "texts",
    "whole number": "whole numbers",
}


def types_of(params: type[Params]) -> Mapping[str, str]:
    """Return the type of each param: `text`, `whole number, 0 to 10`, `text: a ticket ID`, `one of CALL, EMAIL`."""
    try:
        schema = params.model_json_schema()
    except PydanticUserError:  # a type that JSON Schema cannot express
        return dict.fromkeys(params.model_fields, "any value")
    definitions = schema.get("$defs", {})
    return {name: _with_form(field, definitions) for name, field in schema.get("properties", {}).items()}


def as_yaml(value: Any) -> str:
    """Return a default or an example on one line, as a rule spells it: `[voice]`, `{Agent: Nora}`, `false`."""
    plain: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    )
    plain = plain.removesuffix("\n...\n").strip()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and plain != value else plain


def _with_form(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    described = _describe(field, definitions)
    if "truncate" in field:
        described = f"{described}, cut to {field['truncate']:,} characters"
    return f"{described}: {field['must_be']}" if field.get("must_be") else described


def _describe(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]]
    alternatives = field.get("anyOf") or field.get("oneOf")
    if alternatives:
        described = (_describe(part, definitions) for part in alternatives if part.get("type") != "null")
        return " or ".join(dict.fromkeys(described))
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return "one of " + ", ".join(as_yaml(value) for value in values)
    if field.get("type") == "array":
        item = _describe(field.get("items", {}), definitions)
        return f"list of {_PLURALS.get(item, item)}"
    kind = _FORMATS.get(field.get("format", "")) or _TYPES.get(field.get("type", ""), "any value")
    if field.get("type") == "string" and "format" not in field:
        kind = "text"
    return ", ".join((kind, *_bounds(field)))


def _bounds(field: Mapping[str, Any]) -> Iterator[str]:
    if "maxLength" in field:
        yield f"at most {field['maxLength']:,} characters"
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        yield f"{low} to {high}"
    elif low is not None:
        yield f"at least {low}"
    elif "exclusiveMinimum" in field:
        yield f"more than {field['exclusiveMinimum']}"
    elif high is not None:
        yield f"at most {high}"
