"""/api/...: the data of the log page as JSON, in the shape that the command line prints with `--json`.

Lists are `{"items": [...], "next": ...}`, where `next` is the `before` of the next page. Errors are `{"error": ...}`
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
from bridge.store.operator_actions import Act, Verdict
from bridge.store.queries import NotFound, Page, list_deliveries, list_events, list_rejections
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

WHO: Final = "api"
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

    def rejections(request: Request, _: Body) -> Answer:
        return _page(list_rejections(database, **page_filter(request.query_params)))

    def audit(request: Request, _: Body) -> Answer:
        items, following = desk.audit(**page_filter(request.query_params))
        return 200, {"items": items, "next": following}

    def connections(_: Request, __: Body) -> Answer:
        return 200, {"items": desk.connections(), "next": None}

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
        verdict = one_of("verdict", body.get("verdict"), get_args(Verdict))
        partner_id = text_or_none("partner_id", body.get("partner_id"))
        return _act(desk.act("resolve", _ident(request), WHO, verdict=verdict, partner_id=partner_id))

    def replay(request: Request, body: Body) -> Answer:
        again = body.get("again", False)
        if not isinstance(again, bool):
            raise BadParameter("`again` must be true or false")
        done = desk.replay(_ident(request), WHO, rule=text_or_none("rule", body.get("rule")), again=again)
        return (409, {"error": done.skipped}) if done.skipped else (200, asdict(done))

    def pause(request: Request, body: Body) -> Answer:
        return 200, desk.pause(_name(request), WHO, text_or_none("why", body.get("why")) or "")

    return [
        _read("/events", events),
        _read("/events/{id}", one("event")),
        _read("/deliveries", deliveries),
        _read("/deliveries/{id}", one("delivery")),
        _read("/rejections", rejections),
        _read("/rejections/{id}", one("rejection")),
        _read("/search", find),
        _read("/connections", connections),
        _read("/rules", lambda _, __: (200, desk.rules_status())),
        _read("/counts", lambda _, __: (200, desk.counts())),
        _read("/audit", audit),
        _write(
            "/deliveries/{id}/retry", (), lambda request, _: _act(desk.act("retry", _ident(request), WHO))
        ),
        _write(
            "/deliveries/{id}/cancel", (), lambda request, _: _act(desk.act("cancel", _ident(request), WHO))
        ),
        _write("/deliveries/{id}/resolve", ("verdict", "partner_id"), resolve),
        _write("/events/{id}/replay", ("rule", "again"), replay),
        _write("/rejections/{id}/accept", (), lambda request, _: _act(desk.accept(_ident(request), WHO))),
        _write("/connections/{name}/pause", ("why",), pause),
        _write("/connections/{name}/resume", (), lambda request, _: (200, desk.resume(_name(request), WHO))),
    ]


def _ident(request: Request) -> str:
    return ident(request.path_params["id"])


def _name(request: Request) -> str:
    return ident(request.path_params["name"])


def _page(page: Page) -> Answer:
    return 200, {"items": page.items, "next": page.next}


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
