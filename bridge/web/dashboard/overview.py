"""Overview: what needs review, the latest events and the latest deliveries."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from bridge.store.queries import list_deliveries, list_events
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, render_page
from bridge.web.html import root_path
from bridge.web.query_params import DELIVERY_PARAMS

_LATEST: Final = 8
"""Events and deliveries on the page."""
_MAX_REVIEWS: Final = 50


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/", partial(_overview, service))]


def _overview(service: AdminService, request: Request) -> Response:
    """Show what waits for an operator and what happened last. The list of deliveries was here: redirect its filters."""
    query = request.query_params
    if any(name in query for name in DELIVERY_PARAMS):
        return RedirectResponse(f"{root_path(request)}deliveries?{request.url.query}", 308)
    reviews = list_deliveries(service.database, states=["needs_review"], limit=_MAX_REVIEWS)
    return render_page(
        request,
        service,
        "overview.html",
        title="Overview",
        reviews=reviews.items,
        latest_events=list_events(service.database, limit=_LATEST).items,
        latest_deliveries=list_deliveries(service.database, limit=_LATEST).items,
        stats=service.stats(),
    )
