"""Action that closes cases."""

from __future__ import annotations

from typing import Literal

from bridge.connector import (
    ON_MISSING,
    ContactLookupParams,
    Context,
    OnMissing,
    Properties,
    Success,
    fields_to_write,
    forget_related_records,
    param,
    per_event,
    resolve_contact,
)
from bridge.errors import LookupInconclusive, PermanentError

from . import sdk
from .contact_source import Contacts, read_contact
from .errors import errors_in
from .field_values import typed_properties
from .org import Org
from .permissions import CLOSE_CASES
from .settings import ID_PATTERN, connector
from .soql import require_id, select


class CloseCaseParams(ContactLookupParams):
    """A case to close."""

    case: str | None = param(
        "{{ event.metadata.caseId }}",
        "Case ID, from the event's metadata by default.",
        example="5005g00000AbCdE",
        pattern=ID_PATTERN,
        must_be="a Salesforce case ID (15 or 18 letters and digits)",
    )
    status: str | None = param(
        None, "Closed status to set. Default: the org's first closed status.", example="Closed"
    )
    without_id: Literal["error", "review", "newest"] = param(
        "error",
        "If the event has no case ID: `error` fails; `newest` closes the contact's newest open case; `review` "
        "closes the contact's only open case and asks the operator if there are several.",
        example="newest",
    )
    on_missing: OnMissing = ON_MISSING
    properties: Properties = param(
        {}, "Additional fields of the case.", example={"Reason": "Solved by Heppu"}
    )

    def missing(self, detail: str) -> Success:
        """Return the result of a case that does not exist. Raise PermanentError with `on_missing: error`."""
        if self.on_missing == "error":
            raise PermanentError(detail, code="not_found")
        return Success(id=self.case, detail=detail)


@connector.action(idempotency=per_event, idempotent=True, needs=CLOSE_CASES)
def close_case(org: Org, params: CloseCaseParams, context: Context) -> Success:
    """Close a case with the org's closed status."""
    if params.case:
        condition: str | None = sdk.format_soql("Id = {}", params.case)
    elif params.without_id == "error":
        raise PermanentError(
            "the event has no case ID: set `case`, or `without_id: newest` for the contact's newest open case",
            code="no_case_id",
        )
    else:
        condition = _open_cases_of_contact(org, params, context)
    if condition is None:
        return params.missing("Salesforce has no such contact")
    properties, notes = typed_properties(org, "Case", params.properties, "updateable", context)
    # Only a case that is found by its contact is certain to show its contact to the integration user.
    names = ("Id", "IsClosed", *(() if params.case else ("ContactId",)), *properties)
    cases = org.query(select(names, "Case", f"{condition} ORDER BY CreatedDate DESC LIMIT 2"))
    if params.case and not cases:
        return params.missing("Salesforce has no case with this ID: check the param `case`")
    if not cases or cases[0]["IsClosed"]:
        return Success(id=params.case, detail="no open case")
    if len(cases) > 1 and params.without_id == "review":
        raise LookupInconclusive(
            "the contact has several open cases: close the right one, or set `without_id: newest`"
        )
    newest = cases[0]
    changes = fields_to_write(properties, newest)
    read_again = org.values_read_again
    changes |= {"Status": params.status or org.closed_status("Case")}
    try:
        org.rest("PATCH", f"sobjects/Case/{require_id(newest['Id'])}", changes)
    except sdk.SalesforceError as error:
        codes = [code for code, _, _ in errors_in(error)]
        raise next(filter(None, (org.refused_value(code, read_again) for code in codes)), error) from None
    forget_related_records(context.contact_cache, [newest["ContactId"]] if newest.get("ContactId") else [])
    return Success(id=str(newest["Id"]), detail="; ".join(["closed", *notes]))


def _open_cases_of_contact(org: Org, params: CloseCaseParams, context: Context) -> str | None:
    """Return the condition for the contact's open cases, None if Salesforce has no such contact."""
    query = params.contact_query(context, create=False, scope="contact:")
    contacts = Contacts(org, object_types=("Contact",))
    try:
        contact, _ = resolve_contact(contacts, query, lambda record_id: read_contact(org, record_id, ()))
    except PermanentError as error:
        if error.code == "not_found":
            return None
        raise
    return sdk.format_soql("ContactId = {} AND IsClosed = false", contact.id)
