"""Twilio messages, and the validation of requests that send one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import QueryParams

from bridge.connector.sms import segments
from bridge.sandbox.provider import parse_whole_number
from bridge.sandbox.twilio.errors import api_error

ACCOUNT_SID = "AC5a6d1f0c3b2e49788d7c6b5a4f3e2d1c"
MAX_BODY_LENGTH = 1600
MAX_VALIDITY_SECONDS = 36_000
STATUSES = {
    "accepted",
    "scheduled",
    "queued",
    "sending",
    "sent",
    "delivered",
    "read",
    "undelivered",
    "failed",
}
FINAL_STATUSES = {"delivered", "read", "undelivered", "failed", "canceled", "received"}
WHATSAPP = "whatsapp:"
PARAMETERS = {
    "To",
    "StatusCallback",
    "ApplicationSid",
    "MaxPrice",
    "ProvideFeedback",
    "Attempt",
    "ValidityPeriod",
    "ForceDelivery",
    "ContentRetention",
    "AddressRetention",
    "SmartEncoded",
    "PersistentAction",
    "TrafficType",
    "ShortenUrls",
    "ScheduleType",
    "SendAt",
    "SendAsMms",
    "ContentVariables",
    "MessageIntent",
    "RiskCheck",
    "From",
    "FallbackFrom",
    "MessagingServiceSid",
    "Body",
    "MediaUrl",
    "ContentSid",
}
_REPEATABLE = {"PersistentAction", "MediaUrl"}
_BOOLEANS = ("SmartEncoded", "ShortenUrls", "SendAsMms", "ProvideFeedback", "ForceDelivery")
_MIN_SCHEDULE_AHEAD = timedelta(minutes=15)
_MAX_SCHEDULE_AHEAD = timedelta(days=35)
_NUMBER = re.compile(r"\+[1-9]\d{1,14}")


@dataclass
class Message:
    """An outbound or inbound message. `parameters` are those of the request that created it."""

    sid: str
    to: str
    from_: str | None
    body: str
    status: str
    direction: str
    created_at: datetime
    messaging_service_sid: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    send_at: datetime | None = None
    sent_at: datetime | None = None
    error_code: int | None = None
    media: tuple[str, ...] = ()
    """URLs of the files of an inbound message."""
    refusal: int | None = None
    """Error code with which WhatsApp refuses the message; Twilio reports it in a status callback only."""
    more_fields: Mapping[str, str] = field(default_factory=dict)
    """Further fields of the webhook for an inbound message, such as `ProfileName`."""
    updated_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.updated_at = self.created_at

    @property
    def status_callback(self) -> str | None:
        """The URL for its status callbacks."""
        return self.parameters.get("StatusCallback")

    @property
    def num_segments(self) -> int:
        """The number of SMS segments. It is 0 until a messaging service has chosen a sender."""
        return segments(self.body).count if self.from_ else 0

    def set_status(
        self, status: str, now: datetime, sender: str | None = None, error_code: int | None = None
    ) -> None:
        """Set the next status. `sender` is the number chosen by a messaging service."""
        self.status = status
        self.updated_at = now
        self.from_ = self.from_ or sender
        if status in ("sent", "delivered", "read", "undelivered") and self.sent_at is None:
            self.sent_at = now
        if status in ("undelivered", "failed"):
            self.error_code = error_code or 30003

    def status_callback_fields(self) -> dict[str, str]:
        """Return the form fields of a status callback."""
        fields = {
            "SmsSid": self.sid,
            "SmsStatus": self.status,
            "MessageStatus": self.status,
            "To": self.to,
            "MessageSid": self.sid,
            "AccountSid": ACCOUNT_SID,
            "From": self.from_ or "",
            "ApiVersion": "2010-04-01",
        }
        if self.messaging_service_sid:
            fields["MessagingServiceSid"] = self.messaging_service_sid
        if self.error_code:
            fields["ErrorCode"] = str(self.error_code)
        return fields

    def inbound_fields(self) -> dict[str, str]:
        """Return the form fields of the webhook for an inbound message."""
        return {
            "ToCountry": "US",
            "SmsMessageSid": self.sid,
            "NumMedia": str(len(self.media)),
            **{f"MediaUrl{number}": url for number, url in enumerate(self.media)},
            **{f"MediaContentType{number}": "image/jpeg" for number in range(len(self.media))},
            "SmsSid": self.sid,
            "SmsStatus": "received",
            "Body": self.body,
            "To": self.to,
            "NumSegments": str(self.num_segments),
            "MessageSid": self.sid,
            "AccountSid": ACCOUNT_SID,
            "From": self.from_ or "",
            "ApiVersion": "2010-04-01",
            **self.more_fields,
        }

    def as_json(self) -> dict[str, Any]:
        """Return the message as the API shows it."""
        uri = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{self.sid}"
        return {
            "sid": self.sid,
            "account_sid": ACCOUNT_SID,
            "messaging_service_sid": self.messaging_service_sid,
            "to": self.to,
            "from": self.from_,
            "body": self.body,
            "status": self.status,
            "direction": self.direction,
            "num_segments": str(self.num_segments),
            "num_media": str(len(self.media)),
            "price": None,
            "price_unit": "USD",
            "error_code": self.error_code,
            "error_message": None,
            "api_version": "2010-04-01",
            "date_created": format_datetime(self.created_at),
            "date_updated": format_datetime(self.updated_at),
            "date_sent": format_datetime(self.sent_at) if self.sent_at else None,
            "uri": uri + ".json",
            "subresource_uris": {"media": uri + "/Media.json"},
        }


def new_sid(prefix: str) -> str:
    """Return a new unique SID."""
    return prefix + secrets.token_hex(16)


def parse_form(body: bytes, allowed: set[str]) -> dict[str, str]:
    """Return the parameters of a request. Raise ProviderError for unknown or duplicate parameters."""
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    names = [name for name, _ in pairs if name not in _REPEATABLE]
    unknown = sorted({name for name, _ in pairs} - allowed)
    if unknown:
        raise api_error(20001, f"Unknown parameters: {', '.join(unknown)}")
    if len(set(names)) < len(names):
        raise api_error(20001, "A parameter is given twice")
    return dict(pairs)


def check_message(parameters: Mapping[str, str]) -> None:
    """Raise ProviderError for a recipient, a body or an option that is invalid for every account."""
    to, sender = parameters.get("To", ""), parameters.get("From", "")
    body = parameters.get("Body", "")
    if not to:
        raise api_error(21604, "A 'To' phone number is required.")
    if sender and to.startswith(WHATSAPP) != sender.startswith(WHATSAPP):
        raise api_error(21910, "Invalid From and To pair. From and To should be of the same channel")
    to, sender = to.removeprefix(WHATSAPP), sender.removeprefix(WHATSAPP)
    if not _NUMBER.fullmatch(to):
        raise api_error(21211, f"Invalid 'To' Phone Number: {to[:4]}XXXX")
    if sender and not _NUMBER.fullmatch(sender):
        raise api_error(21212, f"Invalid From Number (caller ID): {sender[:4]}XXXX")
    if to == sender:
        raise api_error(21266, f"'To' and 'From' number cannot be the same: {to[:4]}XXXX")
    if not body and not parameters.get("MediaUrl") and not parameters.get("ContentSid"):
        raise api_error(21602, "Message body is required.")
    if len(body) > MAX_BODY_LENGTH:
        raise api_error(21617, "The concatenated message body exceeds the 1600 character limit")
    validity = parse_whole_number(parameters.get("ValidityPeriod", "1"), 1, 10**9)
    if validity is None:
        raise api_error(90014, "Validity Period should be positive integer")
    if validity > MAX_VALIDITY_SECONDS:
        raise api_error(90007, "Invalid validity period value")
    for name in _BOOLEANS:
        if parameters.get(name, "true") not in ("true", "false"):
            raise api_error(20001, f"{name} must be true or false")
    if parameters.get("ShortenUrls") == "true" and not parameters.get("MessagingServiceSid"):
        raise api_error(20001, "ShortenUrls needs a MessagingServiceSid")
    callback = parameters.get("StatusCallback")
    if callback is not None and not _is_callback(callback):
        raise api_error(21609, f"Invalid 'StatusCallback' URL: {callback}")


def _is_callback(url: str) -> bool:
    """Return whether the URL is valid. Unlike Twilio, the sandbox allows loopback. Neither allows `_` in a host."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:]+", host))


