"""Search: for a person, a conversation, or an ID."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.contacts.typed_address import InvalidAddress, read_typed_address
from bridge.store.rejected_groups import recent_rejected_requests
from bridge.store.search import search
from bridge.store.search_terms import is_national_number
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.contact import show_address
from bridge.web.dashboard.page import Form, form, page, redirect, render_page
from bridge.web.query_params import string_or_none


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/search", partial(_search, service)), form("/search", partial(_search, service))]


def _search(service: AdminService, request: Request, fields: Form | None = None) -> Response:
    """Redirect to the only match; list several people, or the events and deliveries of a conversation.

    The search box sends the query in a form, so that no phone number or email address stands in a URL; links use the
    query string.
    """
    query = (string_or_none("q", (request.query_params if fields is None else fields).get("q")) or "").strip()
    found = search(service.database, query) if query else None
    if found is not None:
        if found.only_match is not None:
            return redirect(request, "/".join(found.only_match))
        address = _address(service, query) if not found.contacts and not found.events.items else None
        if address is not None:
            return show_address(service, request, address)
    response = render_page(
        request,
        service,
        "search.html",
        title="Search",
        query=query,
        found=found,
        rejected=recent_rejected_requests(service.database) if found is not None and not found.match else [],
        needs_country=is_national_number(query) and service.database.default_country is None,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _address(service: AdminService, query: str) -> str | None:
    """Return the address that a query is, about which nothing needs to be stored; None for anything else."""
    try:
        return read_typed_address(query, service.database.default_country)
    except InvalidAddress:
        return None
