"""Contacts: the possible duplicates among the contacts of the CRMs."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.possible_duplicates import dismiss_possible_duplicate, list_possible_duplicates
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, id_of, page, page_query, query_prefix, render_page
from bridge.web.query_params import page_filter


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/contacts", partial(_list, service)),
        form("/contacts/duplicates/{id}/dismiss", partial(_dismiss, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show the possible duplicates among the contacts of the CRMs, newest first."""
    query = page_query(request)
    return render_page(
        request,
        service,
        "contacts.html",
        title="Contacts",
        page=list_possible_duplicates(service.database, **page_filter(query)),
        next_page_query=query_prefix(query),
    )


def _dismiss(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Remove a pair from the possible duplicates."""
    dismiss_possible_duplicate(service.database, actor_of(request), id_of(request))
    return done(request, "contacts", "duplicate_dismissed")
