"""What Heppu sends: the event, the contact and the conversation it is about.

Heppu's payloads are read leniently: any field may be absent, null or of another type, unknown fields are kept,
and an unknown event name is an event like any other. What is strict is what we make of it: a phone number is
E.164 or None, an e-mail address is one address or None, a time zone exists or is None.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

CALL_EVENTS: Final = ("call.completed", "call.failed", "call.busy", "call.no-answer")
CHAT_EVENTS: Final = ("chat.completed", "chat.resolved", "chat.abandoned")
EVENT_NAMES: Final = CALL_EVENTS + CHAT_EVENTS
"""The seven events that Heppu documents."""

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
    name: {**_ENVELOPE, **(_CALL if name in CALL_EVENTS else _CHAT)} for name in EVENT_NAMES
}
"""The documented fields of each event, as dotted path -> JSON type, for checking rules when they are loaded."""

FREE_FORM: Final = ("metadata", "callMetadata", "chatMetadata")
"""Below these a field may be anything: Heppu's customers put their own data there."""

PHONE_PATTERN: Final = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)
"""Heppu's own idea of a valid number (its outbound-call page); stricter number plans refuse its samples."""

_ADDRESS = re.compile(r"[^\s@,;:<>\"()\[\]\\]+@[^\s@,;:<>\"()\[\]\\]+\.[^\s@,;:<>\"()\[\]\\.]+")
_PUNCTUATION = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]")
_MAX_NAME = 200
_NOTHING: Final[Mapping[str, Any]] = {}
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")
_UNSPEAKABLE_ESCAPE = re.compile(rb"\\u(?:0000|d[89a-f])", re.IGNORECASE)


@dataclass(frozen=True)
class Contact:
    """The person an event is about; None where the event does not say."""

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
        """What tells this person from others in our own tables: phone, else e-mail, else the chat visitor."""
        return self.phone or (self.email and self.email.casefold()) or self.visitor


@dataclass(frozen=True)
class Conversation:
    """The phone call or chat that events belong to."""

    id: str
    type: str
    """`phone` or `chat`."""


@dataclass(frozen=True)
class Event:
    """One webhook as it came. `body` is the parsed JSON, never changed."""

    body: Mapping[str, Any]
    dedupe_key: str
    """What makes two requests the same event: the signed `webhookId`, else the SHA-256 of the body."""
    received_at: datetime
    id: str = field(default="")
    """Our own id (`evt_...`); a duplicate's is never stored."""

    @property
    def type(self) -> str:
        """The event type as Heppu sent it, such as `call.no-answer`."""
        return str(self.body.get("event", ""))

    @cached_property
    def timestamp(self) -> datetime | None:
        """The signed `timestamp` of the body, which is when it happened; None when absent or unreadable."""
        return parse_instant(self.body.get("timestamp"))

    @cached_property
    def occurred_at(self) -> datetime:
        """When it happened: the body's timestamp, but never later than its receipt."""
        return min(self.timestamp or self.received_at, self.received_at)

    @cached_property
    def conversation(self) -> Conversation:
        """The conversation; an event without `conversationId` is a conversation of its own."""
        kind = text(self.body, "conversationType")
        if kind not in ("phone", "chat"):
            kind = "chat" if self.type.startswith("chat.") else "phone"
        return Conversation(text(self.body, "conversationId") or self.dedupe_key, kind)

    @cached_property
    def contact(self) -> Contact:
        """The person, from `metadata`, `callMetadata.customer` and the flat `callMetadata` of scheduled calls."""
        return contact_of(self.body)

    @cached_property
    def fallback_dedupe_key(self) -> str | None:
        """A second key that survives a new `webhookId`: event + conversation + body timestamp."""
        conversation, stamp = text(self.body, "conversationId"), text(self.body, "timestamp")
        return f"{self.type}|{conversation}|{stamp}" if conversation and stamp else None


