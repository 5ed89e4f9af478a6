"""The log page: what came in, what became of it, why, and what waits for a person.

Plain pages that work without scripts, on a phone and in the dark. Acts are forms: done, they lead back to what they
changed; not possible, the page comes again and says why.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, get_args

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from bridge.errors import BridgeError, StoreUnavailable
from bridge.events import EVENT_NAMES, Event
from bridge.store.operator_actions import Act, Resolution
from bridge.store.queries import STATES, NotFound, list_deliveries, list_events, list_rejected_requests
from bridge.store.search import search
from bridge.store.timeline import timeline
from bridge.telemetry import log
from bridge.web.admin_service import Desk
from bridge.web.html import html, root_of
from bridge.web.query_params import (
    BadParameter,
    delivery_filter,
    event_filter,
    ident,
    one_of,
    page_filter,
    text_or_none,
)

ACTOR: Final = "log page"
"""Who acted, in the audit."""
MAX_BODY: Final = 64 * 1024
_LATEST_EVENTS: Final = 8
_REVIEWS: Final = 50

Form = Mapping[str, str]


def page_routes(desk: Desk) -> list[BaseRoute]:
    """The pages and their forms; they have to be put behind the admin's guard."""
    pages = Pages(desk)
    return [
        _page("/", pages.log),
        _page("/events", pages.events),
        _page("/events/{id}", pages.event),
        _page("/deliveries/{id}", pages.delivery),
        _page("/search", pages.search),
        _page("/connections", pages.connections),
        _page("/rules", pages.rules),
        _page("/rejected", pages.rejected_requests),
        _page("/rejected/{id}", pages.rejected_request),
        _page("/audit", pages.audit),
        _form("/deliveries/{id}/retry", pages.act("retry")),
        _form("/deliveries/{id}/cancel", pages.act("cancel")),
        _form("/deliveries/{id}/resolve", pages.act("resolve")),
        _form("/events/{id}/replay", pages.replay),
        _form("/rejected/{id}/accept", pages.accept),
        _form("/connections/{name}/pause", pages.pause),
        _form("/connections/{name}/resume", pages.resume),
    ]


