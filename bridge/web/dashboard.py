"""Dashboard: HTML pages that show events and deliveries, explain each decision, and offer operator actions.

The pages work without scripts, on small screens and in dark mode. Operator actions are forms: after a successful action
the browser is redirected to the changed record; after a failed one the page is shown again with the reason.
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

from bridge.errors import BridgeError
from bridge.events import EVENT_TYPES
from bridge.rules.model import Trace
from bridge.rules.unmet import is_disabled, is_for_other_events
from bridge.store.operator_actions import Resolution
from bridge.store.possible_duplicates import dismiss_possible_duplicate, list_possible_duplicates
from bridge.store.queries import (
    REASONS,
    STATES,
    NotFound,
    list_deliveries,
    list_events,
    list_rejected_requests,
)
from bridge.store.search import search
from bridge.store.timeline import timeline
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.html import render, root_path
from bridge.web.query_params import (
    InvalidParameter,
    check_id,
    delivery_filter,
    event_filter,
    one_of,
    page_filter,
    string_or_none,
)

MAX_BODY: Final = 64 * 1024
_LATEST_EVENTS: Final = 8
"""Events on the start page."""
_REPORTED_EVENTS: Final = 20
"""Events of a person on the search page."""
_MAX_REVIEWS: Final = 50
"""Deliveries that need review on the start page."""

Form = Mapping[str, str]


def dashboard_routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of the dashboard. They do not authenticate: protect them with `AdminAuth.require_admin`."""
    dashboard = Dashboard(service)
    return [
        _page("/", dashboard.deliveries),
        _page("/events", dashboard.events),
        _page("/events/{id}", dashboard.event),
        _page("/deliveries/{id}", dashboard.delivery),
        _page("/search", dashboard.search),
        _form("/search", dashboard.search),
        _page("/connections", dashboard.connections),
        _page("/rules", dashboard.rules),
        _page("/rejected", dashboard.rejected_requests),
        _page("/rejected/{id}", dashboard.rejected_request),
        _page("/contacts", dashboard.contacts),
        _page("/audit", dashboard.audit),
        _form("/deliveries/{id}/retry", dashboard.change_delivery("retry")),
        _form("/deliveries/{id}/cancel", dashboard.change_delivery("cancel")),
        _form("/deliveries/{id}/resolve", dashboard.change_delivery("resolve")),
        _form("/events/{id}/replay", dashboard.replay),
        _form("/rejected/{id}/accept", dashboard.accept),
        _form("/contacts/duplicates/{id}/dismiss", dashboard.dismiss_duplicate),
        _form("/connections/{name}/pause", dashboard.pause),
        _page("/connections/pause", dashboard.confirm_pause_all),
        _form("/connections/pause", dashboard.pause_all),
        _page("/connections/resume", dashboard.confirm_resume_all),
        _form("/connections/resume", dashboard.resume_all),
        _form("/connections/{name}/resume", dashboard.resume),
        _page("/rules/{name:path}/cancel", dashboard.confirm_cancel_rule),
        _form("/rules/{name:path}/cancel", dashboard.cancel_rule),
    ]


