"""Action that closes cases."""

from __future__ import annotations

from typing import Literal

from simple_salesforce.format import format_soql

from bridge.connector import (
    ContactLookupParams,
    Context,
    Properties,
    Success,
    fields_to_write,
    param,
    per_event,
    resolve_contact,
)
from bridge.errors import LookupInconclusive, PermanentError

from .contact_source import Contacts, read_contact
from .org import Org
from .settings import ID_PATTERN, connector
from .soql import require_id, select


class CloseCaseParams(ContactLookupParams):
    """A case to close."""

    case: str | None = param(
        "{{ event.metadata.caseId }}",
        "Case ID. Default: the contact's open case.",
        example="5005g00000AbCdE",
        pattern=ID_PATTERN,
    )
    status: str | None = param(
        None, "Closed status to set. Default: the org's first closed status.", example="Closed"
    )
    on_multiple: Literal["review", "newest"] = param(
        "review",
        "If the contact has several open cases: `review` asks the operator, `newest` closes the newest.",
        example="newest",
    )
    properties: Properties = param(
        {}, "Additional fields of the case.", example={"Reason": "Solved by Heppu"}
    )


@connector.action(idempotency=per_event, idempotent=True)
def close_case(org: Org, params: CloseCaseParams, context: Context) -> Success:
    """Close a case with the org's closed status."""
    if params.case:
        condition = format_soql("Id = {}", params.case)
    else:
        query = params.contact_query(context, create=False, scope="contact:")
        contacts = Contacts(org, object_types=("Contact",))
        contact, _ = resolve_contact(contacts, query, lambda record_id: read_contact(org, record_id, ()))
        condition = format_soql("ContactId = {} AND IsClosed = false", contact.id)
    names = ("Id", "IsClosed", *params.properties)
    cases = org.query(select(names, "Case", f"{condition} ORDER BY CreatedDate DESC LIMIT 2"))
    if params.case and not cases:
        raise PermanentError("Salesforce has no case with this ID: check the param `case`", code="not_found")
    if not cases or cases[0]["IsClosed"]:
        return Success(id=params.case, detail="no open case")
    if len(cases) > 1 and params.on_multiple == "review":
        raise LookupInconclusive(
            "the contact has several open cases: close the right one, or set `on_multiple: newest`"
        )
    newest = cases[0]
    changes = fields_to_write(params.properties, newest)
    changes |= {"Status": params.status or org.closed_status("Case")}
    org.rest("PATCH", f"sobjects/Case/{require_id(newest['Id'])}", changes)
    return Success(id=str(newest["Id"]), detail="closed")
