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
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

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

PHONE_PATTERN: Final = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)
"""A valid number according to Heppu's documentation of outbound calls; stricter numbering plans reject its samples."""

_ADDRESS = re.compile(r"[^\s@,;:<>\"()\[\]\\]+@[^\s@,;:<>\"()\[\]\\]+\.[^\s@,;:<>\"()\[\]\\.]+")
_PUNCTUATION = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]")
_MAX_NAME = 200
_EMPTY: Final[Mapping[str, Any]] = {}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(rb"\\u(?:0000|d[89a-f])", re.IGNORECASE)


@dataclass(frozen=True)
class Contact:
    """The person an event is about. A field is None if the event does not contain it."""

    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None
    email: str | None = None
    company: str | None = None
    time_zone: str | None = None
    visitor: str | None = None

    @property
    def key(self) -> str | None:
        """The contact's key in the database: the phone, else the email address, else the chat visitor's ID."""
        return self.phone or (self.email and self.email.casefold()) or self.visitor


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
    def contact(self) -> Contact:
        """The contact, from `metadata`, `callMetadata.customer` and the flat `callMetadata` of scheduled calls."""
        return parse_contact(self.body)

    @cached_property
    def fallback_dedupe_key(self) -> str | None:
        """A second key that does not depend on `webhookId`: event type, conversation and timestamp of the body."""
        conversation, stamp = string_field(self.body, "conversationId"), string_field(self.body, "timestamp")
        return f"{self.type}|{conversation}|{stamp}" if conversation and stamp else None


class StoredEvent(Event):
    """An event loaded from the database. Its body is parsed on first access, because few deliveries need it."""

    def __init__(
        self, raw: bytes, event_type: str, dedupe_key: str, received_at: datetime, event_id: str
    ) -> None:
        vars(self).update(
            _raw=raw, _type=event_type, dedupe_key=dedupe_key, received_at=received_at, id=event_id
        )

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


def string_field(body: Mapping[str, Any], key: str) -> str | None:
    """Return the non-empty string under a key, stripped, or None for anything else."""
    value = body.get(key)
    return value.strip() or None if isinstance(value, str) else None


def parse_contact(body: Mapping[str, Any]) -> Contact:
    """Return the contact in a payload. Every field that Heppu documents is read, the most explicit one first."""
    metadata, call = _object(body, "metadata"), _object(body, "callMetadata")
    customer, context = _object(call, "customer"), _object(call, "context")
    first_name = string_field(customer, "firstName") or string_field(call, "firstName")
    last_name = string_field(customer, "lastName") or string_field(call, "lastName")
    name = clean_name(
        string_field(metadata, "contactName")
        or string_field(customer, "name")
        or (f"{first_name} {last_name}" if first_name and last_name else first_name or last_name)
    )
    parts = name.split() if name else []
    return Contact(
        name=name,
        first_name=clean_name(first_name) or (parts[0] if parts else None),
        last_name=clean_name(last_name) or (parts[-1] if len(parts) > 1 else None),
        phone=normalize_phone(metadata.get("contactPhone")) or normalize_phone(customer.get("phone")),
        email=normalize_email(metadata.get("contactEmail")) or normalize_email(customer.get("email")),
        company=clean_name(
            string_field(customer, "company")
            or string_field(call, "company")
            or string_field(metadata, "company")
        ),
        time_zone=normalize_time_zone(call.get("timezone"))
        or normalize_time_zone(customer.get("timezone"))
        or normalize_time_zone(context.get("timezone"))
        or normalize_time_zone(metadata.get("timezone")),
        visitor=clean_name(string_field(metadata, "visitorId")),
    )


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else _EMPTY


def normalize_phone(value: object) -> str | None:
    """Return the number as E.164, or None. Punctuation is removed and `00` becomes `+`; no country is assumed."""
    if not isinstance(value, str):
        return None
    if value.isascii() and PHONE_PATTERN.fullmatch(value):
        return value  # Heppu's format
    digits = _PUNCTUATION.sub("", unicodedata.normalize("NFKC", value))
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    return digits if PHONE_PATTERN.fullmatch(digits) else None


def normalize_email(value: object) -> str | None:
    """Return one address with a lowercase domain, or None. Lists, names and line breaks are invalid."""
    if not isinstance(value, str) or len(value) > 254 or not _ADDRESS.fullmatch(value.strip()):
        return None
    local, _, domain = value.strip().rpartition("@")
    return f"{local}@{domain.lower()}" if len(local) <= 64 else None


def clean_name(value: str | None) -> str | None:
    """Return the name on one line, cut at 200 characters. Control characters and whitespace runs become one space."""
    if not value:
        return None
    if value.isprintable():
        return " ".join(value[:1000].split())[:_MAX_NAME] or None
    printable = "".join(" " if unicodedata.category(char) in ("Cc", "Cf") else char for char in value[:1000])
    return " ".join(printable.split())[:_MAX_NAME] or None


def normalize_time_zone(value: object) -> str | None:
    """Return the name of the IANA time zone, or None if it does not exist."""
    return _zone(value) if isinstance(value, str) and len(value) <= 64 else None


@lru_cache(maxsize=1024)
def _zone(name: str) -> str | None:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # an unknown zone; an invalid name; the name of a folder
        return None


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
