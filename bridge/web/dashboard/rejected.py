"""Rejected requests: webhook requests that the bridge rejected."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.queries import list_rejected_requests
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import (
    Form,
    done,
    form,
    id_of,
    page,
    page_query,
    query_prefix,
    refused,
    render_page,
)
from bridge.web.labels import reason_label
from bridge.web.query_params import page_filter


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/rejected", partial(_list, service)),
        page("/rejected/{id}", partial(_show, service)),
        form("/rejected/{id}/accept", partial(_accept, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show rejected requests, newest first."""
    query = page_query(request)
    return render_page(
        request,
        service,
        "rejected_requests.html",
        title="Rejected requests",
        page=list_rejected_requests(service.database, **page_filter(query)),
        next_page_query=query_prefix(query),
    )


def _show(service: AdminService, request: Request) -> Response:
    """Show one rejected request. It can be accepted if its signature is valid."""
    rejected_request = service.show("rejected_request", id_of(request))
    body = rejected_request["body"]
    return render_page(
        request,
        service,
        "rejected_request.html",
        title=f"Rejected: {reason_label(rejected_request['reason'])} {rejected_request['id']}",
        rejected_request=rejected_request,
        body=None if body is None else body.decode("utf-8", "replace"),
    )


def _accept(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Accept a rejected request as an event."""
    result = service.accept(id_of(request), actor_of(request))
    path = f"rejected/{result.id}"
    return done(request, path, "accepted") if result.done else refused(request, path, "accept_not_possible")