class Dashboard:
    """The pages and form actions. Every method blocks: call it in a thread."""

    def __init__(self, service: AdminService) -> None:
        self._service = service
        self._database = service.database

    def _render(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page with the banners of every page: paused connections and errors of the rules file."""
        return render(
            request,
            template,
            status=status,
            current_page=request.url.path.split("/")[1].replace("deliveries", ""),
            now=self._database.clock.now(),
            pauses={status.name: status.pause for status in self._service.connections() if status.pause},
            pause_of_all=self._service.pause_of_all(),
            load_error=self._service.rules.load_error,
            **values,
        )

    # Pages

    def deliveries(self, request: Request) -> Response:
        """Show deliveries, newest first. Without a filter, show the ones that need review and the latest events too."""
        filters = delivery_filter(request.query_params)
        is_start_page = not any(request.query_params.values())
        reviews = (
            list_deliveries(self._database, states=["needs_review"], limit=_MAX_REVIEWS)
            if is_start_page
            else None
        )
        latest_events = list_events(self._database, limit=_LATEST_EVENTS) if is_start_page else None
        return self._render(
            request,
            "deliveries.html",
            reviews=reviews.items if reviews else [],
            latest_events=latest_events.items if latest_events else None,
            page=list_deliveries(self._database, **filters),
            stats=self._service.stats(),
            states=STATES,
            selected_states=filters["states"],
            reasons=REASONS,
            selected={
                name: request.query_params.get(name, "") for name in ("connection", "rule", "reason", "event")
            },
            next_page_query=_query_prefix(request.query_params),
            state_query=_query_prefix(request.query_params, ("cursor", "state")),
            connections=[status.name for status in self._service.connections()],
            rules=[rule.name for rule in self._service.rules.current.rules],
        )

    def events(self, request: Request) -> Response:
        """Show events, newest first."""
        filters = event_filter(request.query_params, self._database.clock.now())
        return self._render(
            request,
            "events.html",
            page=list_events(self._database, **filters),
            event_types=EVENT_TYPES,
            selected_type=filters["event_type"] or "",
            since=request.query_params.get("since", ""),
            unreadable=filters["unreadable"],
            next_page_query=_query_prefix(request.query_params),
        )

    def event(self, request: Request, error: str = "") -> Response:
        """Show one event with its body, the trace of each rule, and its deliveries."""
        event = self._service.show("event", _id(request))
        return self._render(
            request,
            "event.html",
            status=409 if error else 200,
            error=error,
            event=event,
            body=_indented_json(event["body"]),
            **_grouped_traces(event["trace"] or []),
            rules=[rule.name for rule in self._service.rules.current.rules],
        )

    def delivery(self, request: Request, error: str = "") -> Response:
        """Show one delivery with its timeline, its parameters and the operator actions that are possible."""
        delivery = self._service.show("delivery", _id(request))
        return self._render(
            request,
            "delivery.html",
            status=409 if error else 200,
            error=error,
            delivery=delivery,
            timeline=timeline(delivery),
            params=_indented_json(delivery["params"] | delivery["options"].get("late", {})),
        )

    def search(self, request: Request, form: Form | None = None) -> Response:
        """Show the events and deliveries that match a query. Redirect if the query is the ID of one of them.

        For a person or a conversation, each event has what decided about it. The search box sends the query in a form,
        so that no phone number or email address stands in a URL; links use the query string.
        """
        query = (string_or_none("q", (request.query_params if form is None else form).get("q")) or "").strip()
        events, deliveries = search(self._database, query) if query else (None, None)
        for path, page in (("events", events), ("deliveries", deliveries)):
            if page is not None and any(item["id"] == query for item in page.items):
                return RedirectResponse(f"{root_path(request)}{path}/{query}", 303)
        return self._render(
            request,
            "search.html",
            query=query,
            report=self._service.report_contact(query, limit=_REPORTED_EVENTS) if query else None,
            matching_events=events.items if events else [],
            matching_deliveries=deliveries.items if deliveries else [],
        )

    def connections(self, request: Request) -> Response:
        """Show every connection and its pause."""
        return self._render(request, "connections.html", connections=self._service.connections())

    def rules(self, request: Request) -> Response:
        """Show the active rules."""
        return self._render(request, "rules.html", rules_status=self._service.rules_status())

    def confirm_pause_all(self, request: Request) -> Response:
        """Ask for a reason before all connections are paused."""
        return self._render(request, "pause_all.html", waiting=self._service.waiting(), resumes=False)

    def confirm_resume_all(self, request: Request) -> Response:
        """Say how many deliveries wait before the pause of all connections ends."""
        return self._render(request, "pause_all.html", waiting=self._service.waiting(), resumes=True)

    def confirm_cancel_rule(self, request: Request, result: Sequence[str] = ()) -> Response:
        """Say what waits of a rule, and offer to cancel it or to apply the active version of the rule."""
        name = _name(request)
        return self._render(
            request,
            "cancel_rule.html",
            waiting=self._service.waiting_of_rule(name),
            rule=self._service.rules.current.named(name),
            result=result,
        )

    def rejected_requests(self, request: Request) -> Response:
        """Show rejected requests, newest first."""
        page = list_rejected_requests(self._database, **page_filter(request.query_params))
        next_page_query = _query_prefix(request.query_params)
        return self._render(request, "rejected_requests.html", page=page, next_page_query=next_page_query)

    def rejected_request(self, request: Request, error: str = "") -> Response:
        """Show one rejected request. It can be accepted if its signature is valid."""
        rejected_request = self._service.show("rejected_request", _id(request))
        body = rejected_request["body"]
        return self._render(
            request,
            "rejected_request.html",
            status=409 if error else 200,
            error=error,
            rejected_request=rejected_request,
            body=None if body is None else body.decode("utf-8", "replace"),
        )

    def contacts(self, request: Request) -> Response:
        """Show the possible duplicates among the contacts of the CRMs, newest first."""
        return self._render(
            request,
            "contacts.html",
            page=list_possible_duplicates(self._database, **page_filter(request.query_params)),
            next_page_query=_query_prefix(request.query_params),
        )

    def audit(self, request: Request) -> Response:
        """Show the audit log, newest entry first."""
        items, next_cursor = self._service.audit(**page_filter(request.query_params))
        return self._render(
            request,
            "audit.html",
            items=items,
            next_cursor=next_cursor,
            next_page_query=_query_prefix(request.query_params),
        )

    # Operator actions

    def change_delivery(self, action: str) -> Callable[[Request, Form], Response]:
        """Return a handler that retries, cancels or resolves a delivery."""

        def handle(request: Request, form: Form) -> Response:
            resolution = (
                one_of("resolution", form.get("resolution"), get_args(Resolution))
                if action == "resolve"
                else None
            )
            result = self._service.change_delivery(
                action,
                _id(request),
                actor_of(request),
                resolution=resolution,
                external_id=string_or_none("external_id", form.get("external_id")),
            )
            if not result.done:
                return self.delivery(request, result.text)
            return _redirect(request, "" if _from_start_page(form) else f"deliveries/{result.id}")

        return handle

    def replay(self, request: Request, form: Form) -> Response:
        """Route an event again."""
        result = self._service.replay(
            _id(request),
            actor_of(request),
            rule=string_or_none("rule", form.get("rule")),
            force=form.get("force") == "yes",
        )
        if result.skipped:
            return self.event(request, result.skipped)
        return _redirect(request, f"events/{result.id}")

    def accept(self, request: Request, form: Form) -> Response:  # noqa: ARG002
        """Accept a rejected request as an event."""
        result = self._service.accept(_id(request), actor_of(request))
        if not result.done:
            return self.rejected_request(request, result.text)
        return _redirect(request, f"rejected/{result.id}")

    def dismiss_duplicate(self, request: Request, form: Form) -> Response:  # noqa: ARG002
        """Remove a pair from the possible duplicates."""
        dismiss_possible_duplicate(self._database, actor_of(request), _id(request))
        return _redirect(request, "contacts")

    def pause(self, request: Request, form: Form) -> Response:
        """Pause a connection."""
        self._service.pause(
            _name(request), actor_of(request), string_or_none("reason", form.get("reason")) or ""
        )
        return _redirect(request, "connections")

    def resume(self, request: Request, form: Form) -> Response:
        """Resume a connection."""
        self._service.resume(_name(request), actor_of(request))
        return _redirect(request, "" if _from_start_page(form) else "connections")

    def pause_all(self, request: Request, form: Form) -> Response:
        """Pause all connections."""
        self._service.pause_all(actor_of(request), string_or_none("reason", form.get("reason")) or "")
        return _redirect(request, "connections")

    def resume_all(self, request: Request, form: Form) -> Response:  # noqa: ARG002
        """End the pause of all connections."""
        self._service.resume_all(actor_of(request))
        return _redirect(request, "connections")

    def cancel_rule(self, request: Request, form: Form) -> Response:
        """Cancel the waiting deliveries of a rule, or apply the active version of the rule to them."""
        name = _name(request)
        if form.get("rerender") == "yes":
            return self.confirm_cancel_rule(
                request, self._service.rerender_rule(name, actor_of(request)).lines
            )
        self._service.cancel_rule(name, actor_of(request))
        return _redirect(request, f"?{QueryParams({'rule': name, 'state': 'cancelled'})}")


def _id(request: Request) -> str:
    return check_id(request.path_params["id"])


def _name(request: Request) -> str:
    return check_id(request.path_params["name"])


def _grouped_traces(records: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the traces of an event by the section of the page that shows them."""
    groups: dict[str, list[Mapping[str, Any]]] = {"traces": [], "disabled_traces": [], "other_traces": []}
    for record in records:
        trace = Trace.from_json(record)
        is_other, is_off = is_for_other_events(trace), is_disabled(trace)
        groups["other_traces" if is_other else "disabled_traces" if is_off else "traces"].append(record)
    return {**groups}


def _indented_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, indent=2)


