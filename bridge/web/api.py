"""/api/...: the data of the log page as JSON, in the shape that the command line prints with `--json`.

Lists are `{"items": [...], "next_cursor": ...}`, where `next` is the `before` of the next page. Errors are `{"error": ...}`
with what to do: 400 a wrong parameter, 404 an unknown id, 409 an act that is not possible now.
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

from bridge.serialization import json_text
from bridge.store.operator_actions import Act, Resolution
from bridge.store.queries import NotFound, Page, list_deliveries, list_events, list_rejected_requests
from bridge.store.search import search
from bridge.web.admin_service import Desk, Kind
from bridge.web.query_params import (
    BadParameter,
    delivery_filter,
    event_filter,
    ident,
    one_of,
    page_filter,
    text_or_none,
)

ACTOR: Final = "api"
"""Who acted, in the audit."""
MAX_BODY: Final = 64 * 1024

Body = Mapping[str, Any]
Answer = tuple[int, Mapping[str, Any]]


def api_routes(desk: Desk) -> list[BaseRoute]:
    """The routes of the API; they have to be put behind the admin's guard."""
    database = desk.database

    def events(request: Request, _: Body) -> Answer:
        return _page(list_events(database, **event_filter(request.query_params, database.clock.now())))

    def deliveries(request: Request, _: Body) -> Answer:
        return _page(list_deliveries(database, **delivery_filter(request.query_params)))

    def rejected_requests(request: Request, _: Body) -> Answer:
        return _page(list_rejected_requests(database, **page_filter(request.query_params)))

    def audit(request: Request, _: Body) -> Answer:
        items, next_cursor = desk.audit(**page_filter(request.query_params))
        return 200, {"items": items, "next_cursor": next_cursor}

    def connections(_: Request, __: Body) -> Answer:
        return 200, {"items": desk.connections(), "next_cursor": None}

    def find(request: Request, _: Body) -> Answer:
        words = text_or_none("q", request.query_params.get("q"))
        if words is None:
            raise BadParameter(
                "say what to look for: `?q=` an id, a phone number, an e-mail or a conversation"
            )
        found_events, found_deliveries = search(database, words)
        return 200, {"events": found_events.items, "deliveries": found_deliveries.items}

    def one(kind: Kind) -> Callable[[Request, Body], Answer]:
        return lambda request, _: (200, desk.show(kind, _ident(request)))

    def resolve(request: Request, body: Body) -> Answer:
        resolution = one_of("resolution", body.get("resolution"), get_args(Resolution))
        external_id = text_or_none("external_id", body.get("external_id"))
        return _act(
            desk.act("resolve", _ident(request), ACTOR, resolution=resolution, external_id=external_id)
        )

    def replay(request: Request, body: Body) -> Answer:
        force = body.get("force", False)
        if not isinstance(force, bool):
            raise BadParameter("`force` must be true or false")
        done = desk.replay(_ident(request), ACTOR, rule=text_or_none("rule", body.get("rule")), force=force)
        return (409, {"error": done.skipped}) if done.skipped else (200, asdict(done))

    def pause(request: Request, body: Body) -> Answer:
        return 200, desk.pause(_name(request), ACTOR, text_or_none("reason", body.get("reason")) or "")

    return [
        _read("/events", events),
        _read("/events/{id}", one("event")),
        _read("/deliveries", deliveries),
        _read("/deliveries/{id}", one("delivery")),
        _read("/rejected-requests", rejected_requests),
        _read("/rejected-requests/{id}", one("rejected_request")),
        _read("/search", find),
        _read("/connections", connections),
        _read("/rules", lambda _, __: (200, desk.rules_status())),
        _read("/stats", lambda _, __: (200, desk.counts())),
        _read("/audit", audit),
        _write(
            "/deliveries/{id}/retry", (), lambda request, _: _act(desk.act("retry", _ident(request), ACTOR))
        ),
        _write(
            "/deliveries/{id}/cancel", (), lambda request, _: _act(desk.act("cancel", _ident(request), ACTOR))
        ),
        _write("/deliveries/{id}/resolve", ("resolution", "external_id"), resolve),
        _write("/events/{id}/replay", ("rule", "force"), replay),
        _write(
            "/rejected-requests/{id}/accept", (), lambda request, _: _act(desk.accept(_ident(request), ACTOR))
        ),
        _write("/connections/{name}/pause", ("reason",), pause),
        _write(
            "/connections/{name}/resume", (), lambda request, _: (200, desk.resume(_name(request), ACTOR))
        ),
    ]


def _ident(request: Request) -> str:
    return ident(request.path_params["id"])


def _name(request: Request) -> str:
    return ident(request.path_params["name"])


def _page(page: Page) -> Answer:
    return 200, {"items": page.items, "next_cursor": page.next_cursor}


def _act(act: Act) -> Answer:
    return (200, asdict(act)) if act.done else (409, {"error": act.text, "id": act.id})


def _read(path: str, work: Callable[[Request, Body], Answer]) -> Route:
    async def answer(request: Request) -> Response:
        return await _answer(request, {}, work)

    return Route(f"/api{path}", answer, methods=["GET"])


def _write(path: str, fields: tuple[str, ...], work: Callable[[Request, Body], Answer]) -> Route:
    async def answer(request: Request) -> Response:
        try:
            body = _body(await request.body(), fields)
        except BadParameter as error:
            return _json((400, {"error": str(error)}))
        return await _answer(request, body, work)

    return Route(f"/api{path}", answer, methods=["POST"], max_body_size=MAX_BODY)


def _body(raw: bytes, fields: tuple[str, ...]) -> Body:
    """The JSON object that came, or an empty one when nothing came."""
    try:
        found = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadParameter("send a JSON object, or nothing")
    for name in found:
        if name not in fields:
            known = f"there are {', '.join(fields)}" if fields else "this takes none"
            raise BadParameter(f"there is no field `{name[:40]}`; {known}")
    return found


async def _answer(request: Request, body: Body, work: Callable[[Request, Body], Answer]) -> Response:
    """Do the work in a thread; what is wrong with the request is said as JSON."""
    try:
        return _json(await asyncio.to_thread(work, request, body))
    except BadParameter as error:
        return _json((400, {"error": str(error)}))
    except NotFound as error:
        return _json((404, {"error": str(error)}))


def _json(answer: Answer) -> Response:
    status, record = answer
    return Response(json_text(record, indent=None), status, media_type="application/json")
