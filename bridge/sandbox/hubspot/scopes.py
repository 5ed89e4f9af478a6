"""The scopes of an access token."""

from __future__ import annotations

import re

from bridge.sandbox.hubspot.crm import Crm
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
    "crm.objects.owners.read",
    "tickets",
    "subscriptions-status-read",
    "subscriptions-status-write",
    "oauth",
)


def required_scope(request: ProviderRequest, crm: Crm) -> str | None:
    """Return the scope that a request requires. Engagements require the scopes of contacts."""
    if request.path.startswith("/crm/owners/"):
        return "crm.objects.owners.read"
    if request.path.startswith("/communication-preferences/"):
        return f"subscriptions-status-{'read' if request.method == 'GET' else 'write'}"
    if "type" not in request.path_params:
        return None
    object_name = crm.type(request.path_params["type"]).name
    is_read = request.method == "GET" or bool(re.search(r"/(search|batch/read)$", request.path))
    access = "read" if is_read else "write"
    if request.path.startswith("/crm/properties/"):
        return f"crm.schemas.contacts.{access}"
    if object_name == "tickets":
        return "tickets"
    return f"crm.objects.{object_name if object_name in ('contacts', 'companies', 'deals') else 'contacts'}.{access}"
