"""Action that sends text messages, and its lookup."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bridge.connector import (
    Context,
    MessageStatus,
    Params,
    PhoneNumber,
    Success,
    param,
    per_message,
    segments,
)
from bridge.errors import (
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
)

from .account import Account
from .settings import connector

CLOCK_SKEW = timedelta(minutes=2)
"""Allowed difference between Twilio's clock and the bridge's, when a lookup skips messages older than the first
attempt."""

LOOKUP_PAGE_SIZE = 100
"""Number of Twilio's newest messages to the recipient that a lookup reads, in one request."""

MAX_VALIDITY_SECONDS = 36_000
"""How long Twilio keeps trying to deliver a message: its default and its maximum."""

MIN_VALIDITY_SECONDS = 60
"""Validity of a message sent just before the recipient's quiet hours start. With less, a busy carrier would drop it."""

_TRIAL_PREFIX = "Sent from your Twilio trial account - "

MESSAGE_STATUS: Mapping[str, MessageStatus] = {
    "accepted": "queued",
    "scheduled": "queued",
    "queued": "queued",
    "sending": "queued",
    "sent": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "partially_delivered": "undelivered",
    "undelivered": "undelivered",
    "failed": "failed",
    "canceled": "failed",
}


class SmsParams(Params):
    """One text message."""

    to: PhoneNumber = param("{{ contact.phone }}", "Recipient, in E.164 format.", example="+14155550123")
    body: str = param(
        ...,
        "Message text. Each segment is billed: up to 160 GSM-7 characters, or 70 if the text has "
        "any other character.",
        example="Hi {{ contact.first_name | default('there') }}, we tried to reach you. Reply STOP to opt out.",
        min_length=1,
        max_length=1600,
    )
    sender: str | None = param(
        None, "Number to send from, instead of the account's default sender.", example="+12125550100"
    )
    validity: int = param(
        3600,
        "How long Twilio keeps trying if the phone is off, in seconds. "
        "Shortened if the delivery expires or quiet hours start earlier.",
        example=3600,
        ge=1,
        le=MAX_VALIDITY_SECONDS,
    )


@connector.action(channel="sms", text="body", idempotency=per_message, lookup_delay=timedelta(seconds=10))
def send_sms(account: Account, params: SmsParams, context: Context) -> Success:
    """Send one text message."""
    validity = params.validity
    if context.expires_at:
        validity = min(validity, int((context.expires_at - context.now).total_seconds()))
    if validity < 1:
        raise PermanentError("the message expired before it could be sent", code="expired")
    if context.quiet_hours_start:
        until_quiet_hours = int((context.quiet_hours_start - context.now).total_seconds())
        validity = min(validity, max(until_quiet_hours, MIN_VALIDITY_SECONDS))
    settings = account.settings
    options: dict[str, Any] = {
        "from_": params.sender or settings.sender,
        "messaging_service_sid": settings.messaging_service_sid if params.sender is None else None,
        "status_callback": context.callback_url("status"),
    }
    message = account.api.messages.create(
        to=params.to,
        body=params.body,
        validity_period=validity,
        **{name: value for name, value in options.items() if value is not None},
    )
    if not message.sid:
        raise OutcomeUnknown("Twilio's response has no message SID", reason="server_error")
    return _success(message, params.body)


@send_sms.lookup
def find_sms(account: Account, params: SmsParams, context: Context) -> Success | None:
    """Return the delivery's message if it is among Twilio's newest messages to this recipient.

    Two deliveries may send the same text to one recipient, so a message used by another delivery is skipped. If two
    equal messages belong to no delivery, either may be this one's, and using one of them keeps the count right.
    Twilio cannot filter by creation date, and its filter by sending date hides messages that are still queued.
    """
    if context.ids_used_by_others is None:
        raise LookupInconclusive("the messages used by other deliveries are not known here")
    since = context.first_attempt_at - CLOCK_SKEW
    newest = _newest_messages(account, params.to)
    recent = [message for message in newest if message.date_created is None or message.date_created >= since]
    outbound = [message for message in recent if message.direction == "outbound-api" and message.sid]
    used = context.ids_used_by_others([message.sid for message in outbound])
    candidates = [message for message in outbound if message.sid not in used]
    for message in reversed(candidates):
        if _is_same_text(message.body or "", params.body):
            return _success(message, params.body)
    if any(not message.body for message in candidates):
        raise LookupInconclusive("Twilio no longer shows the body of a message to this recipient")
    if len(recent) >= LOOKUP_PAGE_SIZE:
        raise LookupInconclusive("this recipient got more messages than one lookup reads")
    return None


def _newest_messages(account: Account, recipient: str) -> list[Any]:
    try:
        return list(
            account.api.messages.list(to=recipient, limit=LOOKUP_PAGE_SIZE, page_size=LOOKUP_PAGE_SIZE)
        )
    except AttributeError as error:  # the SDK takes any value of a JSON object for the list
        raise OutcomeUnknown("the response is not a list of messages", reason="server_error") from error


def _success(message: Any, body: str) -> Success:
    status = MESSAGE_STATUS.get(str(message.status), "queued")
    return Success(id=message.sid, detail=_segments_note(body), message_status=status)


def _is_same_text(stored: str, sent: str) -> bool:
    """Compare letters and digits only: smart encoding replaces quotes and dashes, trial accounts add a prefix."""
    return stored == sent or (
        bool(_alphanumerics(sent))
        and _alphanumerics(stored.removeprefix(_TRIAL_PREFIX)) == _alphanumerics(sent)
    )


def _alphanumerics(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if char.isalnum())


def _segments_note(body: str) -> str:
    """Return `2 segments`, with the reason if the message needs more segments than its length suggests."""
    size = segments(body)
    reason = "" if size.encoding == "GSM-7" else " (UCS-2: 70 characters each, because one is special)"
    return f"{size.count} segment{'' if size.count == 1 else 's'}{reason}"
