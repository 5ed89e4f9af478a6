"""Settings: the reader's time zone, which is kept in a cookie."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, page, refused, render_page
from bridge.web.frame import ZONE_COOKIE, zone_names

_YEAR: Final = 365 * 24 * 3600


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/settings", partial(_settings, service)), form("/settings", _save)]


def _settings(service: AdminService, request: Request) -> Response:
    """Show the form for the time zone."""
    return render_page(request, service, "settings.html", title="Settings", zones=zone_names())


def _save(request: Request, fields: Form) -> Response:
    """Set the cookie with the time zone."""
    zone = fields.get("zone", "")
    if zone not in zone_names():
        return refused(request, "settings", "unknown_zone")
    response = done(request, "settings", "settings_saved")
    response.set_cookie(ZONE_COOKIE, zone, max_age=_YEAR, httponly=True, samesite="strict")
    return response