class Pages:
    """Every page, rendered; everything here blocks, so it runs in a thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._database = desk.database

    def _html(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page with what stands on all of them: what is paused, and whether the rules file is the one that runs."""
        return html(
            request,
            template,
            status=status,
            here=request.url.path.split("/")[1].replace("deliveries", ""),
            now=self._database.clock.now(),
            paused=[found for found in self._desk.connections() if found["paused"]],
            trouble=self._desk.rules.trouble,
            **values,
        )

    # What there is to see

    def log(self, request: Request) -> Response:
        """Deliveries, the newest first; before them, unless somebody filters, what waits for a person."""
        wanted = delivery_filter(request.query_params)
        chosen = {name: request.query_params.get(name, "") for name in ("connection", "rule", "event")}
        is_front = not any(request.query_params.values())
        reviews = (
            list_deliveries(self._database, states=["needs_review"], limit=_REVIEWS) if is_front else None
        )
        events = list_events(self._database, limit=_LATEST_EVENTS) if is_front else None
        return self._html(
            request,
            "deliveries.html",
            reviews=reviews.items if reviews else [],
            latest=events.items if events else None,
            page=list_deliveries(self._database, **wanted),
            counts=self._desk.counts(),
            states=STATES,
            state=wanted["states"],
            chosen=chosen,
            older=_kept(request.query_params),
            others=_kept(request.query_params, ("cursor", "state")),
            connections=[found["name"] for found in self._desk.connections()],
            rules=[rule.name for rule in self._desk.rules.current.rules],
        )

    def events(self, request: Request) -> Response:
        """Events, the newest first."""
        wanted = event_filter(request.query_params, self._database.clock.now())
        return self._html(
            request,
            "events.html",
            page=list_events(self._database, **wanted),
            names=EVENT_NAMES,
            event_type=wanted["event_type"] or "",
            since=request.query_params.get("since", ""),
            older=_kept(request.query_params),
        )

    def event(self, request: Request, problem: str = "") -> Response:
        """One event: what it says, why each rule fired or not, and what came of it."""
        event = self._desk.show("event", _ident(request))
        traces = event["trace"] or []
        return self._html(
            request,
            "event.html",
            status=409 if problem else 200,
            problem=problem,
            event=event,
            body=_indented(event["body"]),
            contact=Event(event["body"] or {}, event["dedupe_key"], event["received_at"]).contact,
            traces=[trace for trace in traces if not _for_other_events(trace)],
            others=[trace for trace in traces if _for_other_events(trace)],
            rules=[rule.name for rule in self._desk.rules.current.rules],
        )

    def delivery(self, request: Request, problem: str = "") -> Response:
        """One delivery: what it does, every attempt, and what can be done."""
        delivery = self._desk.show("delivery", _ident(request))
        return self._html(
            request,
            "delivery.html",
            status=409 if problem else 200,
            problem=problem,
            delivery=delivery,
            story=timeline(delivery),
            params=_indented(delivery["params"]),
        )

    def search(self, request: Request) -> Response:
        """What is stored about a person or a conversation; a single hit is shown at once."""
        words = text_or_none("q", request.query_params.get("q")) or ""
        events, deliveries = search(self._database, words) if words.strip() else (None, None)
        exact = words.strip()
        for path, page in (("events", events), ("deliveries", deliveries)):
            if page is not None and any(item["id"] == exact for item in page.items):
                return RedirectResponse(f"{root_of(request)}{path}/{exact}", 303)
        return self._html(
            request,
            "search.html",
            words=words,
            events_found=events.items if events else [],
            deliveries_found=deliveries.items if deliveries else [],
        )

    def connections(self, request: Request) -> Response:
        """Every connection, and whether it is paused."""
        return self._html(request, "connections.html", connections=self._desk.connections())

    def rules(self, request: Request) -> Response:
        """The rules that run."""
        return self._html(request, "rules.html", status_of=self._desk.rules_status())

    def rejected_requests(self, request: Request) -> Response:
        """Refused requests."""
        page = list_rejected_requests(self._database, **page_filter(request.query_params))
        return self._html(request, "rejected_requests.html", page=page, older=_kept(request.query_params))

    def rejected_request(self, request: Request, problem: str = "") -> Response:
        """One refused request, which can be accepted after all when it was signed."""
        rejected_request = self._desk.show("rejected_request", _ident(request))
        body = (
            rejected_request["body"].decode("utf-8", "replace")
            if rejected_request["body"] is not None
            else None
        )
        return self._html(
            request,
            "rejected_request.html",
            status=409 if problem else 200,
            problem=problem,
            rejected_request=rejected_request,
            body=body,
        )

    def audit(self, request: Request) -> Response:
        """What people did."""
        items, next_cursor = self._desk.audit(**page_filter(request.query_params))
        return self._html(
            request, "audit.html", items=items, next_cursor=next_cursor, older=_kept(request.query_params)
        )

    # What there is to do

    def act(self, name: str) -> Callable[[Request, Form], Response]:
        """Retry, cancel or resolve a delivery."""

        def do(request: Request, form: Form) -> Response:
            resolution = (
                one_of("resolution", form.get("resolution"), get_args(Resolution))
                if name == "resolve"
                else None
            )
            external_id = text_or_none("external_id", form.get("external_id"))
            act = self._desk.act(name, _ident(request), ACTOR, resolution=resolution, external_id=external_id)
            if not act.done:
                return self.delivery(request, act.text)
            return _back(request, "" if form.get("back") == "log" else f"deliveries/{act.id}")

        return do

    def replay(self, request: Request, form: Form) -> Response:
        """Route an event again."""
        done = self._desk.replay(
            _ident(request),
            ACTOR,
            rule=text_or_none("rule", form.get("rule")),
            force=form.get("force") == "yes",
        )
        return self.event(request, done.skipped) if done.skipped else _back(request, f"events/{done.id}")

    def accept(self, request: Request, form: Form) -> Response:  # noqa: ARG002
        """Take a refused request after all."""
        act: Act = self._desk.accept(_ident(request), ACTOR)
        return _back(request, f"rejected/{act.id}") if act.done else self.rejected_request(request, act.text)

    def pause(self, request: Request, form: Form) -> Response:
        """Pause a connection."""
        self._desk.pause(_name(request), ACTOR, text_or_none("reason", form.get("reason")) or "")
        return _back(request, "connections")

    def resume(self, request: Request, form: Form) -> Response:
        """Resume a connection."""
        self._desk.resume(_name(request), ACTOR)
        return _back(request, "" if form.get("back") == "log" else "connections")


def _ident(request: Request) -> str:
    return ident(request.path_params["id"])


def _name(request: Request) -> str:
    return ident(request.path_params["name"])


def _indented(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, indent=2)


def _for_other_events(trace: Mapping[str, Any]) -> bool:
    """Whether the rule has nothing to do with events of this name: the reader asks about the others first."""
    checks: Sequence[Mapping[str, Any]] = trace["checks"]
    alone = len(checks) == 1 and checks[0]["condition"].startswith("when ")
    return alone and not trace["fired"] and not trace["error"]


def _kept(query: QueryParams, without: Sequence[str] = ("cursor",)) -> str:
    """The present filter as the beginning of another address."""
    kept = [(name, value) for name, value in query.multi_items() if name not in without and value]
    return f"?{QueryParams(kept)}&" if kept else "?"


def _back(request: Request, path: str) -> Response:
    return RedirectResponse(f"{root_of(request)}{path}", 303)


def _page(path: str, work: Callable[[Request], Response]) -> Route:
    async def show(request: Request) -> Response:
        return await _answer(request, lambda: work(request))

    return Route(path, show, methods=["GET"])


def _form(path: str, work: Callable[[Request, Form], Response]) -> Route:
    async def act(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=20) as sent:
            form = {name: value for name, value in sent.items() if isinstance(value, str)}
        return await _answer(request, lambda: work(request, form))

    return Route(path, act, methods=["POST"], max_body_size=MAX_BODY)


async def _answer(request: Request, work: Callable[[], Response]) -> Response:
    """Do the work in a thread; what went wrong is a page that says so."""
    try:
        return await asyncio.to_thread(work)
    except NotFound as error:
        return _error(request, 404, "Nothing is here", error)
    except BadParameter as error:
        return _error(request, 400, "That cannot be", error)
    except StoreUnavailable as error:
        log.error("the database cannot be used", error=str(error))
        return _error(request, 503, "Just a moment", "The database cannot be used right now. Try again soon.")


def _error(request: Request, status: int, title: str, text: BridgeError | str) -> Response:
    return html(request, "error.html", status=status, title=title, text=str(text))
