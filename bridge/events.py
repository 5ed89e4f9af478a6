"""Events: Heppu's webhook payloads, and the contact and conversation they are about.

Payloads are parsed leniently: any field may be absent, null or of another type, unknown fields are kept, and an unknown
event type is valid. The result is strict: a phone number is E.164 or None, an email address is one address or None, a
time zone exists or is None.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from bridge.clock import parse_timestamp
from bridge.contacts.parse import Contact, ParsedContact, UnreadableField, parse_contact, string_field
from bridge.json_values import parse_body

CALL_EVENTS: Final = ("call.completed", "call.failed", "call.busy", "call.no-answer")
CHAT_EVENTS: Final = ("chat.completed", "chat.resolved", "chat.abandoned")
EVENT_TYPES: Final = CALL_EVENTS + CHAT_EVENTS
"""The seven event types that Heppu documents."""

_ENVELOPE: Final = {
    "event": "string",
    "timestamp": "string",
    "webhookId": "string",
    "agentId": "string",
    "agentName": "string",
    "conversationId": "string",
    "conversationType": "string",
    "status": "string",
    "outcome": "string",
    "summary": "string",
    "duration": "number",
    "metadata": "object",
    "organizationId": "string",
}
_CALL: Final = {
    "direction": "string",
    "agentNumber": "string",
    "twilioCallSid": "string",
    "callMetadata": "object",
    "callMetadata.customer": "object",
    "callMetadata.customer.name": "string",
    "callMetadata.customer.company": "string",
    "callMetadata.customer.timezone": "string",
    "callMetadata.context": "object",
    "callMetadata.context.campaignType": "string",
    "callMetadata.context.priority": "string",
    "callMetadata.context.previousAttempts": "number",
    "callMetadata.context.maxAttempts": "number",
    "callMetadata.context.timezone": "string",
    "callMetadata.custom": "object",
    "callMetadata.timezone": "string",
    "metadata.contactName": "string",
    "metadata.contactPhone": "string",
    "metadata.contactEmail": "string",
    "metadata.timezone": "string",
}
_CHAT: Final = {
    "messageCount": "number",
    "chatMetadata": "object",
    "chatMetadata.widgetId": "string",
    "chatMetadata.resolved": "boolean",
    "chatMetadata.totalCost": "number",
    "chatMetadata.toolsUsed": "array",
    "chatMetadata.firstMessageAt": "string",
    "chatMetadata.lastMessageAt": "string",
    "chatMetadata.feedback": "object",
    "chatMetadata.feedback.rating": "number",
    "chatMetadata.feedback.comment": "string",
    "chatMetadata.goal": "object",
    "chatMetadata.goal.achieved": "boolean",
    "chatMetadata.goal.type": "string",
    "metadata.contactName": "string",
    "metadata.contactPhone": "string",
    "metadata.contactEmail": "string",
    "metadata.visitorId": "string",
    "metadata.ipAddress": "string",
    "metadata.userAgent": "string",
    "metadata.referrer": "string",
    "metadata.timezone": "string",
}
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    name: {**_ENVELOPE, **(_CALL if name in CALL_EVENTS else _CHAT)} for name in EVENT_TYPES
}
"""Event type -> its documented fields as dotted path -> JSON type, to check rules when they are loaded."""

FREE_FORM: Final = ("metadata", "callMetadata", "chatMetadata")
"""Objects whose fields are not checked, because Heppu's customers put their own data there."""


@dataclass(frozen=True)
class Conversation:
    """The phone call or chat that an event belongs to."""

    id: str
    type: str
    """`phone` or `chat`."""


@dataclass(frozen=True)
class Event:
    """One webhook as received. `body` is the parsed JSON, never changed."""

    body: Mapping[str, Any]
    dedupe_key: str
    """Equal for all requests with the same event: the signed `webhookId`, else the SHA-256 of the body."""
    received_at: datetime
    id: str = field(default="")
    """The bridge's ID (`evt_...`). The ID of a duplicate is never stored."""
    default_country: str | None = None
    """ISO 3166 code of the country whose national phone numbers are understood (BRIDGE_DEFAULT_COUNTRY)."""

    @property
    def type(self) -> str:
        """The event type as Heppu sent it, such as `call.no-answer`."""
        return str(self.body.get("event", ""))

    @cached_property
    def timestamp(self) -> datetime | None:
        """The signed `timestamp` of the body, or None if it is absent or invalid."""
        return parse_timestamp(self.body.get("timestamp"))

    @cached_property
    def occurred_at(self) -> datetime:
        """The time of the event: the timestamp of the body, but never later than `received_at`."""
        return min(self.timestamp or self.received_at, self.received_at)

    @cached_property
    def conversation(self) -> Conversation:
        """The conversation. An event without `conversationId` is a separate conversation."""
        kind = string_field(self.body, "conversationType")
        if kind not in ("phone", "chat"):
            kind = "chat" if self.type.startswith("chat.") else "phone"
        return Conversation(string_field(self.body, "conversationId") or self.dedupe_key, kind)

    @cached_property
    def _parsed_contact(self) -> ParsedContact:
        return parse_contact(self.body, self.default_country)

    @property
    def contact(self) -> Contact:
        """The contact, from `metadata`, `callMetadata.customer` and the flat `callMetadata` of scheduled calls."""
        return self._parsed_contact.contact

    @property
    def unreadable_fields(self) -> tuple[UnreadableField, ...]:
        """The fields of the contact that the event has and that could not be read."""
        return self._parsed_contact.unreadable

    @cached_property
    def fallback_dedupe_key(self) -> str | None:
        """A second key that does not depend on `webhookId`: event type, conversation and timestamp of the body."""
        conversation, stamp = string_field(self.body, "conversationId"), string_field(self.body, "timestamp")
        return f"{self.type}|{conversation}|{stamp}" if conversation and stamp else None


class StoredEvent(Event):
    """An event loaded from the database. Its body is parsed on first access, because few deliveries need it."""

    def __init__(
        self,
        raw: bytes,
        event_type: str,
        dedupe_key: str,
        received_at: datetime,
        event_id: str,
        default_country: str | None = None,
    ) -> None:
        vars(self).update(
            _raw=raw, _type=event_type, dedupe_key=dedupe_key, received_at=received_at, id=event_id,
            default_country=default_country,
        )  # fmt: skip

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """The parsed JSON."""
        return parse_body(vars(self)["_raw"])

    @property
    def type(self) -> str:
        """The event type as Heppu sent it, such as `call.no-answer`."""
        return str(vars(self)["_type"])


def dedupe_key_of(body: Mapping[str, Any], raw: bytes) -> str:
    """Return the signed `webhookId`, else the SHA-256 of the raw body. Headers are not signed and not used."""
    return string_field(body, "webhookId") or "sha256:" + hashlib.sha256(raw).hexdigest()
