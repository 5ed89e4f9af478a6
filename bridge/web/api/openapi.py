"""OpenAPI: builds the document of the API from the declarations of its endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from bridge import __version__
from bridge.lifecycle import (
    AttemptOutcome,
    DeliveryState,
    DescribedEnum,
    FailureReason,
    PauseCause,
    SuppressReason,
)
from bridge.web.access import Access
from bridge.web.api import ALL
from bridge.web.api.endpoint import Endpoint, NoParameters
from bridge.web.api.records import Error

_REF: Final = "#/components/schemas/{model}"
_ENUMS: Final[tuple[type[DescribedEnum], ...]] = (
    DeliveryState, SuppressReason, FailureReason, AttemptOutcome, PauseCause,
)  # fmt: skip
ERRORS: Final[Mapping[int, str]] = {
    400: "A parameter or field is invalid.",
    401: "The token is missing or wrong.",
    403: "The token does not open this, or the request came from another site.",
    404: "Nothing has this ID or name.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: "Too many wrong tokens.",
    503: "The database is unavailable; try again later.",
}
"""Status -> when a request to any endpoint that can have it gets it."""
_DESCRIPTION: Final = """\
Everything that the dashboard shows and does. The command line prints the same records with `--json`.

- A list is `{"items": [...], "next_cursor": null}`. Pass `next_cursor` as `cursor` to get the next page.
- Times are in UTC, in the format of RFC 3339.
- An error is `{"error": "..."}`, with a message that says what to do.
- New fields may be added to responses at any time: ignore those that you do not know.
"""
_SECURITY: Final = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "BRIDGE_ADMIN_TOKEN, or BRIDGE_READ_TOKEN for requests that change nothing.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "bridge_session",
        "description": "The session of a browser that logged in to the dashboard; over HTTPS, its name is "
        "`__Host-bridge_session`. A request that changes something must come from the same site: the header "
        "`Sec-Fetch-Site` or `Origin` is checked.",
    },
}


@cache
def openapi_document() -> Mapping[str, Any]:
    """Return the OpenAPI 3.1 document of the API."""
    endpoints = [endpoint for resource in ALL for endpoint in resource.endpoints]
    schemas, components = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(endpoint.full_path, {})
        operations[endpoint.method.lower()] = _operation(endpoint, schemas, components)
    for name in {endpoint.parameters.__name__ for endpoint in endpoints if endpoint.has_query}:
        if _REF.format(model=name) not in str(paths):
            components.pop(name, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Bridge", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "../"}],
        "tags": [{"name": resource.tag, "description": resource.description} for resource in ALL],
        "security": [{name: []} for name in _SECURITY],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


def _schemas(endpoints: Sequence[Endpoint]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return the schema of each model, by its `repr`, and the components that they refer to."""
    wanted: dict[str, tuple[Any, JsonSchemaMode]] = {repr(Error): (Error, "serialization")}
    for endpoint in endpoints:
        wanted[repr(endpoint.response)] = (endpoint.response, "serialization")
        wanted[repr(endpoint.parameters)] = (endpoint.parameters, "validation")
    adapters = [(name, mode, TypeAdapter(model)) for name, (model, mode) in wanted.items()]
    by_name, definitions = TypeAdapter.json_schemas(adapters, ref_template=_REF)
    by_name, components = _renamed(by_name), _renamed(definitions["$defs"])
    for enum in _ENUMS:
        if component := components.get(enum.__name__):
            meanings = "\n".join(f"- `{word}`: {word.description}" for word in enum)
            component["description"] = f"{component['description']}\n\n{meanings}"
    return {name: schema for (name, _), schema in by_name.items()}, components


def _renamed(value: Any) -> Any:
    """Return schemas with the names of their components as clients see them, such as `EventSummaryPage`."""
    if isinstance(value, dict):
        return {_component_name(key): _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return _component_name(value)


def _component_name(value: Any) -> Any:
    return re.sub(r"PageOf_(\w+)_", r"\1Page", value) if isinstance(value, str) else value


def _operation(
    endpoint: Endpoint, schemas: Mapping[str, Any], components: dict[str, Any]
) -> Mapping[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "tags": [endpoint.tag],
        "summary": endpoint.summary.rstrip("."),
        "description": _description(endpoint),
        "parameters": [*_path_parameters(endpoint)],
        "responses": {"200": _response("Success.", schemas[repr(endpoint.response)])},
    }
    schema = schemas[repr(endpoint.parameters)]
    if endpoint.has_query:
        operation["parameters"] += _query_parameters(_resolved(schema, components))
    elif endpoint.parameters is not NoParameters:
        is_required = bool(_resolved(schema, components).get("required"))
        operation["requestBody"] = {
            "required": is_required,
            "content": {"application/json": {"schema": schema}},
        }
    for status, text in _errors(endpoint).items():
        operation["responses"][str(status)] = _response(text, schemas[repr(Error)])
    return operation


def _description(endpoint: Endpoint) -> str:
    needed = (
        "a token that may change something" if endpoint.access is Access.ADMIN else "any token, or a session"
    )
    return "\n\n".join(filter(None, [endpoint.summary, endpoint.description, f"Needs {needed}."]))


def _errors(endpoint: Endpoint) -> Mapping[int, str]:
    """Return the errors that a request to the endpoint can have."""
    errors = {**ERRORS, **endpoint.errors}
    if "{" not in endpoint.path and 404 not in endpoint.errors:
        del errors[404]
    if endpoint.has_query:
        del errors[413], errors[415]
    return dict(sorted(errors.items()))


def _response(text: str, schema: Any) -> Mapping[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _path_parameters(endpoint: Endpoint) -> Iterator[Mapping[str, Any]]:
    for part in endpoint.full_path.split("/"):
        if part.startswith("{"):
            name = part.strip("{}")
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameters(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a parameter per field of a model. A query string has no null, so a missing one is just optional."""
    for name, field in schema.get("properties", {}).items():
        value = {key: item for key, item in field.items() if key not in ("title", "description", "examples")}
        choices = [item for item in value.pop("anyOf", []) if item != {"type": "null"}]
        if len(choices) == 1:
            value = choices[0] | {key: item for key, item in value.items() if item is not None}
        elif choices:
            value["anyOf"] = choices
        if value.get("default", ...) in (None, []):
            del value["default"]
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "allowEmptyValue": name not in schema.get("required", ()),
            "description": field.get("description", ""),
            "schema": value,
            **({"examples": {"example": {"value": field["examples"][0]}}} if "examples" in field else {}),
        }


def _resolved(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return components[reference.rpartition("/")[2]] if reference else schema
