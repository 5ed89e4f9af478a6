"""Params and steps shared by the actions of every CRM: for a call, a chat, a contact and a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from typing import Any, TypeVar

from bridge.connector.api import BatchItem, Success
from bridge.connector.contacts import (
    ContactLookupParams,
    ContactRef,
    Properties,
    Property,
    Scalar,
    fields_to_write,
)
from bridge.connector.context import Context
from bridge.connector.params import param
from bridge.errors import PermanentError
from bridge.settings import Duration

P = TypeVar("P", bound="ConversationParams")


class ConversationParams(ContactLookupParams):
    """Params shared by a call and a chat."""

    title: str | None = param(
        None, "Title of the record. Default: derived from the event.", example="Support"
    )
    summary: str | None = param(
        "{{ event.summary }}", "Summary of the conversation.", example="Wants an invoice by email."
    )
    outcome: str | None = param("{{ event.outcome }}", "Outcome, as reported by Heppu.", example="resolved")
    properties: Properties = param(
        {},
        "Additional fields of the record: `field: value`, or `field: {value: ..., mode: fill}`.",
        example={"campaign": "{{ event.callMetadata.context.campaignType }}"},
    )

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the labeled values that follow the summary."""
        return {"Outcome": self.outcome, "Conversation": context.event.conversation.id}

    def body_text(self, context: Context, contact: ContactRef | None, max_length: int) -> str:
        """Return summary and details in at most `max_length` characters.

        A longer summary ends in `…`; the details are not cut. They include the name that the event gives if the
        contact has another one.
        """
        values = {"Name given": contact.given_name if contact else "", **self.details(context)}
        details = "\n".join(f"{label}: {value}" for label, value in values.items() if value)
        summary, room = (self.summary or "").strip(), max(0, max_length - len(details) - 1)
        if len(summary) > room:
            summary = f"{summary[: max(0, room - 1)]}…"
        return f"{summary}\n{details}".strip()[:max_length]

    def additional_fields(self, context: Context) -> dict[str, Scalar]:
        """Return the additional fields to write.

        An update leaves `fill` out: the bridge filled these fields when it created the record.
        """
        is_new = context.existing_id is None
        properties = {
            name: item for name, item in self.properties.items() if is_new or item.mode == "overwrite"
        }
        return fields_to_write(properties, None)


class CallParams(ConversationParams):
    """Params of a phone call."""

    direction: str | None = param("{{ event.direction }}", "`inbound` or `outbound`.", example="inbound")
    status: str | None = param(
        "{{ event.status }}", "Call status, as reported by Heppu.", example="no_answer"
    )
    duration: float | None = param("{{ event.duration }}", "Duration in seconds.", example=125)
    from_number: str | None = param(
        None, "Number of the caller. Default: derived from the direction.", example="+14155550123"
    )
    to_number: str | None = param(
        None, "Number that was called. Default: derived from the direction.", example="+14155550100"
    )

    @property
    def normalized_status(self) -> str:
        """The status in one spelling: Heppu sends both `no-answer` and `no_answer`."""
        return (self.status or "").lower().replace("-", "_")

    @property
    def is_outbound(self) -> bool | None:
        """True if the agent placed the call; None if the event does not say."""
        return {"outbound": True, "inbound": False}.get((self.direction or "").lower())

    def duration_seconds(self) -> float | None:
        """Return the duration of the call, never negative."""
        return None if self.duration is None else max(0.0, self.duration)

    def caller_and_callee(self, context: Context) -> tuple[str | None, str | None]:
        """Return the numbers of both parties: an outbound call goes from the agent's number to the contact's."""
        agent_number = context.event.fields.get("agentNumber")
        agent = agent_number if isinstance(agent_number, str) else None
        caller, callee = (agent, self.phone) if self.is_outbound else (self.phone, agent)
        return self.from_number or caller, self.to_number or callee

    def display_title(self, context: Context) -> str:
        """Return the title, by default `Outbound call with Nora: no answer`."""
        kind = {True: "Outbound call", False: "Inbound call"}.get(self.is_outbound, "Call")  # type: ignore[arg-type]
        status = f": {self.normalized_status.replace('_', ' ')}" if self.normalized_status else ""
        return self.title or f"{kind} with {agent_name(context)}{status}"


