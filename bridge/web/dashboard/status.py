"""Status: the processes, the database and what the service received."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, render_page


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/status", partial(_status, service))]


def _status(service: AdminService, request: Request) -> Response:
    """Show the state of the service itself."""
    return render_page(request, service, "status.html", title="Status", stats=service.stats())
