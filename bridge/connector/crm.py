"""Params and steps shared by the actions of every CRM: for a call, a chat, a contact and a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime

from bridge.connector.action import BatchItem, Success
from bridge.connector.contacts import (
    ContactLookupParams,
    ContactQuery,
    ContactRef,
    FieldValue,
    Properties,
    Property,
    fields_to_write,
)
from bridge.connector.context import Context
from bridge.connector.params import Params, param
from bridge.connector.texts import first_line, text_with_details
from bridge.errors import PermanentError
from bridge.setting_types import Duration

P = TypeVar("P", bound=Params)

_MAX_DERIVED_SUBJECT = 100
CONTACT_OWNER = "contact"
"""Value of `owner` for the owner of the contact."""
ON_MISSING: Any = param(
    "skip", "If the CRM has no such record: `skip` the action, or fail with an `error`.", example="error"
)
"""The default of a param `on_missing: OnMissing`."""


def owner_param(id_pattern: str, id_example: str) -> Any:
    """Return the param `owner` of a CRM whose owner IDs match `id_pattern` (without anchors)."""
    return param(
        CONTACT_OWNER,
        "Owner of the record: `contact` (the owner of the contact that was found), an owner's email address, or an "
        "owner's ID.",
        example="ana@example.com",
        pattern=rf"^({CONTACT_OWNER}|[^@\s]+@[^@\s]+|{id_pattern})$",
        must_be=f"`{CONTACT_OWNER}`, an owner's email address, or an owner's ID like {id_example}",
    )


class NewContactParams(ContactLookupParams):
    """Params of an action that creates the contact if the CRM has none."""

    new_contact: Properties = param(
        {},
        "Additional fields of a contact that this action creates: `field: value`. An existing contact is left alone.",
        example={"lifecyclestage": "lead"},
    )

    def contact_query(self, context: Context, *, create: bool, scope: str = "") -> ContactQuery:
        """Return the query that finds this contact, with the fields to write if it is created."""
        query = super().contact_query(context, create=create, scope=scope)
        return replace(query, new_fields=fields_to_write(self.new_contact, None))


class ConversationParams(NewContactParams):
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
    owner: str | None = owner_param(r"[A-Za-z0-9]+", "41629779")
    transcript: str | None = param(
        None,
        "Transcript, which is written in full. Default: none; Heppu's is `{{ details.transcript }}`.",
        example="Agent: Good morning.",
    )

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the labeled values that follow the summary."""
        return {
            "Agent": context.event.fields.get("agentName"),
            "Outcome": self.outcome,
            "Conversation": context.event.conversation.id,
        }

    def body_text(self, context: Context, contact: ContactRef | None, max_length: int) -> str:
        """Return summary and details in at most `max_length` characters.

        A longer summary ends in `…`; the details are not cut. They include the name that the event gives if the
        contact has another one.
        """
        values = {"Name given": contact.given_name if contact else "", **self.details(context)}
        return text_with_details(self.summary, values, max_length)

    def additional_fields(self, context: Context) -> dict[str, FieldValue]:
        """Return the additional fields to write.

        An update leaves `fill` out: the bridge filled these fields when it created the record.
        """
        is_new = context.existing_id is None
        properties = {
            name: item for name, item in self.properties.items() if is_new or item.mode == "overwrite"
        }
        return fields_to_write(properties, None)


class PhoneCallParams(Params):
    """A phone call: its times, numbers and recording."""

    direction: str | None = param("{{ event.direction }}", "`inbound` or `outbound`.", example="inbound")
    duration: float | None = param("{{ event.duration }}", "Duration in seconds.", example=125)
    from_number: str | None = param(
        None, "Number of the caller. Default: derived from the direction.", example="+14155550123"
    )
    to_number: str | None = param(
        None, "Number that was called. Default: derived from the direction.", example="+14155550100"
    )
    started_at: AwareDatetime | None = param(
        None,
        "Start of the call (ISO 8601 with time zone). Default: the time of the event minus the duration.",
        example="2026-03-02T15:00:00Z",
    )
    recording_url: str | None = param(
        None,
        "URL of the recording. Default: none; Heppu's is `{{ details.recordingUrl }}`.",
        example="https://example.com/1.mp3",
    )

    @property
    def is_outbound(self) -> bool | None:
        """True if the agent placed the call; None if the event does not say."""
        return {"outbound": True, "inbound": False}.get((self.direction or "").lower())

    def duration_seconds(self) -> float | None:
        """Return the duration of the call, never negative."""
        return None if self.duration is None else max(0.0, self.duration)

    def start(self, context: Context) -> datetime:
        """Return when the call began. Heppu sends the event when the call has ended."""
        if self.started_at is not None:
            return self.started_at
        # A duration of more than a day cannot be one; the record then appears at the time of the event.
        seconds = self.duration_seconds() or 0.0
        return context.event.occurred_at - timedelta(seconds=seconds if seconds <= 86_400 else 0)

    def contact_number(self, context: Context) -> str | None:
        """Return the number of the contact, by default the event's."""
        return context.contact.phone

    def caller_and_callee(self, context: Context) -> tuple[str | None, str | None]:
        """Return the numbers of both parties: an outbound call goes from the agent's number to the contact's."""
        agent_number = context.event.fields.get("agentNumber")
        agent = agent_number if isinstance(agent_number, str) else None
        contact = self.contact_number(context)
        caller, callee = (agent, contact) if self.is_outbound else (contact, agent)
        return self.from_number or caller, self.to_number or callee