def _query_prefix(query: QueryParams, without: Sequence[str] = ("cursor",)) -> str:
    """Return the current filters as the start of a query string that takes one more parameter."""
    parameters = [(name, value) for name, value in query.multi_items() if name not in without and value]
    return f"?{QueryParams(parameters)}&" if parameters else "?"


def _from_start_page(form: Form) -> bool:
    return form.get("return_to") == "deliveries"


def _redirect(request: Request, path: str) -> Response:
    return RedirectResponse(f"{root_path(request)}{path}", 303)


def _page(path: str, handler: Callable[[Request], Response]) -> Route:
    async def endpoint(request: Request) -> Response:
        return await _respond(request, lambda: handler(request))

    return Route(path, endpoint, methods=["GET"])


def _form(path: str, handler: Callable[[Request, Form], Response]) -> Route:
    async def endpoint(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=20) as fields:
            form = {name: value for name, value in fields.items() if isinstance(value, str)}
        return await _respond(request, lambda: handler(request, form))

    return Route(path, endpoint, methods=["POST"], max_body_size=MAX_BODY)


async def _respond(request: Request, handler: Callable[[], Response]) -> Response:
    """Run the handler in a thread and return its page, or an error page."""
    try:
        return await asyncio.to_thread(handler)
    except NotFound as error:
        return _error_page(request, 404, "Not found", error)
    except InvalidParameter as error:
        return _error_page(request, 400, "Invalid request", error)


def _error_page(request: Request, status: int, title: str, message: BridgeError | str) -> Response:
    return render(request, "error.html", status=status, title=title, message=str(message))
