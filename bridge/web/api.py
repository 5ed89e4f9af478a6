"""JSON API: /api/... returns the data of the dashboard in the shape that the command line prints with `--json`.

A list is `{"items": [...], "next_cursor": ...}`; pass `next_cursor` as `cursor` to get the next page. An error is
`{"error": ...}` and says what to do: 400 invalid parameter, 404 unknown ID, 409 action not possible in this state.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bridge.serialization import to_json
from bridge.store.operator_actions import ActionResult, Resolution
from bridge.store.queries import NotFound, Page, list_deliveries, list_events, list_rejected_requests
from bridge.store.search import search
from bridge.web.admin_service import AdminService, RecordType
from bridge.web.query_params import (
    InvalidParameter,
    check_id,
    delivery_filter,
    event_filter,
    one_of,
    page_filter,
    string_or_none,
)

ACTOR: Final = "api"
"""Actor of audit entries for requests to the API."""
MAX_BODY: Final = 64 * 1024

Body = Mapping[str, Any]
ApiResponse = tuple[int, Mapping[str, Any]]
"""HTTP status and JSON body."""
Handler = Callable[[Request, Body], ApiResponse]


def api_routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of the API. They do not authenticate: protect them with `AdminAuth.require_admin`."""
    database = service.database

    def events(request: Request, _: Body) -> ApiResponse:
        return _page_response(
            list_events(database, **event_filter(request.query_params, database.clock.now()))
        )

    def deliveries(request: Request, _: Body) -> ApiResponse:
        return _page_response(list_deliveries(database, **delivery_filter(request.query_params)))

    def rejected_requests(request: Request, _: Body) -> ApiResponse:
        return _page_response(list_rejected_requests(database, **page_filter(request.query_params)))

    def audit(request: Request, _: Body) -> ApiResponse:
        items, next_cursor = service.audit(**page_filter(request.query_params))
        return 200, {"items": items, "next_cursor": next_cursor}

    def connections(_: Request, __: Body) -> ApiResponse:
        return 200, {"items": service.connections(), "next_cursor": None}

    def find(request: Request, _: Body) -> ApiResponse:
        query = string_or_none("q", request.query_params.get("q"))
        if query is None:
            raise InvalidParameter(
                "missing `q`: pass an ID, a phone number, an email address or a conversation ID as `?q=`"
            )
        event_page, delivery_page = search(database, query)
        return 200, {"events": event_page.items, "deliveries": delivery_page.items}

    def show(record_type: RecordType) -> Handler:
        return lambda request, _: (200, service.show(record_type, _id(request)))

    def change(action: str) -> Handler:
        return lambda request, _: _action_response(service.change_delivery(action, _id(request), ACTOR))

    def resolve(request: Request, body: Body) -> ApiResponse:
        resolution = one_of("resolution", body.get("resolution"), get_args(Resolution))
        external_id = string_or_none("external_id", body.get("external_id"))
        return _action_response(
            service.change_delivery(
                "resolve", _id(request), ACTOR, resolution=resolution, external_id=external_id
            )
        )

    def replay(request: Request, body: Body) -> ApiResponse:
        force = body.get("force", False)
        if not isinstance(force, bool):
            raise InvalidParameter("`force` must be true or false")
        result = service.replay(
            _id(request), ACTOR, rule=string_or_none("rule", body.get("rule")), force=force
        )
        return (409, {"error": result.skipped}) if result.skipped else (200, asdict(result))

    def accept(request: Request, _: Body) -> ApiResponse:
        return _action_response(service.accept(_id(request), ACTOR))

    def pause(request: Request, body: Body) -> ApiResponse:
        return 200, service.pause(_name(request), ACTOR, string_or_none("reason", body.get("reason")) or "")

    def resume(request: Request, _: Body) -> ApiResponse:
        return 200, service.resume(_name(request), ACTOR)

    return [
        _get("/events", events),
        _get("/events/{id}", show("event")),
        _get("/deliveries", deliveries),
        _get("/deliveries/{id}", show("delivery")),
        _get("/rejected-requests", rejected_requests),
        _get("/rejected-requests/{id}", show("rejected_request")),
        _get("/search", find),
        _get("/connections", connections),
        _get("/rules", lambda _, __: (200, service.rules_status())),
        _get("/stats", lambda _, __: (200, service.stats())),
        _get("/audit", audit),
        _post("/deliveries/{id}/retry", (), change("retry")),
        _post("/deliveries/{id}/cancel", (), change("cancel")),
        _post("/deliveries/{id}/resolve", ("resolution", "external_id"), resolve),
        _post("/events/{id}/replay", ("rule", "force"), replay),
        _post("/rejected-requests/{id}/accept", (), accept),
        _post("/connections/{name}/pause", ("reason",), pause),
        _post("/connections/{name}/resume", (), resume),
    ]


def _id(request: Request) -> str:
    return check_id(request.path_params["id"])


def _name(request: Request) -> str:
    return check_id(request.path_params["name"])


def _page_response(page: Page) -> ApiResponse:
    return 200, {"items": page.items, "next_cursor": page.next_cursor}


def _action_response(result: ActionResult) -> ApiResponse:
    return (200, asdict(result)) if result.done else (409, {"error": result.text, "id": result.id})


def _get(path: str, handler: Handler) -> Route:
    async def endpoint(request: Request) -> Response:
        return await _respond(request, {}, handler)

    return Route(f"/api{path}", endpoint, methods=["GET"])


def _post(path: str, fields: tuple[str, ...], handler: Handler) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            body = _parse_body(await request.body(), fields)
        except InvalidParameter as error:
            return _json((400, {"error": str(error)}))
        return await _respond(request, body, handler)

    return Route(f"/api{path}", endpoint, methods=["POST"], max_body_size=MAX_BODY)


def _parse_body(raw: bytes, fields: tuple[str, ...]) -> Body:
    """Return the JSON object in the body; an empty body is an empty object. Raise InvalidParameter."""
    try:
        body = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InvalidParameter("send a JSON object or an empty body")
    for name in body:
        if name not in fields:
            advice = f"use {', '.join(fields)}" if fields else "this request takes no fields"
            raise InvalidParameter(f"unknown field `{name[:40]}`; {advice}")
    return body


async def _respond(request: Request, body: Body, handler: Handler) -> Response:
    """Run the handler in a thread and return its result, or the error of an invalid request, as JSON."""
    try:
        return _json(await asyncio.to_thread(handler, request, body))
    except InvalidParameter as error:
        return _json((400, {"error": str(error)}))
    except NotFound as error:
        return _json((404, {"error": str(error)}))


def _json(response: ApiResponse) -> Response:
    status, record = response
    return Response(to_json(record, indent=None), status, media_type="application/json")
