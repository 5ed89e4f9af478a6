"""Connections: the state of each account, and its pauses."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, name_of, page, render_page
from bridge.web.query_params import string_or_none


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/connections", partial(_list, service)),
        form("/connections/{name}/pause", partial(_pause, service)),
        form("/connections/{name}/resume", partial(_resume, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show every connection and its pause."""
    return render_page(
        request, service, "connections.html", title="Connections", connections=service.connections()
    )


def _pause(service: AdminService, request: Request, fields: Form) -> Response:
    """Pause a connection."""
    reason = string_or_none("reason", fields.get("reason")) or ""
    service.pause(name_of(request), actor_of(request), reason)
    return done(request, "connections", "connection_paused")


def _resume(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Resume a connection."""
    service.resume(name_of(request), actor_of(request))
    return done(request, "connections", "connection_resumed")
