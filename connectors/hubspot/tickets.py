"""Action that closes tickets."""

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
    param,
    per_event,
)
from bridge.errors import LookupInconclusive, PermanentError

from .account import BATCH_SIZE, Account
from .contact_source import Contacts
from .lenient_writes import refused_values, update_leniently
from .property_values import fit_properties
from .scopes import CONTACTS_READ, TICKETS
from .settings import connector


class CloseTicketParams(ContactLookupParams):
    """A ticket to close."""

    ticket: str | None = param(
        "{{ event.metadata.ticketId }}",
        "Ticket ID, from the event's metadata by default.",
        example="1209876543",
        pattern=r"^\d+$",
        must_be="a HubSpot ticket ID (digits only)",
    )
    without_id: Literal["error", "review", "newest"] = param(
        "error",
        "If the event has no ticket ID: `error` fails; `newest` closes the contact's newest open ticket; `review` "
        "closes the contact's only open ticket and asks the operator if there are several.",
        example="newest",
    )
    on_missing: OnMissing = ON_MISSING
    properties: Properties = param(
        {}, "Additional fields of the ticket.", example={"hs_resolution": "ISSUE_FIXED"}
    )

    def missing(self, detail: str) -> Success:
        """Return the result of a ticket that does not exist. Raise PermanentError with `on_missing: error`."""
        if self.on_missing == "error":
            raise PermanentError(detail, code="not_found")
        return Success(id=self.ticket, detail=detail)


@connector.action(idempotency=per_event, idempotent=True, needs=(CONTACTS_READ, TICKETS))
def close_ticket(account: Account, params: CloseTicketParams, context: Context) -> Success:
    """Move a ticket to the closed stage of its pipeline."""
    closed_stages = account.ticket_stages.closed()
    if params.ticket:
        ids = [params.ticket]
    elif params.without_id == "error":
        raise PermanentError(
            "the event has no ticket ID: set `ticket`, or `without_id: newest` for the contact's newest open ticket",
            code="no_ticket_id",
        )
    else:
        try:
            contact, _ = Contacts(account).resolve(params.contact_query(context, create=False))
        except PermanentError as error:
            if error.code != "not_found":
                raise
            return params.missing(f"no ticket closed: {error.detail}")
        page = account.associations.get_page("contacts", contact.id, "tickets", limit=BATCH_SIZE)
        ids = [str(association.to_object_id) for association in page.results]
    fields = ("hs_pipeline", "hs_pipeline_stage", *params.properties)
    tickets = account.read("tickets", ids, fields=fields) if ids else []
    if params.ticket and not tickets:
        return params.missing("HubSpot has no ticket with this ID")
    open_tickets = [
        ticket for ticket in tickets if ticket.properties["hs_pipeline_stage"] not in closed_stages
    ]
    if not open_tickets:
        return Success(id=params.ticket, detail="no open ticket")
    if len(open_tickets) > 1 and params.without_id == "review":
        raise LookupInconclusive(
            f"the contact has {len(open_tickets)} open tickets: close the right one, or set `without_id: newest`"
        )
    newest = max(open_tickets, key=lambda ticket: int(ticket.id))
    pipeline_id = newest.properties["hs_pipeline"]
    stage_id = next((stage for stage, pipeline in closed_stages.items() if pipeline == pipeline_id), None)
    if stage_id is None:
        raise PermanentError(
            f"ticket pipeline {pipeline_id} has no closed stage: add one in HubSpot", code="no_closed_stage"
        )
    values = fields_to_write(params.properties, newest.properties)
    of_rule = fit_properties(account, "tickets", values, context)
    outcome = update_leniently(
        account.objects,
        "tickets",
        str(newest.id),
        {**of_rule.values, "hs_pipeline_stage": stage_id},
        optional=(),
        of_rule=of_rule.values.keys(),
    )
    if outcome.error is not None:
        raise outcome.error
    notes = [*of_rule.notes, *refused_values(outcome.refused, of_rule.values)]
    return Success(id=str(newest.id), detail="; ".join(["closed", *notes]))
