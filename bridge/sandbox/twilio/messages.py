"""A text, and what Twilio asks of the request that sends one."""

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
from bridge.sandbox.provider import whole_number
from bridge.sandbox.twilio.errors import refuse

ACCOUNT_SID = "AC5a6d1f0c3b2e49788d7c6b5a4f3e2d1c"
LONGEST_BODY = 1600
LONGEST_VALIDITY = 36_000
STATUSES = {"accepted", "scheduled", "queued", "sending", "sent", "delivered", "undelivered", "failed"}
FINAL = {"delivered", "undelivered", "failed", "canceled", "received"}
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
_EARLIEST_SCHEDULE = timedelta(minutes=15)
_LATEST_SCHEDULE = timedelta(days=35)
_NUMBER = re.compile(r"\+[1-9]\d{1,14}")


@dataclass
class Message:
    """One text, going out or come in; `parameters` is what the request that made it said."""

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
    updated_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.updated_at = self.created_at

    @property
    def status_callback(self) -> str | None:
        """Where its receipts go."""
        return self.parameters.get("StatusCallback")

    @property
    def num_segments(self) -> int:
        """How many SMS it is; unknown, so 0, until a messaging service has chosen a sender."""
        return segments(self.body).count if self.from_ else 0

    def move(
        self, status: str, now: datetime, sender: str | None = None, error_code: int | None = None
    ) -> None:
        """On to the next status; `sender` is the number that a messaging service chose."""
        self.status = status
        self.updated_at = now
        self.from_ = self.from_ or sender
        if status in ("sent", "delivered", "undelivered") and self.sent_at is None:
            self.sent_at = now
        if status in ("undelivered", "failed"):
            self.error_code = error_code or 30003

    def receipt(self) -> dict[str, str]:
        """The form fields of a status callback."""
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

    def reply(self) -> dict[str, str]:
        """The form fields of the webhook for a text that came in."""
        return {
            "ToCountry": "US",
            "SmsMessageSid": self.sid,
            "NumMedia": "0",
            "SmsSid": self.sid,
            "SmsStatus": "received",
            "Body": self.body,
            "To": self.to,
            "NumSegments": str(self.num_segments),
            "MessageSid": self.sid,
            "AccountSid": ACCOUNT_SID,
            "From": self.from_ or "",
            "ApiVersion": "2010-04-01",
        }

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
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
            "num_media": "0",
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
    """A sid that nothing else has."""
    return prefix + secrets.token_hex(16)


def form(body: bytes, known: set[str]) -> dict[str, str]:
    """The parameters of a request; raises Refusal for one that the API does not have, or that stands twice."""
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    names = [name for name, _ in pairs if name not in _REPEATABLE]
    unknown = sorted({name for name, _ in pairs} - known)
    if unknown:
        raise refuse(20001, f"Unknown parameters: {', '.join(unknown)}")
    if len(set(names)) < len(names):
        raise refuse(20001, "A parameter is given twice")
    return dict(pairs)


def check_text(given: Mapping[str, str]) -> None:
    """Raise the Refusal for a recipient, a body or an option that no account may use."""
    to, body = given.get("To", ""), given.get("Body", "")
    if not to:
        raise refuse(21604, "A 'To' phone number is required.")
    if not _NUMBER.fullmatch(to):
        raise refuse(21211, f"Invalid 'To' Phone Number: {to[:4]}XXXX")
    if given.get("From") and not _NUMBER.fullmatch(given["From"]):
        raise refuse(21212, f"Invalid From Number (caller ID): {given['From'][:4]}XXXX")
    if to == given.get("From"):
        raise refuse(21266, f"'To' and 'From' number cannot be the same: {to[:4]}XXXX")
    if not body and not given.get("MediaUrl") and not given.get("ContentSid"):
        raise refuse(21602, "Message body is required.")
    if len(body) > LONGEST_BODY:
        raise refuse(21617, "The concatenated message body exceeds the 1600 character limit")
    validity = whole_number(given.get("ValidityPeriod", "1"), 1, 10**9)
    if validity is None:
        raise refuse(90014, "Validity Period should be positive integer")
    if validity > LONGEST_VALIDITY:
        raise refuse(90007, "Invalid validity period value")
    for name in _BOOLEANS:
        if given.get(name, "true") not in ("true", "false"):
            raise refuse(20001, f"{name} must be true or false")
    if given.get("ShortenUrls") == "true" and not given.get("MessagingServiceSid"):
        raise refuse(20001, "ShortenUrls needs a MessagingServiceSid")
    callback = given.get("StatusCallback")
    if callback is not None and not _is_callback(callback):
        raise refuse(21609, f"Invalid 'StatusCallback' URL: {callback}")


def _is_callback(url: str) -> bool:
    """Loopback is allowed, other than at the real partner; an underscore in the host is not."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:]+", host))


def schedule(given: Mapping[str, str], now: datetime) -> datetime | None:
    """When the text is to go out; None for at once.

    Without a messaging service the parameters are dropped silently and the text goes out now, as at Twilio.
    """
    send_at, kind = given.get("SendAt"), given.get("ScheduleType")
    if not given.get("MessagingServiceSid") or (send_at is None and kind is None):
        return None
    if kind != "fixed":
        raise refuse(35113, "ScheduleType must be 'fixed' to schedule a message.")
    if send_at is None:
        raise refuse(35111, "SendAt is required to schedule a message.")
    try:
        instant = datetime.fromisoformat(send_at)
    except ValueError:
        raise refuse(35112, "SendAt must be in ISO 8601 format.") from None
    if instant.tzinfo is None:
        raise refuse(35112, "SendAt must be in ISO 8601 format.")
    if not _EARLIEST_SCHEDULE <= instant - now <= _LATEST_SCHEDULE:
        raise refuse(35114, "SendAt must be between 900 seconds and 35 days in the future.")
    return instant


def sent_on(message: Message, query: QueryParams) -> bool:
    """Twilio's only date filter: days of the sending, which a queued text does not have yet."""
    for name in ("DateSent", "DateSent<", "DateSent>"):
        if name not in query:
            continue
        try:
            wanted = date.fromisoformat(query[name][:10])
        except ValueError:
            raise refuse(20001, f"{name} is not a date") from None
        if message.sent_at is None:
            return False
        sent = message.sent_at.date()
        if not {"DateSent": sent == wanted, "DateSent<": sent <= wanted, "DateSent>": sent >= wanted}[name]:
            return False
    return True
