"""Review: the deliveries whose outcome is unknown, for an operator to decide."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.queries import list_deliveries
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, render_page

_MAX_REVIEWS: Final = 50


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/review", partial(_review, service))]


def _review(service: AdminService, request: Request) -> Response:
    """Show the deliveries that need review."""
    reviews = list_deliveries(service.database, states=["needs_review"], limit=_MAX_REVIEWS)
    return render_page(request, service, "review.html", title="Review", reviews=reviews.items)
