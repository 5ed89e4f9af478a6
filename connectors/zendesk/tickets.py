"""Writing tickets: each write carries a reference, by which a lookup finds out whether it took effect.

A new ticket has the reference as its external ID, an update in the metadata of its audit. The reference of an update
is one of the event, because several events of a conversation update one ticket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from bridge.connector import Context, Success, param
from bridge.errors import PermanentError, TransientError

from .account import REFERENCE, Account
from .comments import Comment
from .errors import CLOSED, MISSING, OTHER_BODY

OnClosed = Literal["follow_up", "skip", "error"]
ON_CLOSED: Any = param(
    "follow_up",
    "If the ticket is closed, which cannot be changed: `follow_up` writes the comment to a new ticket that follows it "
    "up, as Zendesk does with a customer's reply; `skip` does nothing; `error` fails.",
    example="skip",
)
LOOKUP_DELAY = timedelta(seconds=15)
"""Zendesk may complete a request whose response was lost some seconds later."""
KEY_LIFETIME = timedelta(hours=2)
"""How long Zendesk remembers an idempotency key."""
_FRESH = timedelta(hours=1)
_KEY_IN_USE = timedelta(minutes=1)


def event_reference(context: Context) -> str:
    """Return the reference of what one event writes."""
    return hashlib.sha256(f"{context.idempotency_key}|{context.event.dedupe_key}".encode()).hexdigest()[:32]


def voice_reference(reference: str) -> str:
    """Return the reference of the voice comment that follows another write."""
    return f"{reference}-voice"


def may_be_done(context: Context) -> bool:
    """Return whether a part of the action may have been done before: by an earlier attempt, or one long ago.

    An operator who runs a delivery again starts with a first attempt.
    """
    is_old = context.now - context.event.received_at > _FRESH
    return context.attempt > 1 or context.first_attempt_at < context.now or is_old


def post_ticket(
    account: Account,
    values: Mapping[str, Any],
    comment: Comment,
    public: bool,
    reference: str,
    context: Context,
) -> str:
    """Create a ticket, once, and return its ID.

    Zendesk knows the idempotency key for two hours; later, only the external ID shows that an earlier attempt has
    created the ticket. Another body with the same key means that it did so with other values.
    """
    if may_be_done(context) and (ticket_id := account.find_ticket(reference)) is not None:
        return ticket_id
    ticket = dict(values) | {
        "comment": {"body": comment.text, "public": public},
        "external_id": reference,
        "metadata": {REFERENCE: reference},
    }
    try:
        return str(
            account.api.write(
                "POST",
                "/api/v2/tickets",
                json={"ticket": ticket},
                headers={"Idempotency-Key": reference},
                holds="ticket.id",
                kind=int,
            )
        )
    except PermanentError as error:
        if error.code != OTHER_BODY:
            raise
    existing_id = account.find_ticket(reference)
    if existing_id is None:
        raise TransientError(
            "Zendesk has the idempotency key and does not show its ticket yet", retry_after=_KEY_IN_USE
        )
    return existing_id


def put_ticket(account: Account, ticket_id: str, values: Mapping[str, Any], reference: str) -> None:
    """Update a ticket."""
    ticket = dict(values) | {"metadata": {REFERENCE: reference}}
    account.api.write(
        "PUT", "/api/v2/tickets/{}", ticket_id, json={"ticket": ticket}, holds="ticket", kind=dict
    )


def add_voice(
    account: Account,
    ticket_id: str,
    comment: Comment,
    context: Context,
    reference: str,
    *,
    is_all: bool = False,
) -> tuple[str, ...]:
    """Add the voice comment, once, and return notes for the result.

    A refused one does not fail the delivery, unless it `is_all` that the delivery writes.
    """
    if comment.voice is None:
        return comment.notes
    own = voice_reference(reference)
    if may_be_done(context) and account.has_update(ticket_id, own):
        return comment.notes
    try:
        put_ticket(account, ticket_id, {"voice_comment": comment.voice}, own)
    except PermanentError as error:
        if is_all:
            raise
        return (*comment.notes, f"without the recording: {error.detail}")
    return (*comment.notes, "with the recording")


def follow_up(
    account: Account,
    source_id: str,
    values: Mapping[str, Any],
    comment: Comment,
    public: bool,
    context: Context,
) -> Success:
    """Create a ticket that follows up a closed one, with its subject and requester."""
    source = account.api.read("/api/v2/tickets/{}", source_id, holds="ticket", kind=dict)
    inherited = {
        "via_followup_source_id": int(source_id),
        "subject": source.get("subject"),
        "requester_id": source.get("requester_id"),
    }
    ticket = {name: value for name, value in inherited.items() if value is not None} | dict(values)
    reference = event_reference(context)
    if not comment.text:  # a recording alone; a new ticket needs a text
        comment = replace(comment, text=f"Continues ticket #{source_id}.")
    new_id = post_ticket(account, ticket, comment, public, reference, context)
    notes = add_voice(account, new_id, comment, context, reference)
    return Success(id=new_id, detail="; ".join([f"follow-up of the closed ticket {source_id}", *notes]))


def unless_closed(
    write: Callable[[], Success], closed: Callable[[], Success], on_closed: OnClosed, ticket_id: str
) -> Success:
    """Return the result of `write`, or what `on_closed` says if the ticket is closed."""
    try:
        return write()
    except PermanentError as error:
        if error.code != CLOSED or on_closed == "error":
            raise
    if on_closed == "skip":
        return Success(id=ticket_id, detail="nothing was written: the ticket is closed")
    return closed()


def find_update(
    account: Account, ticket_id: str, comment: Comment, reference: str, context: Context
) -> Success | None:
    """Return the result of an update if the ticket, or the one that replaces it, has everything that it writes."""
    try:
        is_updated = account.has_update(ticket_id, reference)
    except PermanentError as error:
        if error.code != MISSING:
            raise
        is_updated = False
    if is_updated:
        return found(account, ticket_id, comment, reference)
    new_id = account.find_ticket(event_reference(context))
    return None if new_id is None else found(account, new_id, comment, reference)


def found(account: Account, ticket_id: str, comment: Comment, reference: str) -> Success | None:
    """Return the result of a write that the ticket has; None if its voice comment is missing."""
    if comment.voice is not None and not account.has_update(ticket_id, voice_reference(reference)):
        return None
    return Success(id=ticket_id, detail="found by its reference")
