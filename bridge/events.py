"""Events: Heppu's webhook payloads, and the contact and conversation they are about.

Payloads are parsed leniently: any field may be absent, null or of another type, unknown fields are kept, and an unknown
event type is valid. The result is strict: a phone number is E.164 or None, an email address is one address or None, a
time zone exists or is None.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from bridge.contacts.parse import Contact, ParsedContact, UnreadableField, parse_contact, string_field

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

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(rb"\\u(?:0000|d[89a-f])", re.IGNORECASE)


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


def parse_body(raw: bytes) -> dict[str, Any]:
    """Parse the JSON object in `raw`. Raise ValueError for anything else, including NaN and infinities.

    NUL characters and lone surrogates are valid JSON, but databases and providers reject them: each becomes U+FFFD. The
    stored bytes are not changed.
    """
    try:
        value = _JSON.decode(raw.decode("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return _replace_unstorable(value) if _UNSTORABLE_ESCAPE.search(raw) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def replace_unstorable(text: str) -> str:
    """Return the string with characters that databases and providers reject replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def _replace_unstorable(value: Any) -> Any:
    if isinstance(value, str):
        return replace_unstorable(value)
    if isinstance(value, list):
        return [_replace_unstorable(item) for item in value]
    if isinstance(value, dict):
        return {_replace_unstorable(key): _replace_unstorable(item) for key, item in value.items()}
    return value


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_JSON = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_finite_float)


def dedupe_key_of(body: Mapping[str, Any], raw: bytes) -> str:
    """Return the signed `webhookId`, else the SHA-256 of the raw body. Headers are not signed and not used."""
    return string_field(body, "webhookId") or "sha256:" + hashlib.sha256(raw).hexdigest()


def parse_timestamp(value: object) -> datetime | None:
    """Return the ISO 8601 timestamp in UTC, or None if it is invalid. Without an offset, UTC is assumed."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        timestamp = datetime.fromisoformat(value.strip())
        return (timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def set_field(body: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the field at a path of a body, with the objects on the way to it."""
    for key in path[:-1]:
        inner = body.get(key)
        if not isinstance(inner, dict):
            inner = body[key] = {}
        body = inner
    body[path[-1]] = value
