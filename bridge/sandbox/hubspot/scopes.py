"""What an access token may do."""

from __future__ import annotations

import re

from bridge.sandbox.hubspot.crm import Crm
from bridge.sandbox.provider import Call

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
    "oauth",
)


def scope_of(call: Call, crm: Crm) -> str | None:
    """The scope that a request needs; engagements need those of contacts."""
    if call.path.startswith("/crm/v3/owners"):
        return "crm.objects.owners.read"
    if "type" not in call.args:
        return None
    kind = crm.type(call.args["type"]).name
    reads = call.method == "GET" or bool(re.search(r"/(search|batch/read)$", call.path))
    access = "read" if reads else "write"
    if call.path.startswith("/crm/v3/properties"):
        return f"crm.schemas.contacts.{access}"
    if kind == "tickets":
        return "tickets"
    return f"crm.objects.{kind if kind in ('contacts', 'companies', 'deals') else 'contacts'}.{access}"
