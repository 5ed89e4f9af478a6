"""JSON API: /api/... returns the data of the dashboard in the shape that the command line prints with `--json`.

A list is `{"items": [...], "next_cursor": ...}`; pass `next_cursor` as `cursor` to get the next page. An error is
`{"error": ...}` and says what to do: 400 invalid parameter, 404 unknown ID, 409 action not possible in this state.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.serialization import to_json
from bridge.store.operator_actions import ActionResult, Resolution
from bridge.store.opt_out_list import list_opt_outs
from bridge.store.pauses import ConnectionStatus
from bridge.store.possible_duplicates import dismiss_possible_duplicate, list_possible_duplicates
from bridge.store.queries import NotFound, Page, list_deliveries, list_events, list_rejected_requests
from bridge.store.search import search
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService, RecordType
from bridge.web.opt_out_requests import FIELDS as OPT_OUT_FIELDS
from bridge.web.opt_out_requests import MAX_ITEMS, change_opt_outs
from bridge.web.query_params import (
    DELIVERY_PARAMS,
    DUPLICATE_PARAMS,
    EVENT_PARAMS,
    OPT_OUT_PARAMS,
    PAGE_PARAMS,
    REPORT_FIELDS,
    InvalidParameter,
    check_id,
    delivery_filter,
    duplicate_filter,
    event_filter,
    one_of,
    opt_out_filter,
    page_filter,
    report_filter,
    string_or_none,
)

MAX_BODY: Final = 64 * 1024

Body = Mapping[str, Any]
ApiResponse = tuple[int, Mapping[str, Any]]
"""HTTP status and JSON body."""
Handler = Callable[[Request, Body], ApiResponse]
Endpoint = Callable[[Request], Awaitable[Response]]


def api_routes(service: AdminService) -> list[ApiRoute]:
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
        return _statuses_response(service.connections())

    def find(request: Request, _: Body) -> ApiResponse:
        query = string_or_none("q", request.query_params.get("q"))
        if query is None:
            raise InvalidParameter(
                "missing `q`: pass an ID, a phone number, an email address or a conversation ID as `?q=`"
            )
        event_page, delivery_page = search(database, query)
        return 200, {"events": event_page.items, "deliveries": delivery_page.items}

    def why(_: Request, body: Body) -> ApiResponse:
        subject = string_or_none("contact", body.get("contact"))
        if subject is None:
            raise InvalidParameter("missing `contact`: a phone number, an email address or a conversation ID")
        report = service.report_contact(subject, **report_filter(body, database.clock.now()))
        return 200, report.to_json()

    def show(record_type: RecordType) -> Handler:
        return lambda request, _: (200, service.show(record_type, _id(request)))

    def change(action: str) -> Handler:
        return lambda request, _: _action_response(
            service.change_delivery(action, _id(request), actor_of(request))
        )

    def resolve(request: Request, body: Body) -> ApiResponse:
        resolution = one_of("resolution", body.get("resolution"), get_args(Resolution))
        external_id = string_or_none("external_id", body.get("external_id"))
        return _action_response(
            service.change_delivery(
                "resolve", _id(request), actor_of(request), resolution=resolution, external_id=external_id
            )
        )

    def replay(request: Request, body: Body) -> ApiResponse:
        force = body.get("force", False)
        if not isinstance(force, bool):
            raise InvalidParameter("`force` must be true or false")
        result = service.replay(
            _id(request), actor_of(request), rule=string_or_none("rule", body.get("rule")), force=force
        )
        return (409, {"error": result.skipped}) if result.skipped else (200, asdict(result))

    def accept(request: Request, _: Body) -> ApiResponse:
        return _action_response(service.accept(_id(request), actor_of(request)))

    def pause(request: Request, body: Body) -> ApiResponse:
        reason = string_or_none("reason", body.get("reason")) or ""
        return 200, service.pause(_name(request), actor_of(request), reason).to_json()

    def resume(request: Request, _: Body) -> ApiResponse:
        return 200, service.resume(_name(request), actor_of(request)).to_json()

    def pause_all(request: Request, body: Body) -> ApiResponse:
        reason = string_or_none("reason", body.get("reason")) or ""
        return _statuses_response(service.pause_all(actor_of(request), reason))

    def resume_all(request: Request, _: Body) -> ApiResponse:
        return _statuses_response(service.resume_all(actor_of(request)))

    def cancel_rule(request: Request, body: Body) -> ApiResponse:
        rerender = body.get("rerender", False)
        if not isinstance(rerender, bool):
            raise InvalidParameter("`rerender` must be true or false")
        name = _name(request)
        if rerender:
            return 200, service.rerender_rule(name, actor_of(request)).to_json()
        return 200, asdict(service.cancel_rule(name, actor_of(request)))

    def duplicates(request: Request, _: Body) -> ApiResponse:
        return _page_response(list_possible_duplicates(database, **duplicate_filter(request.query_params)))

    def dismiss(request: Request, _: Body) -> ApiResponse:
        dismiss_possible_duplicate(database, actor_of(request), _id(request))
        return 200, {"id": _id(request), "dismissed": True}

    def opt_outs(request: Request, _: Body) -> ApiResponse:
        return _page_response(list_opt_outs(database, **opt_out_filter(request.query_params)))

    def opt_out(request: Request, body: Body) -> ApiResponse:
        return change_opt_outs(database, body, actor_of(request), opted_out=True)

    def remove_opt_out(request: Request, body: Body) -> ApiResponse:
        return change_opt_outs(database, body, actor_of(request), opted_out=False)

    return [
        _get("/events", events, "List events, newest first.", EVENT_PARAMS),
        _get("/events/{id}", show("event"), "Get an event with its trace, deliveries and audit entries."),
        _get("/deliveries", deliveries, "List deliveries, newest first.", DELIVERY_PARAMS),
        _get("/deliveries/{id}", show("delivery"), "Get a delivery with its attempts and audit entries."),
        _get(
            "/rejected-requests",
            rejected_requests,
            "List rejected webhook requests, newest first.",
            PAGE_PARAMS,
        ),
        _get("/rejected-requests/{id}", show("rejected_request"), "Get a rejected request with its body."),
        _get("/search", find, "Find events and deliveries by ID, phone, email or conversation.", ("q",)),
        _post("/why", why, "Say why a person got a message or did not, for every event.", REPORT_FIELDS),
        _get("/connections", connections, "List connections with their pauses."),
        _get(
            "/rules",
            lambda _, __: (200, service.rules_status()),
            "Get the active rules and their diagnostics.",
        ),
        _get(
            "/stats", lambda _, __: (200, service.stats()), "Count deliveries by state, and unrouted events."
        ),
        _get(
            "/opt-outs",
            opt_outs,
            "List opt-outs and undeliverable addresses, newest first.",
            OPT_OUT_PARAMS,
        ),
        _get(
            "/contacts/duplicates",
            duplicates,
            "List pairs of CRM records that may be the same person, newest first.",
            DUPLICATE_PARAMS,
        ),
        _get("/audit", audit, "List operator actions, newest first.", PAGE_PARAMS),
        _post("/deliveries/{id}/retry", change("retry"), "Retry a failed or waiting delivery now."),
        _post("/deliveries/{id}/cancel", change("cancel"), "Cancel a delivery that has not been sent."),
        _post(
            "/deliveries/{id}/resolve",
            resolve,
            "Resolve a delivery that needs review.",
            ("resolution", "external_id"),
        ),
        _post(
            "/events/{id}/replay", replay, "Route an event again with the active rules.", ("rule", "force")
        ),
        _post("/rejected-requests/{id}/accept", accept, "Accept a rejected request as an event."),
        _post("/connections/{name}/pause", pause, "Pause a connection.", ("reason",)),
        _post("/connections/{name}/resume", resume, "Resume a connection."),
        _post("/pause", pause_all, "Pause all connections, also later ones; alerts are sent.", ("reason",)),
        _post("/resume", resume_all, "End the pause of all connections."),
        _post(
            "/rules/{name:path}/cancel",
            cancel_rule,
            "Cancel the waiting deliveries of a rule, or apply its active version to them.",
            ("rerender",),
        ),
        _post("/contacts/duplicates/{id}/dismiss", dismiss, "Remove a pair from the possible duplicates."),
        _post("/opt-outs", opt_out, f"Opt out one address, or up to {MAX_ITEMS} in `items`.", OPT_OUT_FIELDS),
        _change(
            "DELETE",
            "/opt-outs",
            remove_opt_out,
            "Remove the opt-out of one address or several, or clear an undeliverable one.",
            OPT_OUT_FIELDS,
        ),
    ]


def _id(request: Request) -> str:
    return check_id(request.path_params["id"])


def _name(request: Request) -> str:
    return check_id(request.path_params["name"])


def _statuses_response(statuses: Sequence[ConnectionStatus]) -> ApiResponse:
    return 200, {"items": [status.to_json() for status in statuses], "next_cursor": None}


def _page_response(page: Page) -> ApiResponse:
    return 200, {"items": page.items, "next_cursor": page.next_cursor}


def _action_response(result: ActionResult) -> ApiResponse:
    return (200, asdict(result)) if result.done else (409, {"error": result.text, "id": result.id})


class ApiRoute(Route):
    """Route with the description that the reference page shows."""

    def __init__(
        self, method: str, path: str, endpoint: Endpoint, summary: str, params: Sequence[str], **options: Any
    ) -> None:
        super().__init__(f"/api{path}", endpoint, methods=[method], **options)
        self.method = method
        self.summary = summary
        self.params = params
        """Query parameters of a GET, or JSON fields of a POST or DELETE."""


def _get(path: str, handler: Handler, summary: str, params: Sequence[str] = ()) -> ApiRoute:
    async def endpoint(request: Request) -> Response:
        return await _respond(request, {}, handler)

    return ApiRoute("GET", path, endpoint, summary, params)


def _post(path: str, handler: Handler, summary: str, fields: Sequence[str] = ()) -> ApiRoute:
    return _change("POST", path, handler, summary, fields)


def _change(method: str, path: str, handler: Handler, summary: str, fields: Sequence[str]) -> ApiRoute:
    async def endpoint(request: Request) -> Response:
        try:
            body = _parse_body(await request.body(), fields)
        except InvalidParameter as error:
            return _json((400, {"error": str(error)}))
        return await _respond(request, body, handler)

    return ApiRoute(method, path, endpoint, summary, fields, max_body_size=MAX_BODY)


def _parse_body(raw: bytes, fields: Sequence[str]) -> Body:
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
