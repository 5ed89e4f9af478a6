"""HTTP API: `/api/...` returns the data of the dashboard in the shape that the command line prints with `--json`.

One module per resource declares its endpoints; `ALL` lists the resources. A list is `{"items": [...], "next_cursor":
...}`; pass `next_cursor` as `cursor` to get the next page. An error is `{"error": ...}` and says what to do.
"""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from bridge.web.admin_service import AdminService
from bridge.web.api.connections import CONNECTIONS
from bridge.web.api.contacts import CONTACTS
from bridge.web.api.deliveries import DELIVERIES
from bridge.web.api.document import DOCUMENT
from bridge.web.api.endpoint import Endpoint, Resource
from bridge.web.api.events import EVENTS
from bridge.web.api.opt_outs import OPT_OUTS
from bridge.web.api.overview import OVERVIEW
from bridge.web.api.rejected_requests import REJECTED_REQUESTS
from bridge.web.api.routing import build_routes
from bridge.web.api.rules import RULES
from bridge.web.api.rules_trial import TRIALS
from bridge.web.api.status import STATUS

ALL: Final[tuple[Resource, ...]] = (
    OVERVIEW, STATUS, EVENTS, DELIVERIES, CONTACTS, OPT_OUTS, TRIALS, RULES, CONNECTIONS, REJECTED_REQUESTS, DOCUMENT,
)  # fmt: skip
"""The resources, in the order of the reference. A path with a variable comes after those that it would cover."""


def all_endpoints() -> list[Endpoint]:
    """Return every endpoint of the API."""
    return [endpoint for resource in ALL for endpoint in resource.endpoints]


def api_routes(service: AdminService) -> list[Route]:
    """Return the routes of the API. They do not authenticate: protect them with `AdminAuth.require_admin`."""
    return build_routes(all_endpoints(), service)