class CallParams(PhoneCallParams, ConversationParams):
    """Params of a phone call."""

    status: str | None = param(
        "{{ event.status }}", "Call status, as reported by Heppu.", example="no_answer"
    )
    call_type: str | None = param(
        None, "Type of the call, one of those that the CRM account has.", example="Support call"
    )

    @property
    def normalized_status(self) -> str:
        """The status in one spelling: Heppu sends both `no-answer` and `no_answer`."""
        return (self.status or "").lower().replace("-", "_")

    def contact_number(self, context: Context) -> str | None:
        """Return the number of the contact that the rule looks for."""
        del context
        return self.phone

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
    comment: str | None = param(
        "{{ event.chatMetadata.feedback.comment | truncate(1000) }}",
        "The visitor's comment on the rating, if any.",
        example="Quick and clear, thank you.",
    )

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the labeled values that follow the summary."""
        rating = None if self.rating is None else f"{self.rating:g}"
        feedback = {"Rating": rating, "Comment": self.comment}
        return {"Messages": self.messages, **feedback, **super().details(context)}

    def display_title(self, context: Context) -> str:
        """Return the title, by default `Chat: Harbor help desk`."""
        return self.title or f"Chat: {agent_name(context)}"


class ContactParams(ContactLookupParams):
    """Params of a contact. Values of the event only fill empty fields.

    An action that may create the contact inherits from NewContactParams as well; one that only updates adds
    `on_missing: OnMissing = ON_MISSING`.
    """

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


class TaskParams(NewContactParams):
    """Params of a task for a colleague."""

    subject: str = param(
        "Call {{ contact.name | default('back') }}", "Task title.", example="Send the invoice", max_length=255
    )
    text: str | None = param("{{ event.summary }}", "Task description.", example="Wants it by email.")
    due: Duration = param(
        "1d", "Time from the event until the task is due.", example="2h", validate_default=True
    )
    properties: Properties = param({}, "Additional fields of the task.", example={"Type": "Call"})
    owner: str | None = owner_param(r"[A-Za-z0-9]+", "41629779")

    def due_at(self, context: Context) -> datetime:
        """Return the due time. It is relative to the event, so a late attempt does not change it."""
        return context.event.occurred_at + self.due

    def body(self, context: Context, contact: ContactRef | None, max_length: int) -> str:
        """Return the description and what the contact's record does not say, in at most `max_length` characters."""
        return text_with_details(self.text, _details(context, contact), max_length)


class NewTicketParams(ContactLookupParams):
    """Params of a ticket or case, of which a conversation has one."""

    subject: str | None = param(
        None,
        "Subject. Default: the first line of the text, or the kind of conversation and the person.",
        example="Wants to return a bike",
    )
    text: str | None = param(
        "{{ event.summary }}",
        "Description; the conversation ID is added to it.",
        example="Wants it by email.",
    )

    def display_subject(self, query: ContactQuery) -> str:
        """Return the subject, by default the first line of the text, or `Call with Maya Lindqvist`."""
        if subject := self.subject or first_line(self.text, _MAX_DERIVED_SUBJECT):
            return subject
        kind = "Chat" if query.context.event.conversation.type == "chat" else "Call"
        # An event without email and phone still has a name.
        person = query.name or query.phone or query.email or query.context.contact.name
        return f"{kind} with {person or 'an unknown person'}"

    def body(self, context: Context, contact: ContactRef | None, max_length: int) -> str:
        """Return the description and what the contact's record does not say, in at most `max_length` characters."""
        return text_with_details(self.text, _details(context, contact), max_length, separator="\n\n")


class SentMessageParams(NewContactParams):
    """Params of a message that a rule has sent. Everything comes from the delivery, under `on_success`."""

    body: str = param("{{ delivery.text }}", "Text of the message.", example="Your order has shipped.")
    channel: Literal["sms", "whatsapp", "email"] = param(
        "{{ delivery.channel }}", "How it was sent: `sms`, `whatsapp` or `email`.", example="sms"
    )
    subject: str | None = param(
        "{{ delivery.subject }}",
        "Subject of an email. Without one: the first line of the text.",
        example="Your order",
    )
    sent_at: AwareDatetime | None = param(
        "{{ delivery.sent_at }}",
        "When it was sent (ISO 8601 with time zone). Default: outside `on_success`, the time of the event.",
        example="2026-03-02T15:00:00Z",
    )

    def time(self, context: Context) -> datetime:
        """Return when it was sent."""
        return self.sent_at or context.event.occurred_at

    @property
    def title(self) -> str:
        """The subject, or else the first line of the text."""
        return first_line(self.subject or self.body, _MAX_DERIVED_SUBJECT)


OnMissing = Literal["skip", "error"]
"""What an action that only updates records does if the record does not exist."""


def _details(context: Context, contact: ContactRef | None) -> Mapping[str, object]:
    """Return the name that the event gives if the contact has another one, and the conversation ID."""
    return {
        "Name given": contact.given_name if contact else "",
        "Conversation": context.event.conversation.id,
    }


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
