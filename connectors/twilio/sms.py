"""Action that sends text messages, and its lookup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.connector import Context, Params, PhoneNumber, Success, param, per_message, segments
from bridge.errors import ConfigError

from .account import Account
from .messages import (
    LOOKUP_DELAY,
    MAX_BODY_LENGTH,
    create_message,
    find_message,
    is_same_text,
    status_of,
    validity_param,
)
from .settings import Settings, connector

_NO_SENDER = (
    "no sender of texts is set: set TWILIO_MESSAGING_SERVICE_SID or TWILIO_FROM, or `sender` in the rule"
)


class SmsParams(Params):
    """One text message."""

    to: PhoneNumber = param("{{ contact.phone }}", "Recipient, in E.164 format.", example="+14155550123")
    body: str = param(
        ...,
        "Message text. Each segment is billed: up to 160 GSM-7 characters, or 70 if the text has "
        "any other character.",
        example="Hi {{ contact.first_name | default('there') }}, we tried to reach you. Reply STOP to opt out.",
        min_length=1,
        max_length=MAX_BODY_LENGTH,
    )
    sender: str | None = param(
        None, "Number to send from, instead of the account's default sender.", example="+12125550100"
    )
    validity: int = validity_param(
        "How long Twilio keeps trying if the phone is off, in seconds. "
        "Shortened if the delivery expires or quiet hours start earlier."
    )


@connector.action(channel="sms", text="body", idempotency=per_message, lookup_delay=LOOKUP_DELAY)
def send_sms(account: Account, params: SmsParams, context: Context) -> Success:
    """Send one text message."""
    settings = account.settings
    sender = params.sender or settings.sender
    service = settings.messaging_service_sid if params.sender is None else None
    if sender is None and service is None:
        raise ConfigError(_NO_SENDER)
    message = create_message(
        account,
        context,
        validity=params.validity,
        to=params.to,
        body=params.body,
        from_=sender,
        messaging_service_sid=service,
    )
    return _success(message, params.body)


@send_sms.check_params
def check_sender(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Say if nothing names a sender of texts, because only WhatsApp is set up."""
    is_set = settings.sender or settings.messaging_service_sid or params.get("sender", "from a template")
    return None if is_set else _NO_SENDER


@send_sms.lookup
def find_sms(account: Account, params: SmsParams, context: Context) -> Success | None:
    """Return the delivery's message if it is among Twilio's newest messages to this recipient."""
    message = find_message(account, context, params.to, lambda text: is_same_text(text, params.body))
    return _success(message, params.body) if message else None


def _success(message: Any, body: str) -> Success:
    return Success(id=message.sid, detail=_segments_note(body), message_status=status_of(message))


def _segments_note(body: str) -> str:
    """Return `2 segments`, with the reason if the message needs more segments than its length suggests."""
    size = segments(body)
    reason = "" if size.encoding == "GSM-7" else " (UCS-2: 70 characters each, because one is special)"
    return f"{size.count} segment{'' if size.count == 1 else 's'}{reason}"
