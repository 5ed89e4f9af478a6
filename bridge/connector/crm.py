"""What the actions of every CRM have in common: the params of a call, a chat, a contact and a task, and their text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.connector.api import param
from bridge.connector.contacts import ContactLookupParams, Properties, Property
from bridge.connector.context import Context
from bridge.settings import Duration


class ConversationParams(ContactLookupParams):
    """What a call and a chat have in common."""

    title: str | None = param(None, "The headline; made of the event when left out.", example="Support")
    summary: str | None = param(
        "{{ event.summary }}", "What it was about.", example="Wants a receipt by mail."
    )
    outcome: str | None = param("{{ event.outcome }}", "How it ended, in Heppu's word.", example="resolved")
    properties: Properties = param(
        {},
        "Further fields of the record: `field: value`, or `field: {value: ..., mode: fill}`.",
        example={"campaign": "{{ event.callMetadata.context.campaignType }}"},
    )

    def facts(self, context: Context) -> Mapping[str, object]:
        """What is said below the summary."""
        return {"Outcome": self.outcome, "Conversation": context.event.conversation.id}

    def text(self, context: Context, room: int) -> str:
        """Summary and facts in at most `room` characters: the summary is cut, the facts are not."""
        facts = "\n".join(f"{name}: {value}" for name, value in self.facts(context).items() if value)
        summary = (self.summary or "").strip()[: max(0, room - len(facts) - 1)]
        return f"{summary}\n{facts}".strip()[:room]

    def further(self, context: Context) -> Mapping[str, Property]:
        """The further fields to write: our record was filled when it was made, so an update leaves `fill` alone."""
        if context.existing_id is None:
            return self.properties
        return {name: item for name, item in self.properties.items() if item.mode == "overwrite"}


class CallParams(ConversationParams):
    """A phone call."""

    direction: str | None = param("{{ event.direction }}", "`inbound` or `outbound`.", example="inbound")
    status: str | None = param(
        "{{ event.status }}", "Heppu's word for how the line ended.", example="no_answer"
    )
    duration: float | None = param("{{ event.duration }}", "Seconds.", example=125)
    from_number: str | None = param(
        None, "Who called; from the direction when left out.", example="+14155550123"
    )
    to_number: str | None = param(
        None, "Who was called; from the direction when left out.", example="+14155550100"
    )

    @property
    def line(self) -> str:
        """The status in one spelling: Heppu writes `no-answer` and `no_answer`."""
        return (self.status or "").lower().replace("-", "_")

    @property
    def outbound(self) -> bool | None:
        """Whether we called; None when the event does not say."""
        return {"outbound": True, "inbound": False}.get((self.direction or "").lower())

    def seconds(self) -> float | None:
        """The length of the call, never negative."""
        return None if self.duration is None else max(0.0, self.duration)

    def numbers(self, context: Context) -> tuple[str | None, str | None]:
        """From whom to whom: an outbound call goes from the agent's number to the person's."""
        agent = context.event.body.get("agentNumber")
        ours = agent if isinstance(agent, str) else None
        caller, called = (ours, self.phone) if self.outbound else (self.phone, ours)
        return self.from_number or caller, self.to_number or called

    def headline(self, context: Context) -> str:
        """`Outbound call with Nora: no answer`."""
        kind = {True: "Outbound call", False: "Inbound call"}.get(self.outbound, "Call")  # type: ignore[arg-type]
        ended = f": {self.line.replace('_', ' ')}" if self.line else ""
        return self.title or f"{kind} with {agent_of(context)}{ended}"


class ChatParams(ConversationParams):
    """A chat."""

    messages: int | None = param("{{ event.messageCount }}", "How many messages were exchanged.", example=12)
    rating: float | None = param(
        "{{ event.chatMetadata.feedback.rating }}", "The visitor's rating, if there is one.", example=5
    )

    def facts(self, context: Context) -> Mapping[str, object]:
        """What is said below the summary."""
        rating = None if self.rating is None else f"{self.rating:g}"
        return {"Messages": self.messages, "Rating": rating, **super().facts(context)}

    def headline(self, context: Context) -> str:
        """`Chat: Harbour help desk`."""
        return self.title or f"Chat: {agent_of(context)}"


class ContactParams(ContactLookupParams):
    """A person, and what to write about them; what the event says only fills empty fields."""

    first_name: str | None = param("{{ contact.first_name }}", "Fills an empty first name.", example="Maya")
    last_name: str | None = param("{{ contact.last_name }}", "Fills an empty last name.", example="Lindqvist")
    properties: Properties = param(
        {},
        "Further fields of the contact: `field: value`, or `field: {value: ..., mode: fill}`.",
        example={"jobtitle": {"value": "Buyer", "mode": "fill"}},
    )

    def fields(self, **own: str | None) -> dict[str, Property]:
        """All that is to be written, `own` being the CRM's names for what the event says."""
        given = {name: Property(value=value, mode="fill") for name, value in own.items()}
        return given | self.properties


class TaskParams(ContactLookupParams):
    """Something for a colleague to do."""

    subject: str = param(
        "Call {{ contact.name | default('back') }}", "What to do.", example="Send the receipt", max_length=255
    )
    text: str | None = param("{{ event.summary }}", "More about it.", example="Wants it by mail.")
    due: Duration = param("1d", "How long after the event it is due.", example="2h", validate_default=True)
    properties: Properties = param({}, "Further fields of the task.", example={"Type": "Call"})

    def due_at(self, context: Context) -> datetime:
        """When it is due: counted from the event, so that a late attempt does not move it."""
        return context.event.occurred_at + self.due

    def body(self, context: Context) -> str:
        """The text and where it comes from."""
        return f"{self.text or ''}\nConversation: {context.event.conversation.id}".strip()


def agent_of(context: Context) -> str:
    """The agent's name, as people know it."""
    name: Any = context.event.body.get("agentName")
    return name if isinstance(name, str) and name else "Heppu"
