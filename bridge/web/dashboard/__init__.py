"""Dashboard: HTML pages that show events and deliveries, explain each decision, and offer operator actions.

The pages work without scripts, on small screens and in dark mode. Operator actions are forms: after an action the
browser is redirected to a page that says what was done, or why nothing was. One module per page; `page` has what they
share.
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from bridge.web.admin_service import AdminService
from bridge.web.dashboard import (
    audit,
    connections,
    contact,
    contacts,
    deliveries,
    delivery,
    delivery_bulk,
    event_replay,
    events,
    overview,
    rejected,
    review,
    rules,
    search,
    settings,
    status,
    stop,
)

_PAGES = (
    overview,
    review,
    deliveries,
    delivery_bulk,  # before delivery, whose path matches as well
    delivery,
    event_replay,  # before events, whose path matches as well
    events,
    contacts,
    contact,
    search,
    rules,
    connections,
    rejected,
    audit,
    status,
    stop,
    settings,
)


def dashboard_routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of the dashboard. They do not authenticate: protect them with `AdminAuth.require_admin`."""
    return [route for page in _PAGES for route in page.routes(service)]
