"""Compares responses of the API with its OpenAPI document: their status, content type and every field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator, ValidationError

from bridge.web.api import all_endpoints
from bridge.web.api.endpoint import Endpoint
from bridge.web.api.openapi import openapi_document


def check_response(response: httpx.Response) -> None:
    """Fail unless a response of an endpoint is as its declaration says; responses of other paths pass."""
    endpoint = endpoint_of(response.request.method, response.request.url.path)
    if endpoint is None:
        return
    response.read()
    name = f"{endpoint.method} {endpoint.full_path}"
    status = str(response.status_code)
    operation = openapi_document()["paths"][endpoint.full_path][endpoint.method.lower()]
    assert status in operation["responses"], f"{name} has no documented status {status}: {response.text}"
    assert response.headers["content-type"] == "application/json"
    problem = next(_validator(endpoint.method, endpoint.full_path, status).iter_errors(response.json()), None)
    assert problem is None, f"{name}: {_describe(problem)} in {response.text[:2000]}"


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request; a path without variables comes first."""
    found = [item for item in all_endpoints() if item.method == method and _pattern(item).fullmatch(path)]
    return found[0] if found else None


@cache
def _pattern_of(path: str) -> re.Pattern[str]:
    with_rest = re.sub(r"\{\w+:path\}", ".+", path)
    return re.compile("/api" + re.sub(r"\{\w+\}", "[^/]+", with_rest))


def _pattern(endpoint: Endpoint) -> re.Pattern[str]:
    return _pattern_of(endpoint.path)


@cache
def _validator(method: str, path: str, status: str) -> Draft202012Validator:
    document = openapi_document()
    content = document["paths"][path][method.lower()]["responses"][status]["content"]
    schema = {**content["application/json"]["schema"], "components": document["components"]}
    return Draft202012Validator(_closed(schema), validate_formats=True)


def _closed(schema: Any) -> Any:
    """Return a schema whose objects have no other fields than the declared ones."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _describe(problem: ValidationError | None) -> str:
    return f"{'.'.join(map(str, problem.instance_path))}: {problem.message[:500]}" if problem else ""
