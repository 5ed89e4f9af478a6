"""Stop and start: the pages on which an operator stops all sending, and starts it again."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, page, render_page
from bridge.web.query_params import string_or_none


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        page("/stop", partial(_confirm_stop, service)),
        form("/stop", partial(_stop, service)),
        page("/start", partial(_confirm_start, service)),
        form("/start", partial(_start, service)),
    ]


def _confirm_stop(service: AdminService, request: Request) -> Response:
    """Ask for a reason before all connections are paused."""
    return render_page(request, service, "stop.html", title="Stop sending", waiting=service.waiting())


def _stop(service: AdminService, request: Request, fields: Form) -> Response:
    """Pause all connections."""
    service.pause_all(actor_of(request), string_or_none("reason", fields.get("reason")) or "")
    return done(request, "connections", "stopped")


def _confirm_start(service: AdminService, request: Request) -> Response:
    """Say how many deliveries wait before the pause of all connections ends."""
    return render_page(
        request,
        service,
        "start.html",
        title="Start sending",
        waiting=service.waiting(),
        pause_of_all=service.pause_of_all(),
    )


def _start(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """End the pause of all connections."""
    service.resume_all(actor_of(request))
    return done(request, "connections", "started")
