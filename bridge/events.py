"""Events: Heppu's webhook payloads and the bridge's own events, and the contact and conversation they are about.

Payloads are parsed leniently: any field may be absent, null or of another type, unknown fields are kept, and an unknown
event type is valid. The result is strict: a documented field has its documented type or no value, a phone number is
E.164 or None, an email address is one address or None, a time zone exists or is None. What has a value that could not
be read is listed in `Event.unreadable_fields`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bridge.clock import parse_timestamp
from bridge.contacts.parse import (
    Contact,
    ParsedContact,
    UnreadableField,
    contact_field_at,
    contact_fields_below,
    parse_contact,
    string_field,
    unplain_names,
)
from bridge.errors import DamagedBody
from bridge.event_fields import FieldProblem, compile_specs, read_fields, read_string
from bridge.json_values import parse_body
from bridge.lazy import lazy

CALL_EVENTS: Final = ("call.completed", "call.failed", "call.busy", "call.no-answer")
CHAT_EVENTS: Final = ("chat.completed", "chat.resolved", "chat.abandoned")
HEPPU_EVENTS: Final = CALL_EVENTS + CHAT_EVENTS
"""The seven event types that Heppu documents."""
SMS_RECEIVED: Final = "sms.received"
CONTACT_OPTED_OUT: Final = "contact.opted_out"
BRIDGE_EVENTS: Final = (SMS_RECEIVED, CONTACT_OPTED_OUT)
"""The event types that the bridge itself makes."""
EVENT_TYPES: Final = HEPPU_EVENTS + BRIDGE_EVENTS
"""Every event type that rules can name."""

_ENVELOPE: Final = {
    "event": "string",
    "timestamp": "timestamp",
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
    "callMetadata.customer.firstName": "string",
    "callMetadata.customer.lastName": "string",
    "callMetadata.customer.phone": "string",
    "callMetadata.customer.email": "string",
    "callMetadata.customer.company": "string",
    "callMetadata.customer.timezone": "string",
    "callMetadata.context": "object",
    "callMetadata.context.campaignType": "string",
    "callMetadata.context.priority": "string",
    "callMetadata.context.previousAttempts": "number",
    "callMetadata.context.maxAttempts": "number",
    "callMetadata.context.timezone": "string",
    "callMetadata.custom": "object",
    "callMetadata.firstName": "string",
    "callMetadata.lastName": "string",
    "callMetadata.company": "string",
    "callMetadata.timezone": "string",
    "metadata.contactName": "string",
    "metadata.contactPhone": "string",
    "metadata.contactEmail": "string",
    "metadata.company": "string",
    "metadata.timezone": "string",
}
_CHAT: Final = {
    "messageCount": "number",
    "chatMetadata": "object",
    "chatMetadata.widgetId": "string",
    "chatMetadata.resolved": "boolean",
    "chatMetadata.totalCost": "number",
    "chatMetadata.toolsUsed": "array",
    "chatMetadata.firstMessageAt": "timestamp",
    "chatMetadata.lastMessageAt": "timestamp",
    "chatMetadata.feedback": "object",
    "chatMetadata.feedback.rating": "number",
    "chatMetadata.feedback.comment": "string",
    "chatMetadata.goal": "object",
    "chatMetadata.goal.achieved": "boolean",
    "chatMetadata.goal.type": "string",
    "metadata.contactName": "string",
    "metadata.contactPhone": "string",
    "metadata.contactEmail": "string",
    "metadata.company": "string",
    "metadata.visitorId": "string",
    "metadata.ipAddress": "string",
    "metadata.userAgent": "string",
    "metadata.referrer": "string",
    "metadata.timezone": "string",
}
_BRIDGE_ENVELOPE: Final = {
    "event": "string",
    "timestamp": "timestamp",
    "webhookId": "string",
    "conversationId": "string",
    "channel": "string",
    "metadata": "object",
    "metadata.contactName": "string",
    "metadata.contactPhone": "string",
    "metadata.contactEmail": "string",
    "metadata.company": "string",
    "metadata.timezone": "string",
}
_SMS_RECEIVED: Final = {
    "connection": "string",
    "messageId": "string",
    "from": "string",
    "to": "string",
    "text": "string",
    "media": "array",
    "button": "string",
    "optOut": "boolean",
    "optIn": "boolean",
}
_CONTACT_OPTED_OUT: Final = {
    "channels": "array",
    "address": "string",
    "source": "string",
    "actor": "string",
    "reason": "string",
}
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    **{name: {**_ENVELOPE, **_CALL} for name in CALL_EVENTS},
    **{name: {**_ENVELOPE, **_CHAT} for name in CHAT_EVENTS},
    SMS_RECEIVED: {**_BRIDGE_ENVELOPE, **_SMS_RECEIVED},
    CONTACT_OPTED_OUT: {**_BRIDGE_ENVELOPE, **_CONTACT_OPTED_OUT},
}
"""Event type -> its documented fields as dotted path -> type: a JSON type or `timestamp` (a string in ISO 8601).