def parse_send_at(parameters: Mapping[str, str], now: datetime) -> datetime | None:
    """Return the scheduled time of the message, or None to send it immediately.

    Without a messaging service, the parameters are silently ignored and the message is sent immediately, as at
    Twilio.
    """
    send_at, schedule_type = parameters.get("SendAt"), parameters.get("ScheduleType")
    if not parameters.get("MessagingServiceSid") or (send_at is None and schedule_type is None):
        return None
    if schedule_type != "fixed":
        raise api_error(35113, "ScheduleType must be 'fixed' to schedule a message.")
    if send_at is None:
        raise api_error(35111, "SendAt is required to schedule a message.")
    try:
        parsed = datetime.fromisoformat(send_at)
    except ValueError:
        raise api_error(35112, "SendAt must be in ISO 8601 format.") from None
    if parsed.tzinfo is None:
        raise api_error(35112, "SendAt must be in ISO 8601 format.")
    if not _MIN_SCHEDULE_AHEAD <= parsed - now <= _MAX_SCHEDULE_AHEAD:
        raise api_error(35114, "SendAt must be between 900 seconds and 35 days in the future.")
    return parsed


def matches_date_sent(message: Message, query: QueryParams) -> bool:
    """Return whether the message passes Twilio's only date filter, the day of sending. Queued messages do not."""
    for name in ("DateSent", "DateSent<", "DateSent>"):
        if name not in query:
            continue
        try:
            day = date.fromisoformat(query[name][:10])
        except ValueError:
            raise api_error(20001, f"{name} is not a date") from None
        if message.sent_at is None:
            return False
        sent_on = message.sent_at.date()
        if not {
            "DateSent": sent_on == day,
            "DateSent<": sent_on <= day,
            "DateSent>": sent_on >= day,
        }[name]:
            return False
    return True
