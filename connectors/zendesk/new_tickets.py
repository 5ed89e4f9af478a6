"""Action that creates tickets: one per conversation, to which later events of the conversation add comments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from bridge.connector import (
    ContactDeleted,
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
from bridge.errors import DeliveryError, PermanentError

from .account import Account
from .comments import Comment, CommentParams, build_comment
from .errors import MISSING, REQUESTER
from .fields import TicketFieldsParams, normalize_tags, ticket_values
from .requesters import Requesters
from .settings import connector
from .tickets import (
    KEY_LIFETIME,
    LOOKUP_DELAY,
    ON_CLOSED,
    OnClosed,
    add_voice,
    event_reference,
    find_update,
    follow_up,
    found,
    may_be_done,
    post_ticket,
    put_ticket,
    unless_closed,
)

_MAX_SUBJECT_LENGTH = 150
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


@connector.action(idempotency=per_conversation, idempotent=KEY_LIFETIME, lookup_delay=LOOKUP_DELAY)
def create_ticket(account: Account, params: CreateTicketParams, context: Context) -> Success:
    """Create a ticket of the contact, once per conversation. Later events of the conversation add a comment to it."""
    reference = context.idempotency_token
    if context.existing_id is not None:
        try:
            return _add_event(account, params, context, context.existing_id)
        except PermanentError as error:
            if error.code != MISSING:
                raise
            reference = event_reference(context)  # agents have deleted the ticket
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
            return {key: ContactDeleted()}

    return write_for_contact(Requesters(account), key, query, write)


@create_ticket.lookup
def find_ticket(account: Account, params: CreateTicketParams, context: Context) -> Success | None:
    """Find the ticket by its external ID, or the update of an existing one by the reference in its audits."""
    comment = _comment(params, context, None)
    if context.existing_id is not None:
        return find_update(account, context.existing_id, comment, event_reference(context), context)
    ticket_id = account.find_ticket(context.idempotency_token)
    return found(account, ticket_id, comment, context.idempotency_token) if ticket_id is not None else None


def _create(
    account: Account,
    params: CreateTicketParams,
    query: ContactQuery,
    contact: ContactRef | None,
    reference: str,
) -> Success:
    context = query.context
    comment = _comment(params, context, contact)
    whole_subject = params.display_subject(query)
    subject = shorten(whole_subject, _MAX_SUBJECT_LENGTH)
    values: dict[str, Any] = ticket_values(account, params) | {"subject": subject}
    if contact is not None:
        values["requester_id"] = int(contact.id)
    if tags := normalize_tags(params.tags):
        values["tags"] = tags
    ticket_id = post_ticket(account, values, comment, params.public, reference, context)
    notes = ["created", *add_voice(account, ticket_id, comment, context, reference)]
    if subject != whole_subject:
        notes.append("the subject was shortened")
    return Success(id=ticket_id, detail="; ".join(notes))


def _add_event(account: Account, params: CreateTicketParams, context: Context, ticket_id: str) -> Success:
    """Add what a later event says to the conversation's ticket. Its fields stay as the agents have set them."""
    comment = _comment(params, context, None)
    reference = event_reference(context)

    def write() -> Success:
        if not (may_be_done(context) and account.has_update(ticket_id, reference)):
            body = {"body": comment.text, "public": params.public}
            put_ticket(account, ticket_id, {"comment": body}, reference)
        notes = add_voice(account, ticket_id, comment, context, reference)
        return Success(id=ticket_id, detail="; ".join(["comment added", *notes]))

    def closed() -> Success:
        return follow_up(account, ticket_id, {}, comment, params.public, context)

    return unless_closed(write, closed, params.on_closed, ticket_id)


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
