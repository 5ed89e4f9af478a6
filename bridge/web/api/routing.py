"""Routing: turns the declared endpoints into routes, which validate, call the handler and respond with JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from bridge.serialization import to_json
from bridge.spelling import nearest
from bridge.store.queries import NotFound
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.api.endpoint import PREFIX, ApiError, Call, Endpoint, NoParameters
from bridge.web.query_params import check_id
from bridge.web.validation import InvalidParameter, Parameters, parse_json_object, read_fields, read_query

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
_MEDIA_TYPES: Final = ("", "application/json", "application/x-www-form-urlencoded")
"""Accepted types of a body, which is JSON in any case: `curl --data` names the last one unless told otherwise."""


def build_routes(endpoints: Sequence[Endpoint], service: AdminService) -> list[Route]:
    """Return a route per path, and one for the paths that do not exist. They do not authenticate."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    known = [endpoint.full_path for endpoint in endpoints]
    return [
        *(ApiRoute(path, methods, service) for path, methods in by_path.items()),
        Route(f"{PREFIX}{{path:path}}", partial(_unknown_path, known), methods=_METHODS),
    ]


class ApiRoute(Route):
    """The endpoints of one path. It also responds to the methods that the path does not have, with 405."""

    def __init__(self, path: str, endpoints: Mapping[str, Endpoint], service: AdminService) -> None:
        async def respond(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            return await _respond(endpoints[method], request, service)

        super().__init__(PREFIX + path, respond, methods=list(endpoints))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every method, so that no other route can take the path for unknown."""
        match, child_scope = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        allowed = sorted(self.methods or ())
        if scope["method"] not in allowed:
            message = f"{scope['path']} does not support {scope['method'][:20]}; use {' or '.join(allowed)}"
            raise HTTPException(405, message, {"Allow": ", ".join(allowed)})
        await super().handle(scope, receive, send)


async def _unknown_path(known: Sequence[str], request: Request) -> Response:
    path = request.url.path
    suggestion = nearest(path.rstrip("/"), known)
    advice = f"did you mean {suggestion}?" if suggestion else f"see {PREFIX}/openapi.json"
    return _json(404, {"error": f"there is no such path; {advice}"})


async def _respond(endpoint: Endpoint, request: Request, service: AdminService) -> Response:
    """Run the handler and return its result as JSON, or the error of an invalid request."""
    try:
        parameters = await _read_parameters(endpoint, request)
        path = {name: check_id(value) for name, value in request.path_params.items()}
        call = Call(service, actor_of(request), path)
        arguments = () if endpoint.parameters is NoParameters else (parameters,)
        result = await asyncio.to_thread(endpoint.handler, call, *arguments)
        return _json(200, _record(result))
    except InvalidParameter as error:
        return _json(400, {"error": str(error)})
    except NotFound as error:
        return _json(404, {"error": str(error)})
    except ApiError as error:
        return _json(error.status, {"error": str(error), **error.details})


async def _read_parameters(endpoint: Endpoint, request: Request) -> Parameters:
    """Return the query parameters or the body as the endpoint's model. Raise InvalidParameter or ApiError."""
    if endpoint.has_query:
        return read_query(endpoint.parameters, request.query_params)
    read_query(NoParameters, request.query_params)
    raw = await _read_body(request, endpoint.max_body)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if raw and media_type not in _MEDIA_TYPES:
        raise ApiError(415, "send JSON, with `Content-Type: application/json`")
    return read_fields(endpoint.parameters, parse_json_object(raw))


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    length = request.headers.get("content-length", "0")
    is_too_long = length.isdecimal() and int(length) > limit
    if not is_too_long:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                is_too_long = True
                break
    if is_too_long:
        raise ApiError(413, f"the body is larger than {limit:,} bytes: send less in one request")
    return bytes(body)


def _record(result: Any) -> Mapping[str, Any]:
    """Return the result of a handler as plain data."""
    if isinstance(result, Mapping):
        return result
    record: Mapping[str, Any] = result.to_json() if hasattr(result, "to_json") else vars(result)
    return record


def _json(status: int, record: Mapping[str, Any]) -> Response:
    return Response(to_json(record, indent=None), status, media_type="application/json")
