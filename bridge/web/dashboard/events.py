"""Events: the list with its filters, and one event with the trace of each rule and its deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.events import EVENT_TYPES
from bridge.rules.model import Trace
from bridge.rules.unmet import is_disabled, is_for_other_events
from bridge.store.queries import list_events
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import (
    Form,
    done,
    form,
    id_of,
    indented_json,
    page,
    page_query,
    query_prefix,
    refused,
    render_page,
)
from bridge.web.query_params import event_filter, string_or_none


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/events", partial(_list, service)),
        page("/events/{id}", partial(_show, service)),
        form("/events/{id}/replay", partial(_replay, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show events, newest first."""
    query = page_query(request)
    filters = event_filter(query, service.database.clock.now())
    return render_page(
        request,
        service,
        "events.html",
        title="Events",
        page=list_events(service.database, **filters),
        event_types=EVENT_TYPES,
        selected_type=filters["event_type"] or "",
        since=query.get("since", ""),
        unreadable=filters["unreadable"],
        next_page_query=query_prefix(query),
    )


def _show(service: AdminService, request: Request) -> Response:
    """Show one event with its body, the trace of each rule, and its deliveries."""
    event = service.show("event", id_of(request))
    return render_page(
        request,
        service,
        "event.html",
        title=f"Event {event['type']} {event['id']}",
        event=event,
        body=indented_json(event["body"]),
        **_grouped_traces(event["trace"] or []),
        rules=[rule.name for rule in service.rules.current.rules],
    )


def _replay(service: AdminService, request: Request, fields: Form) -> Response:
    """Route an event again."""
    result = service.replay(
        id_of(request),
        actor_of(request),
        rule=string_or_none("rule", fields.get("rule")),
        force=fields.get("force") == "yes",
    )
    path = f"events/{result.id}"
    return (
        refused(request, path, "replay_not_possible") if result.skipped else done(request, path, "replayed")
    )


def _grouped_traces(records: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the traces of an event by the section of the page that shows them."""
    groups: dict[str, list[Mapping[str, Any]]] = {"traces": [], "disabled_traces": [], "other_traces": []}
    for record in records:
        trace = Trace.from_json(record)
        is_other, is_off = is_for_other_events(trace), is_disabled(trace)
        groups["other_traces" if is_other else "disabled_traces" if is_off else "traces"].append(record)
    return {**groups}