class ChatParams(ConversationParams):
    """Params of a chat."""

    messages: int | None = param("{{ event.messageCount }}", "Number of messages exchanged.", example=12)
    rating: float | None = param(
        "{{ event.chatMetadata.feedback.rating }}", "Rating by the visitor, if any.", example=5
    )

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the labeled values that follow the summary."""
        rating = None if self.rating is None else f"{self.rating:g}"
        return {"Messages": self.messages, "Rating": rating, **super().details(context)}

    def display_title(self, context: Context) -> str:
        """Return the title, by default `Chat: Harbor help desk`."""
        return self.title or f"Chat: {agent_name(context)}"


class ContactParams(ContactLookupParams):
    """Params of a contact. Values of the event only fill empty fields."""

    first_name: str | None = param(
        "{{ contact.first_name }}", "Written if the first name is empty.", example="Maya"
    )
    last_name: str | None = param(
        "{{ contact.last_name }}", "Written if the last name is empty.", example="Lindqvist"
    )
    properties: Properties = param(
        {},
        "Additional fields of the contact: `field: value`, or `field: {value: ..., mode: fill}`.",
        example={"jobtitle": {"value": "Buyer", "mode": "fill"}},
    )

    def contact_fields(self, **event_values: str | None) -> dict[str, Property]:
        """Return all fields to write: `event_values`, under the CRM's field names, and the additional fields."""
        fill = {name: Property(value=value, mode="fill") for name, value in event_values.items()}
        return fill | self.properties


class TaskParams(ContactLookupParams):
    """Params of a task for a colleague."""

    subject: str = param(
        "Call {{ contact.name | default('back') }}", "Task title.", example="Send the invoice", max_length=255
    )
    text: str | None = param("{{ event.summary }}", "Task description.", example="Wants it by email.")
    due: Duration = param(
        "1d", "Time from the event until the task is due.", example="2h", validate_default=True
    )
    properties: Properties = param({}, "Additional fields of the task.", example={"Type": "Call"})

    def due_at(self, context: Context) -> datetime:
        """Return the due time. It is relative to the event, so a late attempt does not change it."""
        return context.event.occurred_at + self.due

    def body(self, context: Context, contact: ContactRef | None) -> str:
        """Return the description, the name that the event gives if the contact has another one, and the conversation
        ID."""
        name = f"\nName given: {contact.given_name}" if contact and contact.given_name else ""
        return f"{self.text or ''}{name}\nConversation: {context.event.conversation.id}".strip()


def agent_name(context: Context) -> str:
    """Return the agent's display name."""
    name: Any = context.event.fields.get("agentName")
    return name if isinstance(name, str) and name else "Heppu"


def items_by_conversation(items: Sequence[BatchItem[P]]) -> dict[str, BatchItem[P]]:
    """Return the items of a batch by the unique key of their conversation's record. Raise PermanentError if two
    items have the same key: the bridge then splits the batch."""
    by_key = {item.context.conversation_key: item for item in items}
    if len(by_key) < len(items):
        raise PermanentError("two events of one conversation in one batch", code="same_conversation")
    return by_key


def contact_result(contact: ContactRef, changes: Sized, notes: Sequence[str] = ()) -> Success:
    """Return the result of an action that has written `changes` to a contact, with notes on what was left out."""
    if contact.given_name:
        notes = [
            *notes,
            "the event gives another person's name, so only the rule's own properties are written",
        ]
    detail = contact.detail or ("updated" if changes else "nothing to update")
    return Success(id=contact.id, detail="; ".join([detail, *notes]))
