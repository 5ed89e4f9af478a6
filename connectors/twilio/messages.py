"""What a text and a WhatsApp message have in common: how Twilio sends one, and how it is found again."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from bridge.connector import Context, MessageStatus, param
from bridge.errors import LookupInconclusive, OutcomeUnknown, PermanentError

from .account import Account

CLOCK_SKEW = timedelta(minutes=2)
"""Allowed difference between Twilio's clock and the bridge's, when a lookup skips messages older than the first
attempt."""

LOOKUP_DELAY = timedelta(seconds=10)
"""Time until a new message is in Twilio's list."""

LOOKUP_PAGE_SIZE = 100
"""Number of Twilio's newest messages to the recipient that a lookup reads, in one request."""

MAX_BODY_LENGTH = 1600

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


def validity_param(description: str) -> Any:
    """Return the param `validity`, in seconds."""
    return param(3600, description, example=3600, ge=1, le=MAX_VALIDITY_SECONDS)


def create_message(account: Account, context: Context, *, validity: int, **options: Any) -> Any:
    """Send one message. `options` are those of Twilio's SDK; None leaves one out.

    Twilio's queue keeps it for `validity` seconds at most, and never past the delivery's expiry or into the
    recipient's quiet hours.
    """
    if context.expires_at:
        validity = min(validity, int((context.expires_at - context.now).total_seconds()))
    if validity < 1:
        raise PermanentError("the message expired before it could be sent", code="expired")
    if context.quiet_hours_start:
        until_quiet_hours = int((context.quiet_hours_start - context.now).total_seconds())
        validity = min(validity, max(until_quiet_hours, MIN_VALIDITY_SECONDS))
    options |= {"validity_period": validity, "status_callback": context.callback_url("status")}
    message = account.api.messages.create(
        **{name: value for name, value in options.items() if value is not None}
    )
    if not message.sid:
        raise OutcomeUnknown("Twilio's response has no message SID", reason="server_error")
    return message


def find_message(
    account: Account, context: Context, recipient: str, is_ours: Callable[[str], bool]
) -> Any | None:
    """Return the delivery's message if it is among Twilio's newest messages to this recipient.

    `is_ours` compares the text of a message. Two deliveries may send the same text to one recipient, so a message used
    by another delivery is skipped. If two equal messages belong to no delivery, either may be this one's, and using one
    of them keeps the count right. Twilio cannot filter by creation date, and its filter by sending date hides messages
    that are still queued.
    """
    if context.ids_used_by_others is None:
        raise LookupInconclusive("the messages used by other deliveries are not known here")
    since = context.first_attempt_at - CLOCK_SKEW
    newest = _newest_messages(account, recipient)
    recent = [message for message in newest if message.date_created is None or message.date_created >= since]
    outbound = [message for message in recent if message.direction == "outbound-api" and message.sid]
    used = context.ids_used_by_others([message.sid for message in outbound])
    candidates = [message for message in outbound if message.sid not in used]
    for message in reversed(candidates):
        if is_ours(message.body or ""):
            return message
    if any(not message.body for message in candidates):
        raise LookupInconclusive("Twilio does not show the text of a message to this recipient")
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


def status_of(message: Any) -> MessageStatus:
    """Return the bridge's status of a message that Twilio's SDK returned."""
    return MESSAGE_STATUS.get(str(message.status), "queued")


def is_same_text(stored: str, sent: str) -> bool:
    """Compare letters and digits only: smart encoding replaces quotes and dashes, trial accounts add a prefix."""
    return stored == sent or (
        bool(_alphanumerics(sent))
        and _alphanumerics(stored.removeprefix(_TRIAL_PREFIX)) == _alphanumerics(sent)
    )


def _alphanumerics(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if char.isalnum())