Events are read as these types, and rules are checked with them when they are loaded.
"""

FIELD_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "event": EVENT_TYPES,
    "direction": ("inbound", "outbound"),
    "conversationType": ("phone", "chat"),
    "status": ("completed", "failed", "busy", "no_answer"),
    "channel": ("sms", "whatsapp", "call", "email"),
}
"""Path of a field with a fixed set of values -> its documented values."""

FREE_FORM: Final = ("metadata", "callMetadata", "chatMetadata")
"""Objects whose fields are not checked, because Heppu's customers put their own data there."""

_SPECS: Final = compile_specs(
    {path: kind for fields in FIELDS.values() for path, kind in fields.items()}, FIELD_VALUES
)
_NONE_UNREADABLE: Final[Mapping[tuple[str, ...], str]] = {}


@dataclass(slots=True)
class Conversation:
    """The phone call or chat that an event belongs to."""

    id: str
    type: str
    """`phone` or `chat`."""


@dataclass
class Event:
    """One webhook as received. It is never changed, nor is `body`, the parsed JSON."""

    body: Mapping[str, Any]
    """The parsed JSON as it was sent: any field may be missing or of another type."""
    dedupe_key: str
    """Equal for all requests with the same event: the signed `webhookId`, else the SHA-256 of the body."""
    received_at: datetime
    """When the bridge received it."""
    id: str = field(default="")
    """The bridge's ID (`evt_...`). The ID of a duplicate is never stored."""
    default_country: str | None = None
    """ISO 3166 code of the country whose national phone numbers are understood (BRIDGE_DEFAULT_COUNTRY)."""

    @lazy
    def type(self) -> str:
        """The event type, such as `call.no-answer`: as Heppu documents it, or as sent if it is not documented."""
        return string_field(self._read_fields[0], "event") or ""

    @lazy
    def _read_fields(self) -> tuple[Mapping[str, Any], tuple[FieldProblem, ...]]:
        return read_fields(self.body, _SPECS)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body with every documented field in its documented type. A field that cannot be read is unchanged."""
        return self._read_fields[0]

    @lazy
    def timestamp(self) -> datetime | None:
        """The signed `timestamp` of the body, or None if it is absent or invalid."""
        return parse_timestamp(self._read_fields[0].get("timestamp"))

    @lazy
    def occurred_at(self) -> datetime:
        """The time of the event: the timestamp of the body, but never later than `received_at`."""
        return min(self.timestamp or self.received_at, self.received_at)

    @lazy
    def conversation(self) -> Conversation:
        """The conversation. An event without `conversationId` is a separate conversation."""
        kind = string_field(self._read_fields[0], "conversationType")
        if kind not in ("phone", "chat"):
            kind = "chat" if self.type.startswith("chat.") else "phone"
        return Conversation(string_field(self._read_fields[0], "conversationId") or self.dedupe_key, kind)

    @lazy
    def _parsed_contact(self) -> ParsedContact:
        return parse_contact(self._read_fields[0], self.default_country)

    @property
    def contact(self) -> Contact:
        """The contact, from `metadata`, `callMetadata.customer` and the flat `callMetadata` of scheduled calls."""
        return self._parsed_contact.contact

    @property
    def unreadable_fields(self) -> tuple[UnreadableField, ...]:
        """The documented fields that the event has and that could not be read."""
        mistyped, unreadable = self._read_fields[1], self._parsed_contact.unreadable
        if not mistyped:
            return unreadable
        reported = {problem.path for problem in mistyped}
        return tuple(
            UnreadableField(contact_field_at(problem.path) or problem.path, *problem) for problem in mistyped
        ) + tuple(item for item in unreadable if item.path not in reported)

    @property
    def unreadable_names(self) -> Mapping[tuple[str, ...], str]:
        """The names in rules that have no value because it could not be read, each with the reason."""
        unreadable = self.unreadable_fields
        if not unreadable:
            return _NONE_UNREADABLE
        mistyped = {problem.path for problem in self._read_fields[1]}
        names: dict[tuple[str, ...], str] = {}
        for item in unreadable:
            if item.path in mistyped:
                names["event", *item.path.split(".")] = item.text
            for field_name in contact_fields_below(item.path):
                if getattr(self.contact, field_name) is None:
                    names.setdefault(("contact", field_name), item.text)
        return names

    @lazy
    def unplain_names(self) -> Mapping[tuple[str, ...], str]:
        """The names in rules of what a message to a customer leaves out, because it is more than a name."""
        return unplain_names(self._read_fields[0], self.contact)

    @lazy
    def fallback_dedupe_key(self) -> str | None:
        """A second key that does not depend on `webhookId`: event type, conversation and timestamp of the body."""
        conversation = string_field(self._read_fields[0], "conversationId")
        if conversation is None or self.timestamp is None:
            return None
        return f"{self.type}|{conversation}|{string_field(self._read_fields[0], 'timestamp')}"


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

    @lazy
    def body(self) -> Mapping[str, Any]:
        """The parsed JSON. Raise DamagedBody."""
        try:
            return parse_body(vars(self)["_raw"])
        except ValueError:
            raise DamagedBody(self.id) from None

    @property
    def type(self) -> str:
        """The event type that was stored."""
        return str(vars(self)["_type"])


def dedupe_key_of(body: Mapping[str, Any], raw: bytes) -> str:
    """Return the signed `webhookId`, else the SHA-256 of the raw body. Headers are not signed and not used."""
    return read_string(body.get("webhookId")) or "sha256:" + hashlib.sha256(raw).hexdigest()
