"""Search: for a person, a conversation, or an ID."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.search import search
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, form, page, redirect, render_page
from bridge.web.query_params import string_or_none

_REPORTED_EVENTS: Final = 20
"""Events of a person on the page."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/search", partial(_search, service)), form("/search", partial(_search, service))]


def _search(service: AdminService, request: Request, fields: Form | None = None) -> Response:
    """Show the events and deliveries that match a query. Redirect if the query is the ID of one of them.

    For a person or a conversation, each event has what decided about it. The search box sends the query in a form,
    so that no phone number or email address stands in a URL; links use the query string.
    """
    query = (string_or_none("q", (request.query_params if fields is None else fields).get("q")) or "").strip()
    events, deliveries = search(service.database, query) if query else (None, None)
    for path, results in (("events", events), ("deliveries", deliveries)):
        if results is not None and any(item["id"] == query for item in results.items):
            return redirect(request, f"{path}/{query}")
    return render_page(
        request,
        service,
        "search.html",
        title="Search",
        query=query,
        report=service.report_contact(query, limit=_REPORTED_EVENTS) if query else None,
        matching_events=events.items if events else [],
        matching_deliveries=deliveries.items if deliveries else [],
    )
