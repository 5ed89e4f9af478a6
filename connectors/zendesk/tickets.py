"""Writing tickets: each write is a step with a reference, by which its lookup finds out whether it took effect.

A new ticket has the reference as its external ID, an update in the metadata of its audit. The reference of an update
is one of the event, because several events of a conversation update one ticket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from bridge.connector import Context, Success, param
from bridge.errors import PermanentError, TransientError

from .account import REFERENCE, Account
from .comments import Comment
from .errors import CLOSED, OTHER_BODY

OnClosed = Literal["follow_up", "skip", "error"]
ON_CLOSED: Any = param(
    "follow_up",
    "If the ticket is closed, which cannot be changed: `follow_up` writes the comment to a new ticket that follows it "
    "up, as Zendesk does with a customer's reply; `skip` does nothing; `error` fails.",
    example="skip",
)
LOOKUP_DELAY = timedelta(seconds=15)
"""Zendesk may complete a request whose response was lost some seconds later."""
_KEY_IN_USE = timedelta(minutes=1)


@dataclass(frozen=True)
class TicketWriter:
    """Writes what one event says to a ticket."""

    account: Account
    context: Context
    comment: Comment
    public: bool

    @property
    def reference(self) -> str:
        """The reference of what this event writes."""
        source = f"{self.context.idempotency_key}|{self.context.event.dedupe_key}"
        return hashlib.sha256(source.encode()).hexdigest()[:32]

    def create(self, values: Mapping[str, Any], reference: str, text: str = "") -> str:
        """Create a ticket, with `text` as its comment if the event has none, and return its ID."""
        ticket = dict(values) | {
            "comment": {"body": self.comment.text or text, "public": self.public},
            "external_id": reference,
            "metadata": {REFERENCE: reference},
        }
        return str(
            self.context.step(
                f"create ticket {reference[:8]}",
                lambda: self._post(ticket, reference),
                lambda: self.account.find_ticket(reference),
            )
        )

    def update(self, ticket_id: str, values: Mapping[str, Any]) -> None:
        """Update a ticket."""
        self._put("update", ticket_id, values, self.reference)

    def find_update(self, ticket_id: str) -> Success | None:
        """Return the result of `update` if the ticket has it."""
        if not self.account.has_update(ticket_id, self.reference):
            return None
        return Success(id=ticket_id, detail="found by its reference")

    def add_recording(self, ticket_id: str, *, is_all: bool = False) -> list[str]:
        """Add the voice comment, if there is one, and return notes for the result.

        A refused one does not fail the delivery, unless it `is_all` that the delivery writes.
        """
        notes = list(self.comment.notes)
        if self.comment.voice is None:
            return notes
        values = {"voice_comment": self.comment.voice}
        try:
            self._put("add recording to", ticket_id, values, f"{self.reference}-voice")
        except PermanentError as error:
            if is_all:
                raise
            return [*notes, f"without the recording: {error.detail}"]
        return [*notes, "with the recording"]

    def follow_up(self, source_id: str, values: Mapping[str, Any]) -> Success:
        """Create a ticket that follows up a closed one, with its subject and requester."""
        source = self.account.api.read("/api/v2/tickets/{}", source_id, holds="ticket", kind=dict)
        inherited = {
            "via_followup_source_id": int(source_id),
            "subject": source.get("subject"),
            "requester_id": source.get("requester_id"),
        }
        ticket = {name: value for name, value in inherited.items() if value is not None} | dict(values)
        new_id = self.create(ticket, self.reference, text=f"Continues ticket #{source_id}.")
        notes = self.add_recording(new_id)
        return Success(id=new_id, detail="; ".join([f"follow-up of the closed ticket {source_id}", *notes]))

    def _post(self, ticket: Mapping[str, Any], reference: str) -> str:
        """Create a ticket and return its ID.

        Zendesk knows the idempotency key for two hours. Another body with the same key means that an earlier attempt
        has created the ticket with other values.
        """
        try:
            return str(
                self.account.api.write(
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
        ticket_id = self.account.find_ticket(reference)
        if ticket_id is None:
            raise TransientError(
                "Zendesk has the idempotency key and does not show its ticket yet", retry_after=_KEY_IN_USE
            )
        return ticket_id

    def _put(self, write: str, ticket_id: str, values: Mapping[str, Any], reference: str) -> None:
        ticket = dict(values) | {"metadata": {REFERENCE: reference}}

        def put() -> str:
            path = "/api/v2/tickets/{}"
            self.account.api.write("PUT", path, ticket_id, json={"ticket": ticket}, holds="ticket", kind=dict)
            return ticket_id

        self.context.step(
            f"{write} ticket {ticket_id} for {self.context.event.id}",
            put,
            lambda: ticket_id if self.account.has_update(ticket_id, reference) else None,
        )


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