class StoredEvent(Event):
    """An event as the database has it. Its body is parsed when somebody asks for it, which not every delivery does."""

    def __init__(
        self, raw: bytes, event_type: str, dedupe_key: str, received_at: datetime, ident: str
    ) -> None:
        vars(self).update(
            _raw=raw, _type=event_type, dedupe_key=dedupe_key, received_at=received_at, id=ident
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
    """The JSON object in `raw`; raises ValueError for anything else (NaN and infinities included).

    NUL characters and halves of surrogate pairs are legal JSON, but no partner and no database takes them: each
    becomes U+FFFD. The stored bytes stay as they came.
    """
    try:
        value = _JSON.decode(raw.decode("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return _speakable(value) if _UNSPEAKABLE_ESCAPE.search(raw) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def speakable(text: str) -> str:
    """The text as every database and partner takes it."""
    return _UNSPEAKABLE.sub("\ufffd", text)


def _speakable(value: Any) -> Any:
    if isinstance(value, str):
        return speakable(value)
    if isinstance(value, list):
        return [_speakable(item) for item in value]
    if isinstance(value, dict):
        return {_speakable(key): _speakable(item) for key, item in value.items()}
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_JSON = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def dedupe_key_of(body: Mapping[str, Any], raw: bytes) -> str:
    """The signed `webhookId`, else the SHA-256 of the raw body. Headers are not signed and never decide."""
    return text(body, "webhookId") or "sha256:" + hashlib.sha256(raw).hexdigest()


def text(body: Mapping[str, Any], key: str) -> str | None:
    """The non-empty string under a key, stripped; None for anything else."""
    found = body.get(key)
    return found.strip() or None if isinstance(found, str) else None


def contact_of(body: Mapping[str, Any]) -> Contact:
    """Read the person out of a payload; every source that Heppu documents, the most explicit one first."""
    metadata, call = _object(body, "metadata"), _object(body, "callMetadata")
    customer, context = _object(call, "customer"), _object(call, "context")
    given = text(customer, "firstName") or text(call, "firstName")
    family = text(customer, "lastName") or text(call, "lastName")
    name = clean_name(
        text(metadata, "contactName")
        or text(customer, "name")
        or (f"{given} {family}" if given and family else given or family)
    )
    words = name.split() if name else []
    return Contact(
        name=name,
        first_name=clean_name(given) or (words[0] if words else None),
        last_name=clean_name(family) or (words[-1] if len(words) > 1 else None),
        phone=normalize_phone(metadata.get("contactPhone")) or normalize_phone(customer.get("phone")),
        email=normalize_email(metadata.get("contactEmail")) or normalize_email(customer.get("email")),
        company=clean_name(text(customer, "company") or text(call, "company") or text(metadata, "company")),
        time_zone=known_zone(call.get("timezone"))
        or known_zone(customer.get("timezone"))
        or known_zone(context.get("timezone"))
        or known_zone(metadata.get("timezone")),
        visitor=clean_name(text(metadata, "visitorId")),
    )


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key)
    return found if isinstance(found, dict) else _NOTHING


def normalize_phone(value: object) -> str | None:
    """The number as E.164, or None. Punctuation goes and `00` becomes `+`; a country is never guessed."""
    if not isinstance(value, str):
        return None
    if value.isascii() and PHONE_PATTERN.fullmatch(value):
        return value  # as Heppu writes it
    digits = _PUNCTUATION.sub("", unicodedata.normalize("NFKC", value))
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    return digits if PHONE_PATTERN.fullmatch(digits) else None


def normalize_email(value: object) -> str | None:
    """One address with its domain in lower case, or None. Lists, names and line breaks are no address."""
    if not isinstance(value, str) or len(value) > 254 or not _ADDRESS.fullmatch(value.strip()):
        return None
    local, _, domain = value.strip().rpartition("@")
    return f"{local}@{domain.lower()}" if len(local) <= 64 else None


def clean_name(value: str | None) -> str | None:
    """A name on one line: control characters and runs of white space become one space, cut at 200 characters."""
    if not value:
        return None
    if value.isprintable():
        return " ".join(value[:1000].split())[:_MAX_NAME] or None
    printable = "".join(" " if unicodedata.category(char) in ("Cc", "Cf") else char for char in value[:1000])
    return " ".join(printable.split())[:_MAX_NAME] or None


def known_zone(value: object) -> str | None:
    """The IANA zone's name when there is such a zone."""
    return _zone(value) if isinstance(value, str) and len(value) <= 64 else None


@lru_cache(maxsize=1024)
def _zone(name: str) -> str | None:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # unknown; not a name at all; the name of a folder
        return None


def parse_instant(value: object) -> datetime | None:
    """An ISO 8601 instant as UTC; without an offset it is read as UTC. None for anything else."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        instant = datetime.fromisoformat(value.strip())
        return (instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
