"""The scopes of an access token."""

from __future__ import annotations

import re

from starlette.responses import Response

from bridge.sandbox.hubspot.crm import Crm
from bridge.sandbox.hubspot.errors import error_response
from bridge.sandbox.provider import ProviderRequest

ALL_SCOPES = (
    "crm.objects.contacts.read",
    "crm.objects.contacts.write",
    "crm.objects.companies.read",
    "crm.objects.companies.write",
    "crm.objects.deals.read",
    "crm.objects.deals.write",
    "crm.schemas.contacts.read",
    "crm.schemas.contacts.write",
    "crm.schemas.companies.read",
    "crm.schemas.companies.write",
    "crm.schemas.deals.read",
    "crm.schemas.deals.write",
    "crm.objects.owners.read",
    "crm.lists.read",
    "crm.lists.write",
    "tickets",
    "sales-email-read",
    "subscriptions-status-read",
    "subscriptions-status-write",
    "oauth",
)

LINKED_TYPES_WITH_SCOPE = ("companies", "deals", "tickets")
"""Types whose scope the key also needs to associate a new record with them."""


def required_scopes(request: ProviderRequest, crm: Crm) -> tuple[str, ...]:
    """Return the scopes that a request requires, all of them. Engagements require the scopes of contacts.

    Reading emails requires a scope of its own. A request for the links between two types requires both.
    """
    if request.path.startswith("/crm/owners/"):
        return ("crm.objects.owners.read",)
    if request.path.startswith("/crm/lists/"):
        is_search = request.path.endswith("/search")
        return (f"crm.lists.{'read' if request.method == 'GET' or is_search else 'write'}",)
    if request.path.startswith("/communication-preferences/"):
        return (f"subscriptions-status-{'read' if request.method == 'GET' else 'write'}",)
    if "type" not in request.path_params:
        return ()
    is_read = request.method == "GET" or bool(re.search(r"/(search|batch/read)$", request.path))
    access = "read" if is_read else "write"
    types = [crm.type(request.path_params[end]).name for end in ("type", "to") if end in request.path_params]
    if request.path.startswith("/crm/properties/"):
        schema = types[0] if types[0] in ("companies", "deals") else "contacts"
        return ("tickets",) if types == ["tickets"] else (f"crm.schemas.{schema}.{access}",)
    emails = ("sales-email-read",) if is_read and "emails" in types else ()
    return (*dict.fromkeys(scope_of(name, access) for name in types), *emails)


def missing_scopes_response(required: tuple[str, ...]) -> Response:
    """Return HubSpot's response to a token without a scope: it names every scope that the request requires."""
    return error_response(
        403,
        "This app hasn't been granted all required scopes to make this call. Read more about required scopes here: "
        "https://developers.hubspot.com/scopes.",
        errors=[
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": list(required)},
            }
        ],
        links={"scopes": "https://developers.hubspot.com/scopes"},
    )


def scope_of(object_name: str, access: str) -> str:
    """Return the scope for records of one type. Engagements are covered by the scopes of contacts."""
    if object_name == "tickets":
        return "tickets"
    return f"crm.objects.{object_name if object_name in ('contacts', 'companies', 'deals') else 'contacts'}.{access}"
