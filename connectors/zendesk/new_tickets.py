"""Action that creates tickets: one per conversation, to which later events of the conversation add comments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from bridge.connector import (
    ContactQuery,
    ContactRef,
    Context,
    NewTicketParams,
    Success,
    param,
    per_conversation,
    shorten,
    write_for_contact,
)
from bridge.errors import DeliveryError, PermanentError, TransientError

from .account import Account
from .comments import Comment, CommentParams, build_comment, without_placeholders
from .errors import MISSING, REQUESTER
from .fields import TicketFieldsParams, normalize_tags, ticket_values
from .requesters import Requesters
from .settings import connector
from .tickets import LOOKUP_DELAY, ON_CLOSED, OnClosed, TicketWriter, unless_closed

_MAX_SUBJECT_LENGTH = 150
_INDEX_LAG = timedelta(minutes=1)
"""Time for which the search may still return a user who was deleted or merged."""
_REQUESTER_GONE = "the requester was deleted or merged in Zendesk, and is searched for again"
_NO_USER = "no ticket: Zendesk has no such user"


class CreateTicketParams(CommentParams, TicketFieldsParams, NewTicketParams):
    """A ticket to create."""

    brand: str | None = param(
        None, "Name or ID of the brand. Default: the account's.", example="Harbor Bikes"
    )
    form: str | None = param(
        None, "Name or ID of the ticket form. Default: the account's.", example="Repairs"
    )
    on_missing: Literal["create", "skip"] = param(
        "create", "If Zendesk has no such user: `create` one, or `skip` the ticket.", example="skip"
    )
    on_closed: OnClosed = ON_CLOSED

    def contact_number(self, context: Context) -> str | None:
        """Return the number of the requester."""
        del context
        return self.phone


@connector.action(idempotency=per_conversation, lookup_delay=LOOKUP_DELAY)
def create_ticket(account: Account, params: CreateTicketParams, context: Context) -> Success:
    """Create a ticket of the contact, once per conversation. Later events of the conversation add a comment to it."""
    reference = context.idempotency_token
    if context.existing_id is not None:
        writer = TicketWriter(account, context, _comment(params, context, None), params.public)
        try:
            return _add_event(writer, context.existing_id, params.on_closed)
        except PermanentError as error:
            if error.code != MISSING:
                raise
        reference = writer.reference  # agents have deleted the ticket
    query = params.contact_query(context, create=params.on_missing == "create")
    key = context.conversation_key

    def write(contacts: Mapping[str, ContactRef | None]) -> dict[str, Success | DeliveryError]:
        contact = contacts[key]
        if contact is None and params.on_missing == "skip":
            return {key: Success(detail=_NO_USER)}
        try:
            return {key: _create(account, params, query, contact, reference)}
        except PermanentError as error:
            if error.code != REQUESTER or contact is None:
                raise
        query.forget()
        return {key: TransientError(_REQUESTER_GONE, retry_after=_INDEX_LAG)}

    return write_for_contact(Requesters(account), key, query, write)


@create_ticket.lookup
def find_ticket(account: Account, params: CreateTicketParams, context: Context) -> Success | None:
    """Find what an attempt wrote that ended before its first step was recorded."""
    if context.existing_id is not None:
        writer = TicketWriter(account, context, _comment(params, context, None), params.public)
        return writer.find_update(context.existing_id)
    ticket_id = account.find_ticket(context.idempotency_token)
    return Success(id=ticket_id, detail="found by its external ID") if ticket_id is not None else None


def _create(
    account: Account,
    params: CreateTicketParams,
    query: ContactQuery,
    contact: ContactRef | None,
    reference: str,
) -> Success:
    whole_subject = without_placeholders(params.display_subject(query))
    subject = shorten(whole_subject, _MAX_SUBJECT_LENGTH)
    values, left_out = ticket_values(account, params)
    values["subject"] = subject
    if contact is not None:
        values["requester_id"] = int(contact.id)
    if tags := normalize_tags(params.tags):
        values["tags"] = tags
    writer = TicketWriter(account, query.context, _comment(params, query.context, contact), params.public)
    ticket_id = writer.create(values, reference)
    notes = ["created", *writer.add_recording(ticket_id), *left_out]
    if subject != whole_subject:
        notes.append("the subject was shortened")
    return Success(id=ticket_id, detail="; ".join(notes))


def _add_event(writer: TicketWriter, ticket_id: str, on_closed: OnClosed) -> Success:
    """Add what a later event says to the conversation's ticket. Its fields stay as the agents have set them."""

    def write() -> Success:
        writer.update(ticket_id, {"comment": {"body": writer.comment.text, "public": writer.public}})
        notes = writer.add_recording(ticket_id)
        return Success(id=ticket_id, detail="; ".join(["comment added", *notes]))

    return unless_closed(write, lambda: writer.follow_up(ticket_id, {}), on_closed, ticket_id)


def _comment(params: CreateTicketParams, context: Context, contact: ContactRef | None) -> Comment:
    """Return the comment: the text, and what the ticket itself does not say."""
    fields = context.event.fields
    kind = "Chat" if context.event.conversation.type == "chat" else "Call"
    details = {
        "Name given": contact.given_name if contact else "",
        "Agent": fields.get("agentName"),
        f"{kind} status": fields.get("status"),
        "Conversation": context.event.conversation.id,
    }
    return build_comment(params, context, params.text, details)
