"""Audit log: what operators, people and the service itself did."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, page_query, query_prefix, render_page
from bridge.web.query_params import page_filter


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/audit", partial(_list, service))]


def _list(service: AdminService, request: Request) -> Response:
    """Show the audit log, newest entry first."""
    query = page_query(request)
    items, next_cursor = service.audit(**page_filter(query))
    return render_page(
        request,
        service,
        "audit.html",
        title="Audit log",
        items=items,
        next_cursor=next_cursor,
        next_page_query=query_prefix(query),
    )
